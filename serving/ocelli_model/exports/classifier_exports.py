"""The exports of a learned classifier, and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.export import ExportFormat, ExportPart, PartPlace
from ocelli_model.backbone import CORE_ML_BODY_FILE, ONNX_BODY_FILE, BackboneMetadata
from ocelli_model.exports.core_ml_parts import build_core_ml_head
from ocelli_model.exports.heads import fold_calibration
from ocelli_model.exports.onnx_parts import build_onnx_head
from ocelli_model.heads import Heads
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectStore

_BODY_FILES = {ExportFormat.CORE_ML: CORE_ML_BODY_FILE, ExportFormat.ONNX: ONNX_BODY_FILE}
_HEAD_BUILDERS = {ExportFormat.CORE_ML: build_core_ml_head, ExportFormat.ONNX: build_onnx_head}
_HEAD_FILES = {ExportFormat.CORE_ML: "head.mlmodel", ExportFormat.ONNX: "head.onnx"}


@dataclass(frozen=True, kw_only=True)
class ClassifierExports:
    """The exports of one revision."""

    parts: Mapping[ExportFormat, tuple[ExportPart, ...]]
    files: Mapping[str, bytes]
    """The artifact's own parts, by file name."""


async def build_exports(
    store: ObjectStore,
    backbone: BackboneMetadata,
    heads: Heads,
    class_names: Sequence[str],
    *,
    own_files: Mapping[str, bytes] | None = None,
) -> ClassifierExports:
    """The exports of heads on a backbone, in every format for which the backbone has a part.

    `own_files` are the files of the artifact's own network; None: the backbone is installed.

    Raises:
        ObjectStoreError: the backbone's parts cannot be found.
    """
    head = fold_calibration(heads)
    parts: dict[ExportFormat, tuple[ExportPart, ...]] = {}
    files: dict[str, bytes] = {}
    for export, body_file in _BODY_FILES.items():
        if body_file not in backbone.files:
            continue
        own = _HEAD_BUILDERS[export](head, class_names)
        body = ExportPart(
            place=PartPlace.BACKBONE,
            file=body_file,
            sha256=backbone.files[body_file],
            size_bytes=await store.size_of(backbone_key(backbone.digest, body_file))
            if own_files is None
            else len(own_files[body_file]),
        )
        own_part = ExportPart(place=PartPlace.ARTIFACT, file=_HEAD_FILES[export], sha256=sha256_hex(own), size_bytes=len(own))
        parts[export] = (body, own_part)
        files[own_part.file] = own
    return ClassifierExports(parts=parts, files=files)
