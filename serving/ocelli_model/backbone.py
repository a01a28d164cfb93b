"""A backbone as installed: what is known of it, and its files below `backbones/<digest>/` in the object store.

`backbone.json` names every other file with its digest, and the digest of `backbone.json` names the backbone: it pins all.
The network of a pretrained classifier is kept in the same form, beside the classifier's artifact. Nothing here runs a network
or knows PyTorch.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.documents import build_document, parse_fields
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

FORMAT_VERSION = 1
METADATA_FILE = "backbone.json"
ONNX_FILE = "model.onnx"
"""The network: uint8[N, height, width, 3] to float32[N, features], normalisation included."""
ONNX_BODY_FILE = "body.onnx"
"""Its part of ONNX exports, see `ocelli_model.exports`."""
CORE_ML_BODY_FILE = "body.mlmodel"
"""Its part of Core ML exports; absent where Core ML cannot express the network."""
WEIGHTS_FILE = "model.safetensors"
"""The weights for PyTorch; absent where the network has none."""

METADATA_LIMIT_BYTES = 1 * MEGABYTE
FILE_LIMIT_BYTES = 4096 * MEGABYTE
"""torchvision's largest networks have 2.5 GB. Trainers and inference servers read them, each for its own tenant only."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PUBLISH_AGAIN = "publish the backbone again"
_TRAIN_AGAIN = "train the revision again"


class BackboneError(Exception):
    """An installed backbone cannot be used: it is missing, damaged, or of another version of Ocelli."""


class BackboneUnavailableError(BackboneError):
    """A backbone cannot be had: its name is unknown, or its published weights are not at hand."""


class NetworkKind(StrEnum):
    """What a network answers, and which code of ours knows it."""

    BODY = "Body"
    """Features, for heads that are learned: a network without its last layer."""
    CLASSIFIER = "Classifier"
    """The outputs of a whole network of torchvision's."""
    ONNX = "ONNX"
    """The outputs of a network that came as ONNX: no code here could run it in PyTorch."""


class Precision(StrEnum):
    """With which numbers an engine may compute."""

    FLOAT32 = "Float32"
    """Only with 32 bits: the same scores on every node."""
    FASTEST = "Fastest"
    """With bfloat16 too, where the processor has it. Nothing new is learned or published with it, because scores depend on
    the node; what was learned with it is served with it.
    """


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where published weights came from."""

    origin: str
    """The file's name or URL, without credentials."""
    sha256: str
    provenance: str | None = None
    """Who made them, and from what they were converted; where it is known."""


@dataclass(frozen=True, kw_only=True)
class BackboneMetadata:
    """What `backbone.json` says."""

    name: str
    """Such as `EfficientNetLite0`, or the name of a torchvision classification model; `ocelli_model.backbones.families`."""
    version: str
    """Of the code that made the files."""
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
        """Type the contents of `backbone.json` and check that they have the digest that they were asked for by.

        `remedy` is what to do where they have not.

        Raises:
            BackboneError: they are no metadata of this version, or others than the digest names.
        """
        if sha256_hex(data) != digest:
            raise BackboneError(f"backbone {digest}: {METADATA_FILE} has another digest; {remedy}")
        try:
            document = json.loads(data)
            version = document["formatVersion"]
            if version != FORMAT_VERSION:
                raise BackboneError(
                    f"backbone {digest}: {METADATA_FILE} has format version {version}, this program reads {FORMAT_VERSION}; "
                    "use one version of Ocelli for all its parts"
                )
            return parse_fields(cls, document)
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneError(f"backbone {digest}: {METADATA_FILE} cannot be read; {remedy}") from error


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone whose files, those that were asked for, lie in a local folder, verified."""

    metadata: BackboneMetadata
    folder: Path

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def digest(self) -> str:
        return self.metadata.digest


async def load_backbone(
    store: ObjectStore, digest: str, *, cache: Path, files: Iterable[str] = (ONNX_FILE,), prefix: str | None = None
) -> Backbone:
    """Bring files of a backbone to `<cache>/<digest>/`; those that lie there undamaged are not fetched again.

    `prefix` is where it lies; None: among the installed ones. Several processes may share the cache: a file appears complete
    or not at all. Of `files`, those that this backbone does not have are passed over; `ocelli_model.engine.needed_files` says
    which an engine needs.

    Raises:
        BackboneError: there is no such backbone, or what lies there is damaged.
        StoreUnavailableError: see there.
    """
    if not _DIGEST.fullmatch(digest):
        raise BackboneError(f"backbone {digest!r}: a digest has 64 hex digits; take it from the output of ocelli_model.publish")
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
    """What is known of a backbone. Raises as `load_backbone`."""
    remedy = _PUBLISH_AGAIN if prefix is None else _TRAIN_AGAIN
    return BackboneMetadata.parse(await _get(store, digest, METADATA_FILE, prefix), digest=digest, remedy=remedy)


async def save_backbone(
    store: ObjectStore, metadata: BackboneMetadata, files: Mapping[str, bytes], *, prefix: str | None = None
) -> str:
    """Store a backbone and return its digest. `backbone.json` comes last: with it the backbone exists.

    `prefix` is where it shall lie; None: among the installed ones.

    Raises:
        ValueError: the files are not those that the metadata name.
        StoreUnavailableError: see there.
    """
    if {name: sha256_hex(data) for name, data in files.items()} != dict(metadata.files):
        raise ValueError(f"backbone {metadata.name}: files and digests differ")
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
