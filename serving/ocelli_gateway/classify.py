"""Classify: scores all images of a request with all its classifiers, and builds one answer.

Inference servers are called by the prediction client; the colours of the built-in `default` are computed here. It must not know
how requests arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ocelli_api.prediction import SCORE_DECIMALS, Prediction
from ocelli_cluster.client import ClusterError
from ocelli_gateway.auth import Caller
from ocelli_gateway.builtin import (
    DEFAULT,
    classes_without_model,
    complete_classes,
    score_colors,
)
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classify_plan import (
    ClassifyPlan,
    ClassifyRequest,
    Target,
    build_none_found,
    list_ids,
    plan_classify,
    warn_unavailable,
    warn_unknown,
)
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.fair_threads import FairThreads
from ocelli_gateway.image_files import IMAGES_LIMIT, ImageFiles, ReadImage, has_zip, image_error
from ocelli_gateway.known_classifiers import KnownClassifier
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import (
    ClassifierGoneError,
    ImageFaultError,
    PredictionClient,
    PredictionError,
    Question,
    QueueFullError,
)
from ocelli_gateway.refusals import (
    GatewayError,
    TooLargeError,
    UnavailableError,
)
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.url_fetcher import FetchedImage, UrlFetcher
from ocelli_gateway.wire import (
    ClassifierAnswer,
    ClassifyWarning,
    ImageAnswer,
    ImageOrigin,
    ScoredClass,
    WarningId,
    classify_body,
)
from ocelli_storage.image_file import ImageError


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """The outcome of one image: the scores, or an error, or failures of classifiers by their ids."""

    origin: ImageOrigin
    scores: dict[str, list[ScoredClass]] = field(default_factory=dict)
    error: GatewayError | None = None
    failures: dict[str, Exception] = field(default_factory=dict)
    unanswered_built_in: dict[str, Exception] = field(default_factory=dict)
    """Built-in classifiers whose models did not answer."""


class Classification:
    """Answers classify requests within the timeout.

    `images` limits the images in memory over all requests; `zips` opens uploads.
    """

    def __init__(
        self,
        store: ClassifierStore,
        predictions: PredictionClient,
        pixels: PixelReader,
        fetcher: UrlFetcher,
        images: FairSlots,
        zips: FairThreads,
        *,
        timeout_seconds: float,
    ) -> None:
        self._store = store
        self._predictions = predictions
        self._pixels = pixels
        self._fetcher = fetcher
        self._images = images
        self._zips = zips
        self._timeout_seconds = timeout_seconds

    async def classify(self, caller: Caller, request: ClassifyRequest) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            GatewayError: no image has an answer; the body has the error of each.
            ClusterError: the API server was needed and did not answer.
        """
        plan = await plan_classify(self._store, caller, request)
        files = await self._open_files(caller, request.files)
        try:
            return await self._answer(caller, files, request, plan)
        finally:
            await asyncio.to_thread(files.close)

    async def _open_files(self, caller: Caller, files: Sequence[SpooledFile]) -> ImageFiles:
        # Requests with images only do not wait for those with zips.
        if await asyncio.to_thread(has_zip, files):
            return await self._zips.run(caller.namespace, ImageFiles, files)
        return await asyncio.to_thread(ImageFiles, files)

    async def _next_image(self, tenant: str, images: Iterator[ReadImage], *, has_zip: bool) -> ReadImage | None:
        # Reading an image from a zip may take a second: other requests do not wait for it.
        if has_zip:
            return await self._zips.run(tenant, next, images, None)
        return await asyncio.to_thread(next, images, None)

    async def _answer(self, caller: Caller, files: ImageFiles, request: ClassifyRequest, plan: ClassifyPlan) -> dict[str, Any]:
        if not files.count and not request.url:
            raise _refuse([ImageAnswer(origin=item.origin, error=item.error) for item in files.invalid_zips])
        count = files.count + (1 if request.url else 0)
        warnings = [*plan.warnings, *_describe_files(files, count)]
        url = request.url if count <= IMAGES_LIMIT else ""
        if plan.refusal is not None:
            origins = [*files.origins(), *([ImageOrigin(source_url=url)] if url else [])]
            raise _refuse([ImageAnswer(origin=origin, error=plan.refusal) for origin in origins])
        async with self._fetch(caller, url) as fetched:
            images = chain(files, _read_fetched(fetched))
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    outcomes = await self._score_all(caller, images, plan.targets, request, has_zip=files.has_zip)
            except TimeoutError as error:
                raise UnavailableError("Classifying timed out; try again, or send fewer images.") from error
        targets = _without_failed(plan, outcomes, warnings, named=bool(request.classifier_ids))
        answers = [_answer_image(outcome, targets, request.threshold) for outcome in outcomes]
        if not targets:
            none_found = build_none_found([target.classifier_id for target in plan.targets])
            raise _refuse([ImageAnswer(origin=item.origin, error=none_found) for item in outcomes])
        if all(answer.error is not None for answer in answers):
            raise _refuse(answers)
        return classify_body(answers, warnings)

    @asynccontextmanager
    async def _fetch(self, caller: Caller, url: str) -> AsyncIterator[FetchedImage | None]:
        if not url:
            yield None
            return
        async with self._fetcher.fetch(url, caller.namespace) as fetched:
            yield fetched

    async def _score_all(
        self,
        caller: Caller,
        images: Iterator[ReadImage],
        targets: Sequence[Target],
        request: ClassifyRequest,
        *,
        has_zip: bool,
    ) -> list[_Outcome]:
        tenant = caller.namespace
        tasks: list[asyncio.Task[_Outcome]] = []
        async with asyncio.TaskGroup() as group:
            while True:
                await self._images.acquire(tenant)
                image: ReadImage | None = None
                try:
                    image = await self._next_image(tenant, images, has_zip=has_zip)
                finally:
                    if image is None:
                        self._images.release(tenant)
                if image is None:
                    break
                task = group.create_task(self._score(tenant, image, targets, request))
                task.add_done_callback(lambda _: self._images.release(tenant))
                tasks.append(task)
        return [task.result() for task in tasks]

    async def _score(self, tenant: str, image: ReadImage, targets: Sequence[Target], request: ClassifyRequest) -> _Outcome:
        if image.error is not None:
            return _Outcome(origin=image.origin, error=image.error)
        try:
            return await self._score_image(tenant, image, targets, request)
        except ImageError as error:
            return _Outcome(origin=image.origin, error=image_error(error.kind))
        except ImageFaultError as error:
            return _Outcome(origin=image.origin, error=image_error(error.fault))

    async def _score_image(
        self, tenant: str, image: ReadImage, targets: Sequence[Target], request: ClassifyRequest
    ) -> _Outcome:
        """Raises ImageError or ImageFaultError where it is not an image that can be used."""
        scores: dict[str, list[ScoredClass]] = {
            target.classifier_id: classes_without_model(target.classifier_id) if target.known is None else []
            for target in targets
        }
        # Where no inference server is called, this checks whether it is an image.
        in_pixels = [target.classifier_id for target in targets if target.known is None or target.classifier_id == DEFAULT]
        if in_pixels:
            pixels = await self._pixels.read(image.data, tenant)
            for classifier_id in in_pixels:
                scores[classifier_id] += score_colors(classifier_id, pixels)
        asked = [(target, target.known) for target in targets if target.known is not None]
        question = Question(tenant=tenant, image=image.data, threshold=request.threshold, language=request.language)
        answers = await asyncio.gather(*(self._ask(target, known, question) for target, known in asked))
        failures: dict[str, Exception] = {}
        silent: dict[str, Exception] = {}
        for (target, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, ImageFaultError):
                raise answer
            if isinstance(answer, Prediction):
                predicted = _sorted_classes(answer, request.threshold)
                scores[target.classifier_id] = [*predicted, *scores[target.classifier_id]]
            elif target.is_custom:
                failures[target.classifier_id] = answer
            else:
                silent[target.classifier_id] = answer
                scores[target.classifier_id] += classes_without_model(target.classifier_id)
        if len(silent) == len(targets) and not in_pixels:
            # No server has checked whether it is an image.
            await self._pixels.read(image.data, tenant)
        return _Outcome(origin=image.origin, scores=scores, failures=failures, unanswered_built_in=silent)

    async def _ask(
        self, target: Target, known: KnownClassifier, question: Question
    ) -> Prediction | PredictionError | ClusterError:
        try:
            # Names of custom classes are never translated.
            return await self._predictions.predict(known, replace(question, language=None) if target.is_custom else question)
        except (PredictionError, ClusterError) as error:
            return error


