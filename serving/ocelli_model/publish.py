"""`python -m ocelli_model.publish --store URL NAME [--weights WHERE] [--sha256 DIGEST]`: install a backbone, print NAME=DIGEST.

A backbone that is there already, of the same name, version and weights, stays the one: restarts and new versions of PyTorch
change no digest. PyTorch is needed only to export a torchvision model; HogColor comes exported.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ocelli_model.backbone import (
    METADATA_FILE,
    ONNX_BODY_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    BackboneError,
    BackboneMetadata,
    BackboneUnavailableError,
    Precision,
    load_backbone_metadata,
    save_backbone,
)
from ocelli_model.backbones.published_weights import WeightsFile, find_weights
from ocelli_model.canonical_json import sha256_hex
from ocelli_storage.layout import BACKBONES, backbone_key
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

HOG_COLOR = "HogColor"
TORCHVISION_VERSION = "1"
"""`torchvision_backbones.VERSION`, which cannot be asked without PyTorch; a test compares them."""


@dataclass(frozen=True, kw_only=True)
class PublishedBackbone:
    """A backbone in the object store; as text `NAME=DIGEST`, as installation settings have it."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}={self.digest}"


async def publish_backbone(
    store: ObjectStore, name: str, *, weights: str | None = None, sha256: str | None = None
) -> PublishedBackbone:
    """Install a backbone, or find it installed.

    `weights` says where published weights are: a folder, a file, an http, https or file URL; None is torch hub's cache.
    `sha256` pins the file of weights (64 hex digits).

    Raises:
        BackboneUnavailableError: no such backbone, or no weights for it.
        StoreUnavailableError: see there.
    """
    if name == HOG_COLOR:
        if weights is not None or sha256 is not None:
            raise BackboneUnavailableError(f"backbone {HOG_COLOR}: it has no weights; leave out --weights and --sha256")
        metadata, files = packaged_hog_color()
        digest = await _find_published(store, name, metadata.version, None) or await save_backbone(store, metadata, files)
        return PublishedBackbone(name=name, digest=digest)
    if sha256 is not None and (found := await _find_published(store, name, TORCHVISION_VERSION, sha256)):
        return PublishedBackbone(name=name, digest=found)
    with find_weights(name, weights, sha256=sha256, published_names=lambda: _published_names(name)) as file:
        found = await _find_published(store, name, TORCHVISION_VERSION, file.weights.sha256)
        if found is None:
            metadata, files = await asyncio.to_thread(_export_torchvision, name, file)
            found = await save_backbone(store, metadata, files)
    return PublishedBackbone(name=name, digest=found)


def packaged_hog_color() -> tuple[BackboneMetadata, Mapping[str, bytes]]:
    """HogColor as it comes with this package: its metadata, and its files by name."""
    folder = resources.files("ocelli_model.backbones") / "exported" / "hog_color"
    data = (folder / METADATA_FILE).read_bytes()
    metadata = BackboneMetadata.parse(data, digest=sha256_hex(data))
    return metadata, {name: (folder / name).read_bytes() for name in metadata.files}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ocelli_model.publish", description="Install a backbone; prints NAME=DIGEST."
    )
    parser.add_argument(
        "name", metavar="NAME", help=f"{HOG_COLOR}, or a torchvision classification model by its torchvision name"
    )
    parser.add_argument("--store", metavar="URL", required=True, help="the object store, such as file:///var/lib/ocelli")
    parser.add_argument("--weights", metavar="WHERE", help="folder, file or URL of the weights; default: torch hub's cache")
    parser.add_argument("--sha256", metavar="DIGEST", help="SHA-256 that the file of weights must have")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write NAME=DIGEST there, too")
    options = parser.parse_args(arguments)
    try:
        store = ObjectStore.from_url(options.store)
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
            # Damaged, half written, or of another version of Ocelli: whatever it is, it is not this one.
            continue
        its_weights = None if metadata.weights is None else metadata.weights.sha256
        if (metadata.name, metadata.version, its_weights) != (name, version, weights_sha256):
            continue
        if ONNX_BODY_FILE not in metadata.files:
            # Of before there were exports: classifiers learned on it go on, new ones get the new one.
            continue
        if all([await store.exists(backbone_key(digest, file)) for file in metadata.files]):
            return digest
    return None


def _require_torch(name: str) -> None:
    if importlib.util.find_spec("torchvision") is None:
        raise BackboneUnavailableError(
            f"backbone {name}: exporting a torchvision model needs PyTorch, which is not installed here; "
            "publish it from an environment with the extra `torch`, or choose HogColor"
        )


def _published_names(name: str) -> Sequence[str]:
    _require_torch(name)
    from ocelli_model.backbones.torchvision_backbones import weights_file_names

    return weights_file_names(name)


def _export_torchvision(name: str, file: WeightsFile) -> tuple[BackboneMetadata, Mapping[str, bytes]]:
    _require_torch(name)
    from ocelli_model.backbones import torchvision_backbones
    from ocelli_model.backbones.onnx_export import export_onnx
    from ocelli_model.exports.backbone_parts import build_body_files

    preprocessing, licence = torchvision_backbones.preprocessing_for(name, file.path.name)
    network = torchvision_backbones.build_network(name, file.path, preprocessing)
    onnx, feature_count = export_onnx(network, preprocessing)
    files = {
        ONNX_FILE: onnx,
        WEIGHTS_FILE: torchvision_backbones.network_weights(network),
        **build_body_files(network, onnx, preprocessing),
    }
    metadata = BackboneMetadata(
        name=name,
        version=torchvision_backbones.VERSION,
        preprocessing=preprocessing,
        feature_count=feature_count,
        precision=Precision.FASTEST,
        weights=file.weights,
        licence=licence,
        files={file_name: sha256_hex(data) for file_name, data in files.items()},
    )
    return metadata, files


if __name__ == "__main__":
    sys.exit(main())
