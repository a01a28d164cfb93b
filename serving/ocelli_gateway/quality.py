"""The quality of revisions, for authenticated callers: evaluation, judged images, data report, comparison, thumbnails.

Answers have the form of the API. What takes time is done in threads. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Classifier
from ocelli_api.revision import current_revision
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.fields import shown
from ocelli_gateway.judged_quality import ImageFilter, ImageOrder, JudgedQuality, QualityComparison, UnknownClassError
from ocelli_gateway.management_fields import LATEST, SERVED
from ocelli_gateway.refusals import InputError, NotFoundError
from ocelli_gateway.revision_files import RevisionFiles, RevisionPlace
from ocelli_gateway.stored_report import ReportedEvaluation, StoredReport
from ocelli_storage.layout import ClassifierLocation

CHANGED_LIMIT = 500
"""Images that a comparison lists in each direction."""


@dataclass(frozen=True, kw_only=True)
class ImagesQuery:
    """Which judged images a caller wants to see."""

    filter: ImageFilter
    order: ImageOrder
    limit: int
    offset: int


class Quality:
    """What is stored of the quality of revisions. Every method raises NotFoundError, ClusterError, StoreUnavailableError."""

    def __init__(self, store: ClassifierStore, files: RevisionFiles) -> None:
        self._store = store
        self._files = files

    async def evaluation(self, caller: Caller, classifier_id: str, revision: str) -> Mapping[str, Any]:
        """The metrics of a revision, with the confusion matrix of the images whose scores are still stored."""
        _, place = await self._find(caller, classifier_id, revision)
        report, quality = await self._files.read_report(place), await self._files.read_quality(place)
        if report.evaluation is None:
            raise NotFoundError(f"An earlier release trained {place.name} and measured no accuracy of this kind; retrain it.")
        return await asyncio.to_thread(_describe_evaluation, place, report, report.evaluation, quality)

    async def images(self, caller: Caller, classifier_id: str, revision: str, query: ImagesQuery) -> Mapping[str, Any]:
        """Judged images with their scores. Raises InputError for a class that the revision does not have."""
        classifier, place = await self._find(caller, classifier_id, revision)
        quality, names = await self._files.read_quality(place), await self._find_names(place)
        try:
            rows = await asyncio.to_thread(quality.find, query.filter, query.order)
        except UnknownClassError as error:
            name = shown(error.name)
            raise InputError(f'Revision {place.revision} has no class "{name}"; see the classes in its evaluation.') from error
        page, with_thumbnail = rows[query.offset : query.offset + query.limit], await self._find_thumbnails(place)
        shown_images = _ShownImages(
            names=names,
            with_thumbnail=with_thumbnail,
            corrections={item.image: item.class_name for item in classifier.spec.corrections},
        )
        images = await asyncio.to_thread(lambda: [shown_images.describe(quality, row) for row in page.tolist()])
        return {"revision": place.revision, "total": len(rows), "images": images}

    async def scores(self, caller: Caller, classifier_id: str, revision: str) -> Mapping[str, Any]:
        """All judged scores of the images that the evaluation is about."""
        _, place = await self._find(caller, classifier_id, revision)
        quality = await self._files.read_quality(place)
        return {"revision": place.revision, **await asyncio.to_thread(quality.scores)}

    async def data(self, caller: Caller, classifier_id: str, revision: str) -> Mapping[str, Any]:
        """The report on the images of a revision, of its training or of its check."""
        _, place = await self._find(caller, classifier_id, revision)
        report, with_thumbnail = await self._files.read_report(place), await self._find_thumbnails(place)
        if not report.data:
            raise NotFoundError(f"The stored report on {place.name} has nothing about its images; retrain the classifier.")
        return {
            "revision": place.revision,
            "of": "check" if place.is_check else "training",
            **({} if report.written_at is None else {"written": report.written_at}),
            **report.faults,
            **{name: _mark(value, with_thumbnail) for name, value in report.data.items()},
        }

    async def compare(self, caller: Caller, classifier_id: str, revision: str, other: str) -> Mapping[str, Any]:
        """Two revisions on the images that both were judged on. Raises InputError if they are the same."""
        classifier, place = await self._find(caller, classifier_id, revision)
        other_place = await self._files.find(ClassifierLocation.of(classifier), _resolve(classifier, other))
        if other_place.revision == place.revision:
            raise InputError(f"Both are revision {place.revision}; name two revisions to compare.")
        comparison = QualityComparison(
            own=await self._files.read_quality(place), other=await self._files.read_quality(other_place)
        )
        names = {**await self._find_names(other_place), **await self._find_names(place)}
        with_thumbnail = await self._find_thumbnails(place)
        revisions = (place.revision, other_place.revision)
        return await asyncio.to_thread(_describe_comparison, comparison, revisions, names, with_thumbnail)

    async def thumbnails(self, caller: Caller, classifier_id: str, revision: str, digests: Sequence[str]) -> Mapping[str, Any]:
        """Thumbnails in base64 by digest; images without one are left out."""
        _, place = await self._find(caller, classifier_id, revision)
        found = await self._files.read_thumbnails(place, digests)
        return {"thumbnails": {digest: base64.b64encode(data).decode() for digest, data in found.items()}}

    async def _find(self, caller: Caller, classifier_id: str, revision: str) -> tuple[Classifier, RevisionPlace]:
        classifier = await self._store.read_polled(caller.namespace, classifier_id)
        if classifier.spec.pretrained is not None:
            raise NotFoundError(f"The classifier {classifier_id} comes from published weights: it has no images to judge.")
        return classifier, await self._files.find(ClassifierLocation.of(classifier), _resolve(classifier, revision))

    async def _find_names(self, place: RevisionPlace) -> Mapping[str, str]:
        """Names of images where they are known: scores can be shown without."""
        try:
            return (await self._files.read_report(place)).names
        except NotFoundError:
            return {}

    async def _find_thumbnails(self, place: RevisionPlace) -> Collection[str]:
        """The digests of images with a thumbnail; none if the files are damaged: everything else can be shown without."""
        try:
            return await self._files.find_thumbnails(place)
        except NotFoundError:
            return {}


@dataclass(frozen=True, kw_only=True)
class _ShownImages:
    """What is known of images besides their scores, by digest."""

    names: Mapping[str, str]
    with_thumbnail: Collection[str]
    corrections: Mapping[str, str]

    def describe(self, quality: JudgedQuality, row: int) -> Mapping[str, Any]:
        image = quality.describe(row)
        digest = image["image"]
        return {
            **image,
            "thumbnail": digest in self.with_thumbnail,
            **({"name": self.names[digest]} if digest in self.names else {}),
            **({"correction": self.corrections[digest]} if digest in self.corrections else {}),
        }


def _resolve(classifier: Classifier, revision: str) -> str:
    """The revision that a caller names. Raises NotFoundError."""
    if revision == LATEST:
        return current_revision(classifier)
    if revision != SERVED:
        return revision
    if classifier.status.served_revision is None:
        raise NotFoundError(f"The classifier {classifier.classifier_id} serves no revision yet; name a revision, or latest.")
    return classifier.status.served_revision


def _describe_evaluation(
    place: RevisionPlace, report: StoredReport, evaluation: ReportedEvaluation, quality: JudgedQuality
) -> Mapping[str, Any]:
    lower, upper = evaluation.interval
    return {
        "revision": place.revision,
        **({} if report.written_at is None else {"trained": report.written_at}),
        "protocol": evaluation.protocol,
        "images": int(quality.evaluated.sum()),
        "accuracy": {"value": evaluation.accuracy, "lower": lower, "upper": upper, "images": evaluation.images},
        "calibration_error": evaluation.calibration_error,
        **({} if evaluation.excluded_images is None else {"excluded_images": evaluation.excluded_images}),
        "has_negatives": quality.judged.has_negatives,
        "classes": quality.class_metrics(),
        "confusion": quality.confusion(),
    }


def _describe_comparison(
    comparison: QualityComparison, revisions: tuple[str, str], names: Mapping[str, str], with_thumbnail: Collection[str]
) -> Mapping[str, Any]:
    def describe(pairs: list[list[int]]) -> Iterator[Mapping[str, Any]]:
        for pair in pairs:
            image = comparison.describe(pair, revisions)
            digest = image["image"]
            name = {"name": names[digest]} if digest in names else {}
            yield {**image, **name, "thumbnail": digest in with_thumbnail}

    accuracies = comparison.accuracies()
    better, worse = comparison.changed(better=True), comparison.changed(better=False)
    return {
        "revision": revisions[0],
        "other": revisions[1],
        "images": comparison.image_count,
        **({} if accuracies is None else {"accuracy": dict(zip(revisions, accuracies, strict=True))}),
        "better_count": len(better),
        "worse_count": len(worse),
        "better": list(describe(better[:CHANGED_LIMIT].tolist())),
        "worse": list(describe(worse[:CHANGED_LIMIT].tolist())),
        "only_in": dict(zip(revisions, comparison.only_counts, strict=True)),
    }


def _mark(value: Any, with_thumbnail: Collection[str]) -> Any:
    """The lists of a data report, with a mark for each image that has a thumbnail."""
    if not isinstance(value, list):
        return value
    return [
        {
            **{name: _mark(part, with_thumbnail) for name, part in item.items()},
            **({"thumbnail": item["image"] in with_thumbnail} if "image" in item else {}),
        }
        if isinstance(item, dict)
        else item
        for item in value
    ]