def _without_failed(
    plan: ClassifyPlan, outcomes: Iterable[_Outcome], warnings: list[ClassifyWarning], *, named: bool
) -> list[Target]:
    """The targets that answered for every image; warnings about the others are added to `warnings`.

    Raises:
        GatewayError, ClusterError: one that the request names did not answer, or none did.
    """
    failures: dict[str, Exception] = {}
    unanswered_built_in: dict[str, Exception] = {}
    for outcome in outcomes:
        failures.update(outcome.failures)
        unanswered_built_in.update(outcome.unanswered_built_in)
    warnings += [warn_unavailable(key, _describe_silence(error)) for key, error in sorted(unanswered_built_in.items())]
    gone = [key for key, error in failures.items() if isinstance(error, ClassifierGoneError)]
    silent = {key: error for key, error in failures.items() if key not in gone}
    targets = [target for target in plan.targets if target.classifier_id not in failures]
    if silent and (named or not targets):
        raise next(iter(silent.values()))
    if gone:
        warnings.append(warn_unknown(gone))
    if silent:
        description = f"No inference server of these classifiers is reachable: {list_ids(list(silent))}"
        warnings.append(ClassifyWarning(warning_id=WarningId.CLASSIFIER_UNAVAILABLE, description=description))
    return targets


def _answer_image(outcome: _Outcome, targets: Sequence[Target], threshold: float) -> ImageAnswer:
    if outcome.error is not None:
        return ImageAnswer(origin=outcome.origin, error=outcome.error)
    return ImageAnswer(
        origin=outcome.origin,
        classifiers=tuple(
            ClassifierAnswer(
                classifier_id=target.classifier_id,
                name=target.name,
                is_custom=target.is_custom,
                classes=complete_classes(
                    target.classifier_id,
                    tuple(item for item in outcome.scores[target.classifier_id] if item.score >= threshold),
                    threshold,
                ),
            )
            for target in targets
        ),
    )


