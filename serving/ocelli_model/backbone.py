"""An installed backbone: its metadata, and its files below `backbones/<digest>/` in the object store.

`backbone.json` lists every other file with its digest, and the digest of `backbone.json` names the backbone, so it pins all
files. The network of a pretrained classifier is stored in the same form, with the classifier's artifact. This module must not
run a network or need PyTorch.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.digests import is_digest
from ocelli_api.documents import build_document, parse_fields
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

FORMAT_VERSION = 1
METADATA_FILE = "backbone.json"
ONNX_FILE = "model.onnx"
"""The network: uint8[N, height, width, 3] to float32[N, features], including normalisation."""
ONNX_BODY_FILE = "body.onnx"
"""The backbone's part of ONNX exports, see `ocelli_model.exports`."""
CORE_ML_BODY_FILE = "body.mlmodel"
"""The backbone's part of Core ML exports; absent if Core ML cannot express the network."""
WEIGHTS_FILE = "model.safetensors"
"""The weights for PyTorch; absent if the network has none."""

METADATA_LIMIT_BYTES = 1 * MEGABYTE
FILE_LIMIT_BYTES = 4096 * MEGABYTE
"""torchvision's largest networks have 2.5 GB. Each trainer and inference server reads them for one tenant only."""

_PUBLISH_AGAIN = "publish the backbone again"
_TRAIN_AGAIN = "train the revision again"


class BackboneError(Exception):
    """An installed backbone cannot be used: it is missing, damaged, or of another version of Ocelli."""


class BackboneUnavailableError(BackboneError):
    """A backbone cannot be published: its name is unknown, or its published weights are not available."""


class NetworkKind(StrEnum):
    """What a network computes, and which code of Ocelli can rebuild it."""

    BODY = "Body"
    """Features for learned heads: a network without its last layer."""
    CLASSIFIER = "Classifier"
    """The outputs of a whole network."""
    ONNX = "ONNX"
    """The outputs of a network that was imported as ONNX: it cannot run in PyTorch."""


class Precision(StrEnum):
    """The number formats that an engine may use."""

    FLOAT32 = "Float32"
    """Only 32 bits: the same scores on every node."""
    FASTEST = "Fastest"
    """Also bfloat16, if the processor supports it. Scores then depend on the node, so nothing new is learned or published with
    it; older artifacts are served with it.
    """


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where published weights came from."""

    origin: str
    """The file's name or URL, without credentials."""
    sha256: str
    provenance: str | None = None
    """Who trained them, and what they were converted from, if known."""


@dataclass(frozen=True, kw_only=True)
class BackboneMetadata:
    """The contents of `backbone.json`."""

    name: str
    """Such as `EfficientNetLite0`, or the name of a torchvision classification model; see `ocelli_model.backbones.families`."""
    version: str
    """Version of the code that built the files."""
    preprocessing: Preprocessing
    feature_count: int
    precision: Precision
    weights: Weights | None = None
    """None: the backbone needs none."""
    licence: str | None = None
    """SPDX identifier, where it is known."""
    files: Mapping[str, str]
    """SHA-256 (hex) by file name."""
    kind: NetworkKind = NetworkKind.BODY

    def to_bytes(self) -> bytes:
        """The contents of `backbone.json`."""
        document = {"formatVersion": FORMAT_VERSION, "weights": None, "licence": None, **build_document(self)}
        if self.kind is NetworkKind.BODY:
            # The digests of bodies are older than the other kinds.
            del document["kind"]
        return canonical_bytes(document)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of `backbone.json`: the name of the backbone in the store."""
        return sha256_hex(self.to_bytes())

    @classmethod
    def parse(cls, data: bytes, *, digest: str, remedy: str = _PUBLISH_AGAIN) -> BackboneMetadata:
        """Type the contents of `backbone.json` and check that they have the requested digest.

        `remedy` is the remedy in error messages.

        Raises:
            BackboneError: they are not metadata of this version, or do not have the digest.
        """
        if sha256_hex(data) != digest:
            raise BackboneError(f"backbone {digest}: {METADATA_FILE} does not have this digest; {remedy}")
        try:
            document = json.loads(data)
            version = document["formatVersion"]
            if version != FORMAT_VERSION:
                raise BackboneError(
                    f"backbone {digest}: {METADATA_FILE} has format version {version}; this program reads version "
                    f"{FORMAT_VERSION}. Use one version of Ocelli for all its parts"
                )
            return parse_fields(cls, document)
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneError(f"backbone {digest}: {METADATA_FILE} cannot be read; {remedy}") from error


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone whose requested files are in a local folder, verified."""

    metadata: BackboneMetadata
    folder: Path

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def digest(self) -> str:
        return self.metadata.digest


