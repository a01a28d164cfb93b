"""The artifact of a revision: what was learned, with everything that is needed to use it.

    model.safetensors   the heads of a trained classifier
    head.json           the head of a pretrained classifier
    network/            the network of a pretrained classifier, as a backbone
    …                   the artifact's parts of exports
    artifact.json       all other data and the digests of the other files; written last, so that it completes the artifact

`artifact.json` contains nothing that differs between two trainings of the same revision on one kind of machine: no times, and
nothing that is particular to a cluster, such as the id of the Classifier. Its digest is the artifact's digest, and it is
reproducible. There is never a pickle. The definition and the reports are stored with the artifact but are not part of it:
erasing a source changes the definition, not what was learned. Neither is its signature.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.documents import build_document, parse_fields
from ocelli_api.export import ArtifactSummary, ExportFormat, ExportPart, PartPlace
from ocelli_api.prediction import DECISION_THRESHOLD
from ocelli_api.signing_keys import PublicKey
from ocelli_model.backbone import Precision
from ocelli_model.heads import Heads, Rejection
from ocelli_model.output_head import OutputHead
from ocelli_model.preprocessing import Preprocessing
from ocelli_model.signature import SignatureError, SignedArtifact, Signer, save_signature, verify_stored_signature
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.documents import LIMITS_BYTES, parse_document
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

FORMAT_VERSION = 3
READ_VERSIONS = (1, 2, 3)
"""Versions 1 and 2 have the id of the Classifier, and version 1 has no precision of the features."""
HEADS_FILE = "model.safetensors"
OUTPUT_HEAD_FILE = "head.json"
_LIMITS_BYTES = {
    **LIMITS_BYTES,
    # 500 heads over the longest features of torchvision's networks, with their rejection, are 32 MB.
    HEADS_FILE: 64 * MEGABYTE,
    # Labels, hierarchy and translations are limited to 5 MB each, and the paths repeat names.
    OUTPUT_HEAD_FILE: 64 * MEGABYTE,
}

_REJECTION = "rejection."
"""Prefix of the names of a rejection's arrays."""
_LIBRARIES = ("ocelli", "numpy", "openvino", "pillow", "safetensors", "simplejpeg")


class ArtifactError(Exception):
    """The store has no artifact that this program can use."""