def _sorted_classes(prediction: Prediction, threshold: float) -> list[ScoredClass]:
    scored = [
        ScoredClass(class_name=item.class_name, score=round(item.score, SCORE_DECIMALS), type_hierarchy=item.type_hierarchy)
        for item in prediction.scores
        if item.score >= threshold
    ]
    return sorted(scored, key=lambda item: -item.score)


def _refuse(images: Sequence[ImageAnswer]) -> GatewayError:
    """The refusal of a request of which no image has an answer: 413 only where every image is too large."""
    errors = [image.error for image in images if image.error is not None]
    shown = next((error for error in errors if not isinstance(error, TooLargeError)), errors[0])
    return type(shown)(shown.message, fields=classify_body(images, ()))


def _describe_files(files: ImageFiles, count: int) -> list[ClassifyWarning]:
    warnings = [ClassifyWarning(warning_id=WarningId.INVALID_ZIP, description=str(item.error)) for item in files.invalid_zips]
    if count > IMAGES_LIMIT:
        description = f"The request has {count} images; the first {IMAGES_LIMIT} were classified."
        warnings.append(ClassifyWarning(warning_id=WarningId.LIMIT_REACHED, description=description))
    return warnings


def _read_fetched(fetched: FetchedImage | None) -> Iterator[ReadImage]:
    """The image behind a URL, where there is one. It blocks."""
    if fetched is None:
        return
    origin = ImageOrigin(source_url=fetched.source_url, resolved_url=fetched.resolved_url)
    if fetched.file is None:
        yield ReadImage(origin=origin, error=fetched.error)
        return
    fetched.file.seek(0)
    yield ReadImage(origin=origin, data=fetched.file.read())


def _describe_silence(error: Exception) -> str:
    match error:
        case ClassifierGoneError():
            return "has no model installed"
        case QueueFullError():
            return "is busy"
        case _:
            return "has no reachable server"
