"""Revisions: ten hex digits that name what is learned.

The hash covers a canonical, versioned form of every field that changes what is learned, with defaults left out, so that a new
field with a default does not retrain every Classifier on upgrade.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ocelli_api.classifier import (
    PACKAGED_WEIGHTS_SHA256,
    ClassifierSpec,
    DataFile,
    Evaluation,
    ModelRecipe,
    Pretrained,
    PretrainedImages,
    Source,
    Training,
)

CANONICAL_FORM_VERSION = 1
REVISION_LENGTH = 10
_KEPT_REVISION = "_revision"
"""Next to the fields of a spec, and none of them: operator and gateway ask for the revision many times a second."""


def definition(spec: ClassifierSpec) -> dict[str, Any]:
    """What is learned, as JSON in the words of the CRD: classes, sources and recipe. Stored beside every artifact."""
    if spec.pretrained is not None:
        return {"pretrained": _pretrained_document(spec.pretrained)}
    document: dict[str, Any] = {
        "classes": [
            {"name": item.name, "examples": [_source_document(source) for source in item.examples]} for item in spec.classes
        ],
    }
    if spec.negative_examples:
        document["negativeExamples"] = [_source_document(source) for source in spec.negative_examples]
    model = _without_defaults(
        {"backbone": spec.model.backbone, "strategy": spec.model.strategy, "seed": spec.model.seed},
        {"backbone": ModelRecipe.backbone, "strategy": ModelRecipe.strategy, "seed": ModelRecipe.seed},
    )
    if model:
        document["model"] = model
    evaluation = _without_defaults(
        {"holdoutFraction": spec.evaluation.holdout_fraction}, {"holdoutFraction": Evaluation.holdout_fraction}
    )
    if evaluation:
        document["evaluation"] = evaluation
    return document


def definition_sources(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The sources in a definition as it is stored, to be changed in place."""
    for item in document.get("classes") or ():
        yield from item.get("examples") or ()
    yield from document.get("negativeExamples") or ()


def find_upload_digests(document: Mapping[str, Any]) -> frozenset[str]:
    """The uploads that a definition names, without those that were erased."""
    sources = definition_sources(document)
    return frozenset(source["upload"] for source in sources if source.get("upload") and not source.get("erased"))


def spec_revision(spec: ClassifierSpec) -> str:
    """The revision of what the spec describes, whatever is pinned. Computed once for each spec, which never changes."""
    kept = vars(spec)
    if _KEPT_REVISION not in kept:
        kept[_KEPT_REVISION] = _compute_revision(spec)
    revision: str = kept[_KEPT_REVISION]
    return revision


def _compute_revision(spec: ClassifierSpec) -> str:
    document = definition(spec)
    canonical: dict[str, Any] = {"version": CANONICAL_FORM_VERSION, **document}
    if spec.pretrained is not None:
        canonical["pretrained"] = _canonical_pretrained(spec.pretrained, document["pretrained"])
        if _has_open_address(spec.pretrained) and spec.retrain_nonce:
            canonical["retrainNonce"] = spec.retrain_nonce
        return _digest(canonical)[:REVISION_LENGTH]
    canonical["classes"] = [
        {"name": item.name, "examples": [_canonical_source(source) for source in item.examples]} for item in spec.classes
    ]
    if spec.negative_examples:
        canonical["negativeExamples"] = [_canonical_source(source) for source in spec.negative_examples]
    # What an unpinned address holds may change: raising the nonce must read it again, hence make another revision.
    if any(source.pinned_digest is None for source in spec.sources) and spec.retrain_nonce:
        canonical["retrainNonce"] = spec.retrain_nonce
    return _digest(canonical)[:REVISION_LENGTH]


def current_revision(spec: ClassifierSpec) -> str:
    """The revision that should be served: the pinned one if there is a pin, else that of the spec."""
    return spec.pinned_revision or spec_revision(spec)