def library_versions(*further: str) -> Mapping[str, str]:
    """The versions of the libraries that determine what is learned: those of every training, and `further` ones."""
    return {name: importlib.metadata.version(name) for name in (*_LIBRARIES, *further)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """The result of a training."""

    classifier_id: str | None = None
    """Of the Classifier, in artifacts of format versions 1 and 2; None: the artifact does not depend on it."""
    revision: str
    class_names: tuple[str, ...]
    """In the order of the definition, which is also that of the heads."""
    heads: Heads | OutputHead
    backbone_name: str
    backbone_digest: str
    backbone_place: PartPlace = PartPlace.BACKBONE
    """`ARTIFACT`: the artifact contains its network."""
    precision: Precision | None
    """Precision of the features; None: the backbone's (format version 1)."""
    preprocessing: Preprocessing
    metrics: Mapping[str, Any]
    """A summary of the evaluation, as JSON."""
    exports: Mapping[ExportFormat, tuple[ExportPart, ...]] = field(default_factory=dict)
    """The parts of each export."""
    export_files: Mapping[str, bytes] = field(default_factory=dict)
    """The artifact's parts of exports, by file name; empty if the artifact was loaded."""
    library_versions: Mapping[str, str] = field(default_factory=library_versions)

    def __post_init__(self) -> None:
        if len(self.class_names) != self.heads.class_count:
            raise ValueError(
                f"artifact: it has {len(self.class_names)} class names and heads for {self.heads.class_count} classes"
            )

    def to_files(self) -> tuple[bytes, Mapping[str, bytes]]:
        """The bytes of `artifact.json`, and the other files by name."""
        classes, heads_file, heads = _describe_heads(self.class_names, self.heads)
        backbone = {"name": self.backbone_name, "digest": self.backbone_digest}
        if self.precision is not None:
            backbone["precision"] = str(self.precision)
        if self.backbone_place is not PartPlace.BACKBONE:
            backbone["place"] = str(self.backbone_place)
        document: dict[str, Any] = {
            "formatVersion": self._format_version,
            "revision": self.revision,
            "classes": classes,
            "backbone": backbone,
            "preprocessing": build_document(self.preprocessing),
            "metrics": self.metrics,
            "exports": {str(name): [build_document(part) for part in parts] for name, parts in self.exports.items()},
            "libraryVersions": dict(self.library_versions),
            "files": {heads_file: sha256_hex(heads)},
        }
        if isinstance(self.heads, Heads) and self.heads.power is not None:
            document["featurePower"] = self.heads.power
        if self.classifier_id is not None:
            document["classifierID"] = self.classifier_id
        return canonical_bytes(document), {heads_file: heads, **self.export_files}

    @property
    def _format_version(self) -> int:
        """An artifact that was loaded keeps its version and so its digest."""
        if self.precision is None:
            return 1
        return FORMAT_VERSION if self.classifier_id is None else 2

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of `artifact.json`, which contains the digests of the other files."""
        return sha256_hex(self.to_files()[0])


async def save_artifact(
    store: ObjectStore, location: ClassifierLocation, artifact: Artifact, signer: Signer | None = None
) -> str:
    """Write the artifact of a revision, signed if there is a signer, and return its digest.

    Raises:
        StoreUnavailableError: see there.
    """
    metadata, files = artifact.to_files()
    for name, data in files.items():
        await store.put(location.artifact_key(artifact.revision, name), data)
    digest = sha256_hex(metadata)
    if signer is not None:
        await save_signature(store, SignedArtifact(location=location, revision=artifact.revision, digest=digest), signer)
    await store.put(location.artifact_key(artifact.revision, ARTIFACT_METADATA), metadata)
    return digest


async def load_artifact(
    store: ObjectStore,
    location: ClassifierLocation,
    revision: str,
    *,
    expected_digest: str | None = None,
    trusted: Sequence[PublicKey] = (),
) -> Artifact:
    """Read the artifact of a revision and verify all digests, and the artifact's own digest if it is given.

    One of the keys in `trusted` must have signed it; without any, its signature is not read.

    Raises:
        ArtifactError: it is missing, damaged, another one than expected, not signed by a trusted key, or of a version that this
            program cannot read.
        StoreUnavailableError: see there.
    """
    what = f"artifact of {location.classifier_id}, revision {revision}"
    metadata = await _get(store, location.artifact_key(revision, ARTIFACT_METADATA), what)
    digest = sha256_hex(metadata)
    if expected_digest is not None and digest != expected_digest:
        raise ArtifactError(f"{what}: its digest is {digest} instead of {expected_digest}; train the revision again")
    if trusted:
        try:
            await verify_stored_signature(store, SignedArtifact(location=location, revision=revision, digest=digest), trusted)
        except SignatureError as error:
            raise ArtifactError(f"{what}: {error}") from error
    try:
        document = parse_document(metadata)
        version = document["formatVersion"]
        if version not in READ_VERSIONS:
            raise ArtifactError(
                f"{what}: {ARTIFACT_METADATA} has format version {version}; this program reads versions "
                f"{READ_VERSIONS[0]} to {READ_VERSIONS[-1]}. Use one version of Ocelli for all its parts"
            )
        file = OUTPUT_HEAD_FILE if OUTPUT_HEAD_FILE in document["files"] else HEADS_FILE
        data = await _get(store, location.artifact_key(revision, file), what)
        if sha256_hex(data) != document["files"][file]:
            raise ArtifactError(f"{what}: {file} does not have the digest in {ARTIFACT_METADATA}; train the revision again")
        classes, summary = document["classes"], ArtifactSummary.parse(document)
        if file == HEADS_FILE and any(item["threshold"] != DECISION_THRESHOLD for item in classes):
            raise ArtifactError(f"{what}: a class has a threshold other than {DECISION_THRESHOLD}; train the revision again")
        classifier_id = document["classifierID"] if version < FORMAT_VERSION else None
        owner = location.classifier_id if classifier_id is None else classifier_id
        if (owner, document["revision"]) != (location.classifier_id, revision):
            raise ArtifactError(f"{what}: it belongs to revision {document['revision']} of {owner}; train again")
        return Artifact(
            classifier_id=classifier_id,
            revision=document["revision"],
            class_names=summary.class_names,
            heads=parse_fields(OutputHead, parse_document(data))
            if file == OUTPUT_HEAD_FILE
            else _parse_heads(data, classes, document.get("featurePower")),
            backbone_name=document["backbone"]["name"],
            backbone_digest=summary.backbone_digest,
            backbone_place=summary.backbone_place,
            precision=None if version == 1 else Precision(document["backbone"]["precision"]),
            preprocessing=parse_fields(Preprocessing, document["preprocessing"]),
            metrics=document["metrics"],
            exports=summary.exports,
            library_versions=document["libraryVersions"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise ArtifactError(f"{what}: it cannot be read; train the revision again") from error


def _describe_heads(class_names: tuple[str, ...], heads: Heads | OutputHead) -> tuple[list[dict[str, Any]], str, bytes]:
    """The classes of `artifact.json`, and the name and the bytes of the file with the heads."""
    if isinstance(heads, OutputHead):
        return (
            [{"name": name} for name in class_names],
            OUTPUT_HEAD_FILE,
            canonical_bytes(build_document(heads, omit_defaults=True)),
        )
    classes = [
        {"name": name, "threshold": DECISION_THRESHOLD, "calibration": {"slope": float(slope), "offset": float(offset)}}
        for name, slope, offset in zip(class_names, heads.slope, heads.offset, strict=True)
    ]
    # safetensors writes the memory in its order, with the shape: a transposed array would be read back scrambled.
    arrays = {"weights": heads.weights, "bias": heads.bias}
    if heads.rejection is not None:
        arrays |= {f"{_REJECTION}{name}": array for name, array in heads.rejection.arrays().items()}
    data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return classes, HEADS_FILE, data


def _parse_heads(data: bytes, classes: Sequence[Mapping[str, Any]], power: float | None) -> Heads:
    tensors = safetensors.numpy.load(data)
    rejection = {name.removeprefix(_REJECTION): array for name, array in tensors.items() if name.startswith(_REJECTION)}
    return Heads(
        weights=tensors["weights"],
        bias=tensors["bias"],
        slope=np.array([item["calibration"]["slope"] for item in classes], dtype=np.float32),
        offset=np.array([item["calibration"]["offset"] for item in classes], dtype=np.float32),
        power=power,
        rejection=Rejection(**rejection) if rejection else None,
    )


async def _get(store: ObjectStore, key: str, what: str) -> bytes:
    try:
        return await store.get(key, limit_bytes=_LIMITS_BYTES[key.rsplit("/", 1)[-1]])
    except ObjectNotFoundError as error:
        raise ArtifactError(f"{what}: the object store has no {key}; train the revision") from error
    except ObjectTooLargeError as error:
        raise ArtifactError(f"{what}: {error}; train the revision again") from error
