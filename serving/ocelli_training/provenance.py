"""The provenance of a model: a CycloneDX ML-BOM (specification 1.6, JSON) of everything that it was made from.

Pure. It is stored next to the artifact and is not part of it: it has the time of the training and the kind of CPU, and the
artifact's digest must depend on neither. It has digests and addresses of sources, and neither customers nor names of files, so
that erasing a customer leaves nothing to change in it.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.classifier import ClassifierSpec, Source
from ocelli_model.artifact import Artifact
from ocelli_model.backbone import BackboneMetadata
from ocelli_training.dataset import ExampleSet, SourceReading
from ocelli_training.fit import Recipe
from ocelli_training.sources import shown_source
from ocelli_training.trainer_environment import PROGRAM, TrainerEnvironment

SPEC_VERSION = "1.6"
_MODEL = "model"
_BACKBONE = "backbone"
_PROGRAM = "ocelli"
_PREFIX = "ocelli:"
"""Of the names of Ocelli's own properties."""
_TUNING = ("epochs", "learningRate", "batchSize", "usedEpochs")


@dataclass(frozen=True, kw_only=True)
class Input:
    """Data that a model was made from."""

    name: str
    """What messages call it: an address without credentials, or an upload's digest."""
    used_for: str
    """What it is to the model, such as `the test images of class "husky"`."""
    sha256: str | None = None
    """SHA-256 (hex) of the file; None: it is a folder, or it comes with Ocelli."""
    properties: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model was made from, and what came of it."""

    classifier: str
    """`namespace/name`."""
    classifier_id: str
    artifact: Artifact
    backbone: BackboneMetadata
    inputs: Sequence[Input]
    recipe: Mapping[str, str]
    """How it was learned: seed, views, penalty, and whatever a strategy adds."""
    environment: TrainerEnvironment
    engine: str
    """What computed the features, such as `OpenVINO CPU float32`; empty: nothing did."""
    made_at: str
    """RFC 3339, UTC."""

    def to_json(self) -> dict[str, Any]:
        """The contents of `bom.cdx.json`."""
        artifact, environment = self.artifact, self.environment
        inputs = [_describe_input(item, number) for number, item in enumerate(self.inputs, 1)]
        libraries = [
            _describe_library(library.name, library.version, library.record_sha256) for library in environment.libraries
        ]
        components = [self._describe_backbone(), *inputs, self._describe_program(), *libraries]
        return {
            "bomFormat": "CycloneDX",
            "specVersion": SPEC_VERSION,
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{artifact.digest} {self.made_at}')}",
            "version": 1,
            "metadata": {
                "timestamp": self.made_at,
                "tools": {"components": [{"type": "application", "name": PROGRAM, "version": environment.version}]},
                "component": {
                    "type": "machine-learning-model",
                    "bom-ref": _MODEL,
                    "name": self.classifier,
                    "version": artifact.revision,
                    "hashes": _hashes(artifact.digest),
                    "modelCard": self._describe_card([item["bom-ref"] for item in inputs]),
                    "properties": _properties(
                        {
                            "classifierID": self.classifier_id,
                            **{f"recipe:{name}": value for name, value in self.recipe.items()},
                            "engine": self.engine,
                            "cpu:architecture": environment.cpu.architecture,
                            "cpu:model": environment.cpu.model,
                            "cpu:features": " ".join(environment.cpu.features),
                        }
                    ),
                },
            },
            "components": components,
            "dependencies": [
                {"ref": _MODEL, "dependsOn": [_BACKBONE, *(item["bom-ref"] for item in inputs), _PROGRAM]},
                {"ref": _PROGRAM, "dependsOn": [item["bom-ref"] for item in libraries]},
            ],
        }

    def _describe_card(self, references: Sequence[str]) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "task": "image classification",
            "architectureFamily": self.backbone.name,
            "datasets": [{"ref": reference} for reference in references],
            "inputs": [{"format": "image"}],
            "outputs": [{"format": "scores of classes"}],
        }
        if self.engine:
            parameters = {"approach": {"type": "supervised"}, **parameters}
        metrics = self.artifact.metrics
        if "accuracy" not in metrics:
            return {"modelParameters": parameters}
        accuracy: dict[str, Any] = {"type": "balanced accuracy", "value": str(metrics["accuracy"])}
        interval = metrics.get("accuracyInterval")
        if interval is not None:
            accuracy["confidenceInterval"] = {"lowerBound": str(interval[0]), "upperBound": str(interval[1])}
        return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": [accuracy]}}

    def _describe_backbone(self) -> dict[str, Any]:
        backbone, weights = self.backbone, self.backbone.weights
        # The digest covers the metadata, which has the digests of the files and of the published weights.
        known = {"weights:sha256": weights.sha256, "weights:origin": weights.origin} if weights is not None else {}
        return {
            "type": "machine-learning-model",
            "bom-ref": _BACKBONE,
            "name": backbone.name,
            "version": backbone.version,
            "hashes": _hashes(backbone.digest),
            **({} if backbone.licence is None else {"licenses": [{"expression": backbone.licence}]}),
            "properties": _properties({"precision": str(self.artifact.precision or ""), **known}),
        }

    def _describe_program(self) -> dict[str, Any]:
        return {
            "type": "application",
            "bom-ref": _PROGRAM,
            "name": PROGRAM,
            "version": self.environment.version,
            "properties": _properties({"code:sha256": self.environment.code_sha256}),
        }


def describe_recipe(
    definition: ClassifierSpec, recipe: Recipe, backbone: str, tuning: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """How a revision was learned. `backbone` says why the backbone was chosen; `tuning` is what the report says about
    fine-tuning.
    """
    return {
        "strategy": str(definition.model.strategy),
        "seed": str(definition.model.seed),
        "backbone": backbone,
        "views": " ".join(recipe.views),
        "penalty": repr(float(recipe.penalty)),
        "corrections": str(len(definition.corrections) or ""),
        **{f"fineTuning:{name}": str((tuning or {}).get(name, "")) for name in _TUNING},
    }


def find_inputs(sets: Sequence[ExampleSet], readings: Sequence[Sequence[SourceReading]]) -> tuple[Input, ...]:
    """The sources of example sets as inputs; `readings` has, for each set, those of its sources in order."""
    return tuple(
        _build_input(example_set, reading)
        for example_set, set_readings in zip(sets, readings, strict=True)
        for reading in set_readings
    )


def _build_input(example_set: ExampleSet, reading: SourceReading) -> Input:
    images = sorted({file.digest for file in reading.files if file.digest is not None})
    return Input(
        name=shown_source(reading.source),
        used_for=str(example_set),
        sha256=reading.sha256,
        properties={
            "address": _find_address(reading.source),
            "round": str(reading.source.round),
            "files": str(len(reading.files)),
            "images": str(len(images)),
            # Of the usable images, without repeats: the same for a folder and for a zip of it.
            "images:sha256": sha256_hex("\n".join(images).encode()),
        },
    )


def _find_address(source: Source) -> str:
    """The address without credentials and query, which may be secrets; empty for an upload."""
    try:
        parts = urlsplit(source.url or "")
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _describe_input(item: Input, number: int) -> dict[str, Any]:
    address = item.properties.get("address", "")
    contents = {"contents": {"url": quote(address, safe=":/[]%@")}} if address else {}
    return {
        "type": "data",
        "bom-ref": f"input-{number}",
        "name": item.name,
        "description": item.used_for,
        **({} if item.sha256 is None else {"hashes": _hashes(item.sha256)}),
        "data": [{"type": "dataset", **contents}],
        "properties": _properties({name: value for name, value in item.properties.items() if name != "address"}),
    }


def _describe_library(name: str, version: str, record_sha256: str | None) -> dict[str, Any]:
    address = f"pkg:pypi/{name}@{quote(version, safe='')}"
    return {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": version,
        "purl": address,
        **({} if record_sha256 is None else {"properties": _properties({"record:sha256": record_sha256})}),
    }


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Properties with values that are not empty."""
    return [{"name": f"{_PREFIX}{name}", "value": value} for name, value in values.items() if value]
