"""EfficientNetLite0 for tests: published once in a process, then linked into every store that needs it.

`SMALL_SIDE` is for tests of what is around a network: its images have a fifth of the pixels, so it learns several times faster.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from ocelli_model.backbone import Backbone, BackboneMetadata, load_backbone_metadata
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.efficientnet_lite_table import SCALES
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.publish import PublishedBackbone, publish_backbone
from ocelli_storage.layout import BACKBONES
from ocelli_storage.store_url import open_store

SCALE = SCALES[DEFAULT_BACKBONE]
SIDE, SMALL_SIDE = SCALE.side_pixels, 96


@dataclass(frozen=True, kw_only=True)
class _Original:
    folder: tempfile.TemporaryDirectory[str]
    """Removed when the process ends."""
    published: PublishedBackbone
    metadata: BackboneMetadata

    @property
    def files(self) -> Path:
        return Path(self.folder.name) / BACKBONES / self.published.digest


def install_backbone(store_folder: Path, side: int = SIDE) -> PublishedBackbone:
    """Put it into the store in this folder, as hard links: a test that damages a file must replace it, not write into it."""
    original = _publish(side)
    target = store_folder / BACKBONES / original.published.digest
    if not target.exists():
        shutil.copytree(original.files, target, copy_function=_link)
    return original.published


def installed_backbone() -> Backbone:
    """Its files in a folder that no test may change."""
    original = _publish(SIDE)
    return Backbone(metadata=original.metadata, folder=original.files)


def backbone_files() -> Mapping[str, bytes]:
    """The contents of its files, by name."""
    original = _publish(SIDE)
    return {name: (original.files / name).read_bytes() for name in original.metadata.files}


@functools.cache
def _publish(side: int) -> _Original:
    original = efficientnet_lite.preprocessing_for(DEFAULT_BACKBONE)
    short_side = SCALE.short_side_pixels * side // SIDE
    preprocessing = replace(original, height=side, width=side, short_side_pixels=short_side)
    folder = tempfile.TemporaryDirectory(prefix="ocelli-backbone-")
    store = open_store(Path(folder.name).as_uri())

    async def publish() -> tuple[PublishedBackbone, BackboneMetadata]:
        published = await publish_backbone(store, DEFAULT_BACKBONE)
        return published, await load_backbone_metadata(store, published.digest)

    with mock.patch.object(efficientnet_lite, "preprocessing_for", return_value=preprocessing):
        published, metadata = asyncio.run(publish())
    return _Original(folder=folder, published=published, metadata=metadata)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # The test's folder is on another file system.
        shutil.copyfile(source, target)