def training_hash(training: Training) -> str:
    """Ten hex digits over `spec.training`: a failed revision is tried again when they change.

    Fields that came later are left out at their defaults, so that an upgrade tries nothing again.
    """
    later = _without_defaults(
        {"accelerator": str(training.accelerator), "runtimeClassName": training.runtime_class_name},
        {"accelerator": str(Training.accelerator), "runtimeClassName": Training.runtime_class_name},
    )
    return _digest(
        {
            **later,
            "resources": {kind: dict(values) for kind, values in training.resources.items()},
            "nodeSelector": dict(training.node_selector),
            "tolerations": [dict(toleration) for toleration in training.tolerations],
            "priorityClassName": training.priority_class_name,
            "backoffLimit": training.backoff_limit,
            "activeDeadlineSeconds": training.active_deadline_seconds,
        }
    )[:REVISION_LENGTH]


def _source_document(source: Source) -> dict[str, Any]:
    values = {"url": source.url, "upload": source.upload, "sha256": source.sha256}
    document: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if source.round != Source.round:
        document["round"] = source.round
    if source.customer is not None:
        document["customer"] = source.customer
    if source.erased:
        document["erased"] = True
    return document


def _canonical_source(source: Source) -> dict[str, Any]:
    digest = source.pinned_digest
    canonical: dict[str, Any] = {"url": source.url} if digest is None else {"sha256": digest}
    if source.round != Source.round:
        canonical["round"] = source.round
    return canonical


def _pretrained_document(pretrained: Pretrained) -> dict[str, Any]:
    weights, images = pretrained.weights, pretrained.images
    document: dict[str, Any] = {
        "weights": _without_none(
            {
                "packaged": None if weights.packaged is None else str(weights.packaged),
                "torchvision": weights.torchvision,
                "url": weights.url,
                "sha256": weights.sha256,
                "architecture": weights.architecture,
            }
        )
    }
    if pretrained.labels is not None and pretrained.labels.packaged is not None:
        document["labels"] = {"packaged": str(pretrained.labels.packaged)}
    for key, file in _data_files(pretrained).items():
        document[key] = _without_none({"url": file.url, "sha256": file.sha256})
    if pretrained.activation is not Pretrained.activation:
        document["activation"] = str(pretrained.activation)
    if pretrained.otherwise is not None:
        document["otherwise"] = pretrained.otherwise
    if images != PretrainedImages():
        document["images"] = _without_none(
            {
                "height": images.height,
                "width": images.width,
                "shortSide": images.short_side,
                "mean": None if images.mean is None else list(images.mean),
                "standardDeviation": None if images.standard_deviation is None else list(images.standard_deviation),
            }
        )
    return document


def _canonical_pretrained(pretrained: Pretrained, document: dict[str, Any]) -> dict[str, Any]:
    """The same with pinned files by their digests alone, and packaged weights by name and digest."""
    canonical: dict[str, Any] = {
        key: {name: text for name, text in value.items() if name != "url"}
        if isinstance(value, dict) and "sha256" in value
        else value
        for key, value in document.items()
    }
    if pretrained.weights.packaged is not None:
        canonical["weights"] = {**canonical["weights"], "sha256": PACKAGED_WEIGHTS_SHA256[pretrained.weights.packaged]}
    return canonical


def _has_open_address(pretrained: Pretrained) -> bool:
    """Whether something lies at an address that is not pinned: what it holds may change."""
    weights = pretrained.weights
    files = _data_files(pretrained).values()
    return (weights.url is not None and weights.sha256 is None) or any(file.sha256 is None for file in files)


def _data_files(pretrained: Pretrained) -> dict[str, DataFile]:
    labels = None if pretrained.labels is None else pretrained.labels.file
    files = {"labels": labels, "hierarchy": pretrained.hierarchy, "translations": pretrained.translations}
    return {key: file for key, file in files.items() if file is not None}


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}


def _without_defaults(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != defaults[key]}


def _digest(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