@dataclass(frozen=True, kw_only=True)
class BackboneSource:
    """A backbone that can be built: its weights are available, and their digest is known."""

    weights: Weights
    build: Callable[[], tuple[BackboneMetadata, Mapping[str, bytes]]]
    """Its metadata, and its files by name. Takes seconds. Raises BackboneUnavailableError if the weights cannot be used."""


async def load_backbone(
    store: ObjectStore, digest: str, *, cache: Path, files: Iterable[str] = (ONNX_FILE,), prefix: str | None = None
) -> Backbone:
    """Download files of a backbone to `<cache>/<digest>/`. Undamaged files that exist there are not downloaded again.

    `prefix` is its place in the store; None: it is an installed backbone. Several processes can share the cache: files are
    written atomically. `files` that this backbone does not have are skipped; `ocelli_model.engine.needed_files` returns those
    that an engine needs.

    Raises:
        BackboneError: there is no such backbone, or it is damaged.
        StoreUnavailableError: see there.
    """
    if not is_digest(digest):
        raise BackboneError(f"backbone {digest!r}: a digest has 64 hex digits; use the one that ocelli_model.publish prints")
    folder = cache / digest
    metadata = await load_backbone_metadata(store, digest, prefix=prefix)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        expected = metadata.files.get(file)
        if expected is None:
            continue
        path = folder / file
        if path.exists() and await asyncio.to_thread(_file_digest, path) == expected:
            continue
        data = await _get(store, digest, file, prefix)
        if sha256_hex(data) != expected:
            remedy = _PUBLISH_AGAIN if prefix is None else _TRAIN_AGAIN
            raise BackboneError(f"backbone {metadata.name} ({digest}): {file} is damaged in the store; {remedy}")
        await asyncio.to_thread(_write_whole, path, data)
    return Backbone(metadata=metadata, folder=folder)


async def load_backbone_metadata(store: ObjectStore, digest: str, *, prefix: str | None = None) -> BackboneMetadata:
    """The metadata of a backbone. Raises as `load_backbone`."""
    remedy = _PUBLISH_AGAIN if prefix is None else _TRAIN_AGAIN
    return BackboneMetadata.parse(await _get(store, digest, METADATA_FILE, prefix), digest=digest, remedy=remedy)


async def save_backbone(
    store: ObjectStore, metadata: BackboneMetadata, files: Mapping[str, bytes], *, prefix: str | None = None
) -> str:
    """Store a backbone and return its digest. `backbone.json` is written last: it completes the backbone.

    `prefix` is its place in the store; None: it is an installed backbone.

    Raises:
        ValueError: the files are not those in the metadata.
        StoreUnavailableError: see there.
    """
    if {name: sha256_hex(data) for name, data in files.items()} != dict(metadata.files):
        raise ValueError(f"backbone {metadata.name}: the files do not have the digests in the metadata")
    digest = metadata.digest
    for name, data in files.items():
        await store.put(_key(digest, name, prefix), data)
    await store.put(_key(digest, METADATA_FILE, prefix), metadata.to_bytes())
    return digest


async def _get(store: ObjectStore, digest: str, file: str, prefix: str | None) -> bytes:
    try:
        limit_bytes = METADATA_LIMIT_BYTES if file == METADATA_FILE else FILE_LIMIT_BYTES
        return await store.get(_key(digest, file, prefix), limit_bytes=limit_bytes)
    except ObjectNotFoundError as error:
        remedy = "publish it with python -m ocelli_model.publish" if prefix is None else _TRAIN_AGAIN
        raise BackboneError(f"backbone {digest}: the object store has no {error.key}; {remedy}") from error
    except ObjectTooLargeError as error:
        raise BackboneError(f"backbone {digest}: {error}; {_PUBLISH_AGAIN if prefix is None else _TRAIN_AGAIN}") from error


def _key(digest: str, file: str, prefix: str | None) -> str:
    return backbone_key(digest, file) if prefix is None else f"{prefix}/{file}"


def _file_digest(path: Path) -> str:
    return sha256_hex(path.read_bytes())


def _write_whole(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
