"""Revisions: ten hex digits that identify what is learned.

The hash covers a canonical, versioned form of all fields that change what is learned. Defaults are left out, so that a new
field with a default does not retrain all Classifiers on an upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.classifier import (
    FIRST_ROUND,
    PACKAGED_WEIGHTS_SHA256,
    Accelerator,
    Classifier,
    ClassifierSpec,
    ExampleClass,
    Pretrained,
    Source,
    Training,
)
from ocelli_api.documents import build_document
from ocelli_api.polled_sources import find_seen_digest

CANONICAL_FORM_VERSION = 1
REVISION_LENGTH = 10
REVISION_PATTERN = f"[0-9a-f]{{{REVISION_LENGTH}}}"
_KEPT_REVISIONS = "_revisions"
"""An attribute of a spec that is not a field. Operator and gateway need the revision many times a second."""


def definition(spec: ClassifierSpec) -> dict[str, Any]:
    """What is learned, as JSON with the keys of the CRD: classes, sources and recipe. Stored with each artifact."""
    learned = (
        ClassifierSpec(
            classes=spec.classes,
            negative_examples=spec.negative_examples,
            corrections=spec.corrections,
            model=spec.model,
            evaluation=spec.evaluation,
        )
        if spec.pretrained is None
        else ClassifierSpec(pretrained=spec.pretrained)
    )
    return build_document(learned, omit_defaults=True)


def definition_sources(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The sources of a stored definition. The caller may change them in place."""
    for item in document.get("classes") or ():
        yield from item.get("examples") or ()
    yield from document.get("negativeExamples") or ()
    for item in (document.get("evaluation") or {}).get("classes") or ():
        yield from item.get("examples") or ()


def find_upload_digests(document: Mapping[str, Any]) -> frozenset[str]:
    """The uploads of a definition, without erased ones."""
    sources = definition_sources(document)
    return frozenset(source["upload"] for source in sources if source.get("upload") and not source.get("erased"))


def find_pinned_digests(document: Mapping[str, Any]) -> frozenset[str]:
    """The digests of the pinned addresses of a definition, without erased ones."""
    sources = definition_sources(document)
    return frozenset(source["sha256"] for source in sources if source.get("sha256") and not source.get("erased"))


def spec_revision(spec: ClassifierSpec, seen_digest: str | None = None) -> str:
    """The revision of the spec, regardless of a pin. Computed once for each spec, because specs are frozen.

    `seen_digest` is what polls have seen of its sources.
    """
    kept: dict[str | None, str] = vars(spec).setdefault(_KEPT_REVISIONS, {})
    if seen_digest not in kept:
        kept[seen_digest] = _compute_revision(spec, seen_digest)
    return kept[seen_digest]


def _compute_revision(spec: ClassifierSpec, seen_digest: str | None) -> str:
    document = definition(spec)
    canonical: dict[str, Any] = {"version": CANONICAL_FORM_VERSION, **document}
    if seen_digest is not None:
        canonical["seenSources"] = seen_digest
    if spec.pretrained is not None:
        canonical["pretrained"] = _canonical_pretrained(spec.pretrained, document["pretrained"])
        if _has_unpinned_file(spec.pretrained) and spec.retrain_nonce:
            canonical["retrainNonce"] = spec.retrain_nonce
        return _digest(canonical)[:REVISION_LENGTH]
    canonical["classes"] = _canonical_classes(spec.classes)
    if spec.evaluation.classes:
        canonical["evaluation"] = {**document["evaluation"], "classes": _canonical_classes(spec.evaluation.classes)}
    if spec.negative_examples:
        canonical["negativeExamples"] = [_canonical_source(source) for source in spec.negative_examples]
    if spec.corrections:
        # Their order has no meaning.
        canonical["corrections"] = sorted(document["corrections"], key=lambda correction: str(correction["image"]))
    # The contents of an unpinned URL may change: a higher nonce must read it again, so it makes another revision.
    if any(source.pinned_digest is None for source in spec.sources) and spec.retrain_nonce:
        canonical["retrainNonce"] = spec.retrain_nonce
    return _digest(canonical)[:REVISION_LENGTH]


def own_revision(classifier: Classifier) -> str:
    """The revision of a Classifier's spec with what polls have seen of its sources, regardless of a pin."""
    return spec_revision(classifier.spec, find_seen_digest(classifier))


def current_revision(classifier: Classifier) -> str:
    """The revision that should be served: the pinned one, otherwise the Classifier's own."""
    return classifier.spec.pinned_revision or own_revision(classifier)


def training_hash(training: Training) -> str:
    """Ten hex digits over `spec.training`. A failed revision is retried when they change.

    `accelerator`, `runtimeClassName` and `workers` came later: they are left out at their defaults, so that an upgrade retries
    nothing.
    """
    document = {"priorityClassName": None, **build_document(training)}
    if training.accelerator is Accelerator.AUTO:
        del document["accelerator"]
    if training.workers == 1:
        del document["workers"]
    return _digest(document)[:REVISION_LENGTH]


def _canonical_classes(classes: tuple[ExampleClass, ...]) -> list[dict[str, Any]]:
    return [{"name": item.name, "examples": [_canonical_source(source) for source in item.examples]} for item in classes]


def _canonical_source(source: Source) -> dict[str, Any]:
    digest = source.pinned_digest
    canonical: dict[str, Any] = {"url": source.url} if digest is None else {"sha256": digest}
    if source.round != FIRST_ROUND:
        canonical["round"] = source.round
    return canonical


def _canonical_pretrained(pretrained: Pretrained, document: dict[str, Any]) -> dict[str, Any]:
    """`document` with pinned files by their digests alone, and packaged weights by name and digest."""
    canonical: dict[str, Any] = {
        key: {name: text for name, text in value.items() if name != "url"}
        if isinstance(value, dict) and "sha256" in value
        else value
        for key, value in document.items()
    }
    if pretrained.weights.packaged is not None:
        canonical["weights"] = {**canonical["weights"], "sha256": PACKAGED_WEIGHTS_SHA256[pretrained.weights.packaged]}
    return canonical


def _has_unpinned_file(pretrained: Pretrained) -> bool:
    """Whether a file has a URL without a digest, so that its contents may change."""
    files = (pretrained.weights, pretrained.labels, pretrained.hierarchy, pretrained.translations)
    return any(file is not None and file.url is not None and file.sha256 is None for file in files)


def _digest(document: dict[str, Any]) -> str:
    return sha256_hex(canonical_bytes(document))
