"""Exports of a learned revision, as other programs run it: which files they consist of, by the artifact's metadata.

An export is the bytes of its parts one behind the other. Messages of protocol buffers merge so: a backbone's part, stored once
for every classifier that uses the backbone, and a small part of the classifier's own together are one Core ML or ONNX model.
It must not know what is in the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ExportFormat(StrEnum):
    """Formats, by the name of the whole file."""

    CORE_ML = "model.mlmodel"
    ONNX = "model.onnx"

    @property
    def suffix(self) -> str:
        """Of a file of this format, with its dot."""
        return self.value.removeprefix("model")


class PartPlace(StrEnum):
    """Where a part of an export lies."""

    BACKBONE = "Backbone"
    """Beside the files of the artifact's backbone."""
    ARTIFACT = "Artifact"
    """Beside the artifact's own files."""


@dataclass(frozen=True, kw_only=True)
class ExportPart:
    """A file that is a part of an export."""

    place: PartPlace
    file: str
    sha256: str
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"place": str(self.place), "file": self.file, "sha256": self.sha256, "sizeBytes": self.size_bytes}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ExportPart:
        """Type one entry. Raises KeyError, ValueError, TypeError where it is none."""
        return cls(
            place=PartPlace(document["place"]),
            file=document["file"],
            sha256=document["sha256"],
            size_bytes=int(document["sizeBytes"]),
        )


@dataclass(frozen=True, kw_only=True)
class ArtifactSummary:
    """What others than trainer and inference server need of an artifact's metadata."""

    class_names: tuple[str, ...]
    backbone_digest: str
    backbone_place: PartPlace = PartPlace.BACKBONE
    """`BACKBONE`: installed, below `backbones/<digest>/`. `ARTIFACT`: the artifact has a network of its own."""
    exports: Mapping[ExportFormat, tuple[ExportPart, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ArtifactSummary:
        """Type the contents of `artifact.json`. Raises KeyError, ValueError, TypeError where they are none."""
        backbone = document["backbone"]
        return cls(
            class_names=tuple(item["name"] for item in document["classes"]),
            backbone_digest=backbone["digest"],
            backbone_place=PartPlace(backbone.get("place", PartPlace.BACKBONE)),
            exports={
                ExportFormat(name): tuple(ExportPart.parse(part) for part in parts)
                for name, parts in document.get("exports", {}).items()
            },
        )
