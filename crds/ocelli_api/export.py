"""Exports of a revision for other programs: which files they consist of, from the artifact's metadata.

An export is the concatenation of its parts, because concatenated protocol buffer messages merge. A part of the backbone, stored
once for all Classifiers that use it, and a small part of the Classifier make one Core ML or ONNX model. This module must not
know what these contain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ocelli_api.documents import parse_fields


class ExportFormat(StrEnum):
    """Formats, by file name."""

    CORE_ML = "model.mlmodel"
    ONNX = "model.onnx"

    @property
    def suffix(self) -> str:
        """File name extension, with its dot."""
        return self.value.removeprefix("model")


class PartPlace(StrEnum):
    """Where a part of an export is stored."""

    BACKBONE = "Backbone"
    """With the files of the backbone, or of the artifact's own network if it has one."""
    ARTIFACT = "Artifact"
    """With the files of the artifact."""


_DESCRIPTION_FIELDS = (1, 100, 2)
"""Of `shortDescription` in `Metadata`, of that in `ModelDescription`, and of that in `Model`."""
_LENGTH_DELIMITED = 2


@dataclass(frozen=True, kw_only=True)
class ExportPart:
    """A file that is part of an export."""

    place: PartPlace
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class ArtifactSummary:
    """What programs other than trainer and inference server need of an artifact's metadata."""

    class_names: tuple[str, ...]
    backbone_digest: str
    backbone_place: PartPlace = PartPlace.BACKBONE
    """`BACKBONE`: installed, in `backbones/<digest>/`. `ARTIFACT`: the artifact contains its network."""
    exports: Mapping[ExportFormat, tuple[ExportPart, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ArtifactSummary:
        """Type the contents of `artifact.json`. Raises KeyError, TypeError or ValueError if they are not an artifact's
        metadata."""
        backbone = document["backbone"]
        return cls(
            class_names=tuple(item["name"] for item in document["classes"]),
            backbone_digest=backbone["digest"],
            backbone_place=PartPlace(backbone.get("place", PartPlace.BACKBONE)),
            exports={
                ExportFormat(name): tuple(parse_fields(ExportPart, part) for part in parts)
                for name, parts in document.get("exports", {}).items()
            },
        )


def build_core_ml_description(text: str) -> bytes:
    """A further part of a Core ML export: the text that programs show as the model's description, instead of an earlier one.

    It names the Classifier, so it is made at the download: a stored part that names it would be another one in each cluster.
    https://apple.github.io/coremltools/mlmodel/Format/Model.html has the messages.
    """
    message = text.encode()
    for number in _DESCRIPTION_FIELDS:
        message = _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(message)) + message
    return message


def _varint(value: int) -> bytes:
    """A number of 0 or more as protocol buffers encode it: seven bits a byte, the lowest first."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
