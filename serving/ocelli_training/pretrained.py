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
from typing import Any

from ocelli_api.classifier import Pretrained
from ocelli_api.export import PartPlace
from ocelli_model.artifact import Artifact
from ocelli_model.imagenet.label_set import load_imagenet
from ocelli_model.output_head import OutputHead
from ocelli_storage.object_store import ObjectStore
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
    packaged_meaning,
    parse_hierarchy,
    parse_labels,
    parse_translations,
)
from ocelli_training.pretrained_network import Network, NetworkRequest, build_network, find_published
from ocelli_training.progress import Progress
from ocelli_training.reading import SourcesError
from ocelli_training.settings import Settings

REPORT_FORMAT_VERSION = 1
IMAGENET_LABELS = "Ocelli's ImageNet-1k labels"
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
            BackboneUnavailableError: torchvision does not know a name, or PyTorch is needed and not here.
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
            logger.info(
                "files.read",
                extra={
                    "weights": files.weights.origin,
                    "sha256": files.weights.sha256,
                    "seconds": time.monotonic() - started,
                },
            )
            request = NetworkRequest(
                weights=pretrained.weights,
                images=pretrained.images,
                activation=pretrained.activation,
                published=published,
                file=files.weights,
            )
            folder = self._scratch / "network"
            folder.mkdir()
            try:
                meaning = _read_meaning(pretrained, files, published)
                network = await asyncio.to_thread(build_network, request, folder, threads=self._settings.cpu_count)
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
            "trainedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "backbone": {"description": network.description, "digest": network.metadata.digest},
            "artifactDigest": artifact.digest,
            "pretrained": _describe(files, network, meaning, head),
        }
        logger.info("network.imported", extra={"network": network.description, "seconds": time.monotonic() - started})
        return PretrainedClassifier(artifact=artifact, network=network, report=report)


def _read_meaning(pretrained: Pretrained, files: PretrainedFiles, published: Published | None) -> Meaning:
    """Labels, hierarchy and translations: those that are named, else what is known of published weights. Raises LabelError."""
    labels = hierarchy = translations = None
    if files.labels is not None:
        labels = parse_labels(files.labels)
    elif published is not None and "IMAGENET1K" in published.name:
        # Hierarchy and translations are of these labels, and of no others.
        labels, hierarchy, translations = packaged_meaning(load_imagenet(), IMAGENET_LABELS)
    elif published is not None:
        text = "\n".join(published.categories).encode()
        labels = parse_labels(Text(name=f"torchvision's list of categories of {published.name}", data=text))
    assert labels is not None
    if files.hierarchy is not None:
        hierarchy = parse_hierarchy(files.hierarchy)
    if files.translations is not None:
        translations = parse_translations(files.translations)
    return Meaning(
        labels=labels,
        hierarchy=hierarchy,
        translations=translations,
        activation=pretrained.activation,
        otherwise=pretrained.otherwise,
    )


def _describe(files: PretrainedFiles, network: Network, meaning: Meaning, head: OutputHead) -> dict[str, Any]:
    def tell(role: str, used: Labels | Hierarchy | Translations | None, text: Text | None) -> dict[str, Any] | None:
        if used is None:
            return None
        # What comes with this program is named by the program's version.
        digest = None if text is None else hashlib.sha256(text.data).hexdigest()
        return {"origin": used.source.removeprefix(f"{role} "), "sha256": digest}

    names = set(meaning.labels.names)
    return {
        "weights": {
            "origin": files.weights.origin,
            "sha256": files.weights.sha256,
            "licence": network.metadata.licence,
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
