"""A pretrained classifier: from what its definition names to its artifact and report, without learning anything."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocelli_api.classifier import PackagedLabels, Pretrained
from ocelli_api.export import PartPlace
from ocelli_api.times import format_time
from ocelli_model.artifact import Artifact
from ocelli_model.output_head import OutputHead
from ocelli_storage.object_store import ObjectStore
from ocelli_training.packaged_network import PACKAGED_CLASSIFIERS, build_packaged_network, read_packaged_labels
from ocelli_training.pretrained_files import PretrainedError, PretrainedFiles, PretrainedReader, Published
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
from ocelli_training.pretrained_network import Network, NetworkRequest, build_network, check_answers, find_published
from ocelli_training.progress import Progress
from ocelli_training.reading import SourcesError
from ocelli_training.settings import Settings

if TYPE_CHECKING:
    from ocelli_model.backbones.torchvision_backbones import PublishedWeights

REPORT_FORMAT_VERSION = 1
# Shares of the time.
_FILES_READ = 0.4
_NETWORK_BUILT = 0.9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainedClassifier:
    """What is stored of one."""

    artifact: Artifact
    network: Network
    report: Mapping[str, Any]
    """What it was made from: the contents of `report.json`."""


class PretrainedImport:
    """Makes one pretrained classifier."""

    def __init__(self, settings: Settings, store: ObjectStore, scratch: Path, progress: Progress) -> None:
        """`scratch` is an empty folder."""
        self._settings = settings
        self._store = store
        self._scratch = scratch
        self._progress = progress

    async def run(self, pretrained: Pretrained) -> PretrainedClassifier:
        """Fetch and check everything.

        Raises:
            SourcesError: a file cannot be had, is wrong, or does not fit the others.
            BackboneUnavailableError: torchvision does not know a name, PyTorch is needed and not here, or packaged weights are
                missing or altered.
        """
        try:
            return await self._make(pretrained)
        except PretrainedError as error:
            raise SourcesError(f"Classifier {self._settings.classifier}: {error}", error) from error

    async def _make(self, pretrained: Pretrained) -> PretrainedClassifier:
        started = time.monotonic()
        published = await asyncio.to_thread(find_published, pretrained.weights)
        reader = PretrainedReader(self._settings, self._store, self._scratch)
        async with reader.read(pretrained, published) as files:
            self._progress.report(_FILES_READ)
            logger.info("files.read", extra={"seconds": time.monotonic() - started})
            try:
                meaning = _read_meaning(pretrained, files, published)
                network = await asyncio.to_thread(self._build_network, pretrained, files, published)
                head = build_head(meaning, network.metadata.feature_count)
            except LabelError as error:
                raise PretrainedError(str(error)) from error
        self._progress.report(_NETWORK_BUILT)
        artifact = Artifact(
            classifier_id=self._settings.location.classifier_id,
            revision=self._settings.revision,
            class_names=head.class_names,
            heads=head,
            backbone_name=network.metadata.name,
            backbone_digest=network.metadata.digest,
            backbone_place=PartPlace.ARTIFACT,
            precision=network.metadata.precision,
            preprocessing=network.metadata.preprocessing,
            metrics={},
        )
        report = {
            "formatVersion": REPORT_FORMAT_VERSION,
            "classifier": self._settings.classifier,
            "classifierID": artifact.classifier_id,
            "revision": artifact.revision,
            "trainedAt": format_time(datetime.now(UTC), timespec="seconds"),
            "backbone": {"description": network.description, "digest": network.metadata.digest},
            "artifactDigest": artifact.digest,
            "pretrained": _describe(files, network, meaning, head),
        }
        weights = network.metadata.weights
        logger.info(
            "network.imported",
            extra={
                "network": network.description,
                "sha256": None if weights is None else weights.sha256,
                "seconds": time.monotonic() - started,
            },
        )
        return PretrainedClassifier(artifact=artifact, network=network, report=report)

    def _build_network(self, pretrained: Pretrained, files: PretrainedFiles, published: PublishedWeights | None) -> Network:
        folder, threads, weights = self._scratch / "network", self._settings.cpu_count, pretrained.weights
        folder.mkdir()
        if files.weights is None:
            assert weights.packaged is not None
            network = build_packaged_network(weights.packaged)
            shown = f"packaged weights {weights.packaged}"
            check_answers(network, pretrained.activation, folder, shown=shown, threads=threads)
            return network
        request = NetworkRequest(
            weights=weights,
            images=pretrained.images,
            activation=pretrained.activation,
            published=published,
            file=files.weights,
        )
        return build_network(request, folder, threads=threads)


def _read_meaning(pretrained: Pretrained, files: PretrainedFiles, published: Published | None) -> Meaning:
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
    pretrained: Pretrained, files: PretrainedFiles, published: Published | None
) -> tuple[Labels, Hierarchy | None, Translations | None]:
    """The labels that are named, else those of the weights; with what comes with them, which is of no others."""
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
    def tell(role: str, used: Labels | Hierarchy | Translations | None, text: Text | None) -> dict[str, Any] | None:
        if used is None:
            return None
        # What comes with this program is named by the program's version.
        digest = None if text is None else hashlib.sha256(text.data).hexdigest()
        return {"origin": used.source.removeprefix(f"{role} "), "sha256": digest}

    names = set(meaning.labels.names)
    stored = network.metadata.weights
    assert stored is not None
    weights = stored if files.weights is None else files.weights
    provenance = {} if stored.provenance is None else {"provenance": stored.provenance}
    return {
        "weights": {
            "origin": weights.origin,
            "sha256": weights.sha256,
            "licence": network.metadata.licence,
            **provenance,
        },
        "labels": tell("labels", meaning.labels, files.labels),
        "hierarchy": tell("hierarchy", meaning.hierarchy, files.hierarchy),
        "translations": tell("translations", meaning.translations, files.translations),
        "activation": str(head.activation),
        "outputs": head.output_count,
        "classes": head.class_count,
        "ancestors": sum(bool(item.outputs) and item.name not in names for item in head.classes),
        "translatedClasses": {
            language: sum(language in item.translations for item in head.classes) for language in head.wordings
        },
        "unusedTranslations": count_unused(meaning, head),
    }
