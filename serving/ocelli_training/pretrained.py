"""A pretrained classifier: from its definition to its artifact and report. Nothing is trained."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocelli_api.classifier import PackagedLabels, Pretrained
from ocelli_api.export import PartPlace
from ocelli_model.artifact import Artifact
from ocelli_model.output_head import OutputHead
from ocelli_storage.object_store import ObjectStore
from ocelli_training.packaged_network import PACKAGED_CLASSIFIERS, build_packaged_network, read_packaged_labels
from ocelli_training.pretrained_files import PretrainedError, PretrainedFiles, PretrainedReader
from ocelli_training.pretrained_labels import (
    Hierarchy,
    LabelError,
    Labels,
    Meaning,
    Text,
    Translations,
    build_head,
    count_unused,
    parse_hierarchy,
    parse_labels,
    parse_translations,
)
from ocelli_training.pretrained_network import Network, build_network, check_answers, find_published
from ocelli_training.progress import Progress
from ocelli_training.provenance import Input, Provenance
from ocelli_training.reading import SourcesError
from ocelli_training.report import describe_artifact
from ocelli_training.settings import TrainerSettings
from ocelli_training.trainer_environment import observe_trainer_environment

if TYPE_CHECKING:
    from ocelli_model.backbones.torchvision_backbones import PublishedWeights

REPORT_FORMAT_VERSION = 1
# Shares of the time.
_FILES_READ = 0.4
_NETWORK_BUILT = 0.9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainedClassifier:
    """What is stored of a pretrained classifier."""

    artifact: Artifact
    network: Network
    report: Mapping[str, Any]
    """What it was made from: the contents of `report.json`."""
    provenance: Provenance


async def import_pretrained(
    pretrained: Pretrained, settings: TrainerSettings, store: ObjectStore, scratch: Path, progress: Progress
) -> PretrainedClassifier:
    """Fetch and check all files of a pretrained classifier; `scratch` is an empty folder.

    Raises:
        SourcesError: a file cannot be fetched, is wrong, or does not fit the others.
        BackboneUnavailableError: torchvision does not know a name, PyTorch is needed and not installed, or packaged weights are
            missing or changed.
    """
    try:
        started = time.monotonic()
        published = await asyncio.to_thread(find_published, pretrained.weights)
        async with PretrainedReader(settings, store, scratch).read(pretrained, published) as files:
            progress.report(_FILES_READ)
            logger.info("files.read", extra={"seconds": time.monotonic() - started})
            meaning = _read_meaning(pretrained, files, published)
            folder = scratch / "network"
            folder.mkdir()
            network = await asyncio.to_thread(_build_network, pretrained, files, published, folder, settings.cpu_count)
            head = build_head(meaning, network.metadata.feature_count)
    except (PretrainedError, LabelError) as error:
        first = error if isinstance(error, PretrainedError) else PretrainedError(str(error))
        raise SourcesError(f"Classifier {settings.classifier}: {error}", first) from error
    progress.report(_NETWORK_BUILT)
    metadata = network.metadata
    artifact = Artifact(
        revision=settings.revision,
        class_names=head.class_names,
        heads=head,
        backbone_name=metadata.name,
        backbone_digest=metadata.digest,
        backbone_place=PartPlace.ARTIFACT,
        precision=metadata.precision,
        preprocessing=metadata.preprocessing,
        metrics={},
    )
    described = _describe(files, network, meaning, head)
    report = {
        "formatVersion": REPORT_FORMAT_VERSION,
        **describe_artifact(settings, artifact, network.description),
        "pretrained": described,
    }
    logger.info(
        "network.imported",
        extra={
            "network": network.description,
            "sha256": None if metadata.weights is None else metadata.weights.sha256,
            "seconds": time.monotonic() - started,
        },
    )
    provenance = Provenance(
        classifier=settings.classifier,
        classifier_id=settings.classifier_id,
        artifact=artifact,
        backbone=metadata,
        inputs=_find_inputs(described),
        recipe={"strategy": "Pretrained", "activation": str(head.activation)},
        environment=await asyncio.to_thread(observe_trainer_environment),
        engine="",
        made_at=report["trainedAt"],
    )
    return PretrainedClassifier(artifact=artifact, network=network, report=report, provenance=provenance)


def _find_inputs(described: Mapping[str, Any]) -> tuple[Input, ...]:
    """Weights and texts, as the report describes them. Those that come with Ocelli have no digest of their own."""
    return tuple(
        Input(name=described[role]["origin"], used_for=role, sha256=described[role]["sha256"], properties={})
        for role in ("weights", "labels", "hierarchy", "translations")
        if described[role] is not None
    )


def _build_network(
    pretrained: Pretrained, files: PretrainedFiles, published: PublishedWeights | None, folder: Path, threads: int
) -> Network:
    if files.weights is not None:
        return build_network(pretrained, published, files.weights, folder, threads=threads)
    packaged = pretrained.weights.packaged
    assert packaged is not None
    network = build_packaged_network(packaged)
    check_answers(network, pretrained.activation, folder, shown=f"packaged weights {packaged}", threads=threads)
    return network


def _read_meaning(pretrained: Pretrained, files: PretrainedFiles, published: PublishedWeights | None) -> Meaning:
    """What the outputs mean. Raises LabelError."""
    labels, hierarchy, translations = _find_labels(pretrained, files, published)
    if files.hierarchy is not None:
        hierarchy = parse_hierarchy(files.hierarchy)
    if files.translations is not None:
        translations = parse_translations(files.translations)
    packaged = pretrained.weights.packaged
    return Meaning(
        labels=labels,
        hierarchy=hierarchy,
        translations=translations,
        activation=pretrained.activation,
        temperature=1.0 if packaged is None else PACKAGED_CLASSIFIERS[packaged].temperature,
        otherwise=pretrained.otherwise,
    )


def _find_labels(
    pretrained: Pretrained, files: PretrainedFiles, published: PublishedWeights | None
) -> tuple[Labels, Hierarchy | None, Translations | None]:
    """The labels that the spec names, else those of the weights; with the hierarchy and translations that belong to them."""
    if files.labels is not None:
        return parse_labels(files.labels), None, None
    if pretrained.labels is not None and pretrained.labels.packaged is not None:
        return read_packaged_labels(pretrained.labels.packaged)
    if pretrained.weights.packaged is not None:
        own = PACKAGED_CLASSIFIERS[pretrained.weights.packaged].labels
        return (own, None, None) if isinstance(own, Labels) else read_packaged_labels(own)
    assert published is not None
    if "IMAGENET1K" in published.name:
        return read_packaged_labels(PackagedLabels.IMAGENET)
    text = "\n".join(published.categories).encode()
    return parse_labels(Text(name=f"torchvision's list of categories of {published.name}", data=text)), None, None


def _describe(files: PretrainedFiles, network: Network, meaning: Meaning, head: OutputHead) -> dict[str, Any]:
    def origin(role: str, used: Labels | Hierarchy | Translations | None, text: Text | None) -> dict[str, Any] | None:
        if used is None:
            return None
        # Packaged texts have no digest: the version of Ocelli identifies them.
        digest = None if text is None else hashlib.sha256(text.data).hexdigest()
        return {"origin": used.source.removeprefix(f"{role} "), "sha256": digest}

    names = set(meaning.labels.names)
    stored = network.metadata.weights
    assert stored is not None
    # Of a torchvision network the metadata name the weights, and not the place that they came from.
    weights = stored if files.weights is None else files.weights.weights
    provenance = {} if stored.provenance is None else {"provenance": stored.provenance}
    return {
        "weights": {
            "origin": weights.origin,
            "sha256": weights.sha256,
            "licence": network.metadata.licence,
            **provenance,
        },
        "labels": origin("labels", meaning.labels, files.labels),
        "hierarchy": origin("hierarchy", meaning.hierarchy, files.hierarchy),
        "translations": origin("translations", meaning.translations, files.translations),
        "activation": str(head.activation),
        "outputs": head.output_count,
        "classes": head.class_count,
        "ancestors": sum(bool(item.outputs) and item.name not in names for item in head.classes),
        "translatedClasses": {
            language: sum(language in item.translations for item in head.classes) for language in head.wordings
        },
        "unusedTranslations": count_unused(meaning, head),
    }
