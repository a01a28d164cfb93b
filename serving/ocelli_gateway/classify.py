"""Classify: which images, which classifiers, and one answer for all of them.

Custom classifiers are asked by the prediction client, built-in ones answer here. It must not know how requests arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ocelli_api.prediction import SCORE_DECIMALS, Prediction
from ocelli_cluster.client import ClusterError
from ocelli_gateway.auth import Caller
from ocelli_gateway.builtin import BUILT_IN_IDS, DEFAULT, describe_missing_model, score_built_in
from ocelli_gateway.classifier_store import ClassifierStore, KnownClassifier
from ocelli_gateway.errors import (
    ClassifierNotReadyError,
    GatewayError,
    NotFoundError,
    ParameterError,
    TooLargeError,
    TooManyRequestsError,
    UnavailableError,
)
from ocelli_gateway.fields import CLASSIFIER_IDS, OWNERS, PARAMETERS, THRESHOLD, URL, Field, T
from ocelli_gateway.image_files import IMAGES_LIMIT, ImageFiles, ReadImage, image_error
from ocelli_gateway.pixels import PixelReader, PixelsError
from ocelli_gateway.prediction_client import (
    ClassifierGoneError,
    ImageFaultError,
    PredictionClient,
    PredictionError,
    QueueFullError,
)
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.wire import (
    ClassifierAnswer,
    ClassifyWarning,
    ImageAnswer,
    ScoredClass,
    WarningId,
    classify_body,
)

NO_IMAGES = "No images were specified."
_SHOWN_IDS = 20
_SHOWN_ID_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """What is asked for."""

    files: tuple[SpooledFile, ...]
    classifier_ids: tuple[str, ...]
    owners: tuple[str, ...]
    """`me` and `IBM`, in the order asked for; without meaning where there are ids."""
    threshold: float


class ReadField(Protocol):
    """Gives the value of a field."""

    def __call__(self, field: Field[T], /) -> T: ...


def parse_classify_request(files: Sequence[SpooledFile], read: ReadField) -> ClassifyRequest:
    """What a request asks for.

    Raises:
        ParameterError: a field has a value that it may not have, or there is no image.
    """
    if read(URL) or read(PARAMETERS):
        raise ParameterError('The fields "url" and "parameters" are not supported yet.')
    request = ClassifyRequest(
        files=tuple(file for file in files if file.size_bytes),
        classifier_ids=read(CLASSIFIER_IDS),
        owners=read(OWNERS),
        threshold=read(THRESHOLD),
    )
    if not request.files:
        raise ParameterError(NO_IMAGES)
    return request


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A classifier that shall answer. `known` is None for a built-in one."""

    classifier_id: str
    name: str
    known: KnownClassifier | None = None


@dataclass(kw_only=True)
class _Plan:
    """Who shall answer, and what is to be said of those who cannot."""

    targets: list[_Target] = field(default_factory=list)
    warnings: list[ClassifyWarning] = field(default_factory=list)
    refusal: GatewayError | None = None
    """Why nobody can answer; holds for every image."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of one image: the scores, or an error, or failures of classifiers by their ids."""

    image: str
    scores: dict[str, list[ScoredClass]] = field(default_factory=dict)
    error: GatewayError | None = None
    failures: dict[str, Exception] = field(default_factory=dict)


class Classification:
    """Answers classify requests, each within the timeout. `images` bounds how many images are in memory, over all requests."""

    def __init__(
        self,
        store: ClassifierStore,
        predictions: PredictionClient,
        pixels: PixelReader,
        images: asyncio.Semaphore,
        *,
        timeout_seconds: float,
    ) -> None:
        self._store = store
        self._predictions = predictions
        self._pixels = pixels
        self._images = images
        self._timeout_seconds = timeout_seconds

    async def classify(self, caller: Caller, request: ClassifyRequest) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            GatewayError: no image has an answer; the body says it of each of them.
            ClusterError: the API server was needed and did not answer.
        """
        plan = await self._plan(caller, request)
        files = await asyncio.to_thread(ImageFiles, request.files)
        try:
            return await self._answer(files, request, plan)
        finally:
            await asyncio.to_thread(files.close)

    async def _answer(self, files: ImageFiles, request: ClassifyRequest, plan: _Plan) -> dict[str, Any]:
        if not files.count:
            raise _refuse([ImageAnswer(image=item.name, error=item.error) for item in files.invalid_zips])
        warnings = [*plan.warnings, *_describe_files(files)]
        if plan.refusal is not None:
            names = await asyncio.to_thread(lambda: [image.name for image in files])
            raise _refuse([ImageAnswer(image=name, error=plan.refusal) for name in names])
        try:
            async with asyncio.timeout(self._timeout_seconds):
                outcomes = await self._score_all(files, plan.targets)
        except TimeoutError as error:
            raise UnavailableError("Classifying takes too long now; try again, or send fewer images.") from error
        targets = _without_failed(plan, outcomes, warnings, named=bool(request.classifier_ids))
        answers = [_answer_image(outcome, targets, request.threshold) for outcome in outcomes]
        if not targets:
            raise _refuse([ImageAnswer(image=item.image, error=_none_found(plan.targets)) for item in outcomes])
        if all(answer.error is not None for answer in answers):
            raise _refuse(answers)
        return classify_body(answers, warnings)

    async def _plan(self, caller: Caller, request: ClassifyRequest) -> _Plan:
        if request.classifier_ids:
            return await self._plan_ids(caller, request.classifier_ids)
        plan = _Plan()
        for owner in request.owners:
            if owner == "IBM":
                _add_built_in(plan, DEFAULT)
            else:
                for known in await self._store.find_all(caller.namespace):
                    if known.served_revision is not None:
                        plan.targets.append(_custom(known))
        if not plan.targets:
            plan.refusal = NotFoundError("No classifiers found")
        return plan

    async def _plan_ids(self, caller: Caller, classifier_ids: Sequence[str]) -> _Plan:
        plan = _Plan()
        unknown: list[str] = []
        not_ready: list[str] = []
        custom_ids = [classifier_id for classifier_id in classifier_ids if classifier_id not in BUILT_IN_IDS]
        found = await self._store.find(caller.namespace, custom_ids)
        for classifier_id in classifier_ids:
            known = found.get(classifier_id)
            if classifier_id in BUILT_IN_IDS:
                _add_built_in(plan, classifier_id)
            elif known is None:
                unknown.append(classifier_id)
            elif known.served_revision is None:
                not_ready.append(classifier_id)
            else:
                plan.targets.append(_custom(known))
        if not plan.targets:
            plan.refusal = ClassifierNotReadyError(_describe_not_ready(not_ready)) if not_ready else _none_found_ids(unknown)
        if unknown:
            description = f"The following classifier ids were not found: {_join(unknown)}"
            plan.warnings.append(ClassifyWarning(warning_id=WarningId.UNKNOWN_CLASSIFIER_IDS, description=description))
        if not_ready:
            description = _describe_not_ready(not_ready)
            plan.warnings.append(ClassifyWarning(warning_id=WarningId.CLASSIFIER_NOT_READY, description=description))
        return plan

    async def _score_all(self, files: ImageFiles, targets: Sequence[_Target]) -> list[_Outcome]:
        images = iter(files)
        tasks: list[asyncio.Task[_Outcome]] = []
        async with asyncio.TaskGroup() as group:
            while True:
                await self._images.acquire()
                image: ReadImage | None = None
                try:
                    image = await asyncio.to_thread(next, images, None)
                finally:
                    if image is None:
                        self._images.release()
                if image is None:
                    break
                task = group.create_task(self._score(image, targets))
                task.add_done_callback(lambda _: self._images.release())
                tasks.append(task)
        return [task.result() for task in tasks]

    async def _score(self, image: ReadImage, targets: Sequence[_Target]) -> _Outcome:
        if image.error is not None:
            return _Outcome(image=image.name, error=image.error)
        scores: dict[str, list[ScoredClass]] = {}
        built_in = [target.classifier_id for target in targets if target.known is None]
        if built_in:
            try:
                pixels = await self._pixels.read(image.data)
            except PixelsError as error:
                return _Outcome(image=image.name, error=image_error(error.fault))
            scores = {classifier_id: score_built_in(classifier_id, pixels) for classifier_id in built_in}
        custom = [target.known for target in targets if target.known is not None]
        answers = await asyncio.gather(*(self._ask(known, image.data) for known in custom))
        failures: dict[str, Exception] = {}
        for known, answer in zip(custom, answers, strict=True):
            if isinstance(answer, ImageFaultError):
                return _Outcome(image=image.name, error=image_error(answer.fault))
            if isinstance(answer, Exception):
                failures[known.classifier_id] = answer
            else:
                scores[known.classifier_id] = _sorted_classes(answer)
        return _Outcome(image=image.name, scores=scores, failures=failures)

    async def _ask(self, known: KnownClassifier, image: bytes) -> Prediction | PredictionError | ClusterError:
        try:
            return await self._predictions.predict(known, image)
        except (PredictionError, ClusterError) as error:
            return error


def _without_failed(
    plan: _Plan, outcomes: Iterable[_Outcome], warnings: list[ClassifyWarning], *, named: bool
) -> list[_Target]:
    """The targets that answered for every image; `warnings` grows by what is to be said of the others.

    Raises:
        GatewayError, ClusterError: one that the request names did not answer, or none did.
    """
    failures: dict[str, Exception] = {}
    for outcome in outcomes:
        failures.update(outcome.failures)
    gone = [key for key, error in failures.items() if isinstance(error, ClassifierGoneError)]
    silent = {key: error for key, error in failures.items() if key not in gone}
    targets = [target for target in plan.targets if target.classifier_id not in failures]
    if silent and (named or not targets):
        raise _unavailable(next(iter(silent.values())))
    if gone:
        description = f"The following classifier ids were not found: {_join(gone)}"
        warnings.append(ClassifyWarning(warning_id=WarningId.UNKNOWN_CLASSIFIER_IDS, description=description))
    if silent:
        description = f"No server of these classifiers answers now: {_join(list(silent))}"
        warnings.append(ClassifyWarning(warning_id=WarningId.CLASSIFIER_UNAVAILABLE, description=description))
    return targets


def _unavailable(error: Exception) -> Exception:
    if isinstance(error, QueueFullError):
        return TooManyRequestsError(str(error), retry_after_seconds=error.retry_after_seconds)
    return UnavailableError(str(error)) if isinstance(error, PredictionError) else error


def _answer_image(outcome: _Outcome, targets: Sequence[_Target], threshold: float) -> ImageAnswer:
    if outcome.error is not None:
        return ImageAnswer(image=outcome.image, error=outcome.error)
    return ImageAnswer(
        image=outcome.image,
        classifiers=tuple(
            ClassifierAnswer(
                classifier_id=target.classifier_id,
                name=target.name,
                is_custom=target.known is not None,
                classes=tuple(item for item in outcome.scores[target.classifier_id] if item.score >= threshold),
            )
            for target in targets
        ),
    )


def _sorted_classes(prediction: Prediction) -> list[ScoredClass]:
    scored = [ScoredClass(class_name=item.class_name, score=round(item.score, SCORE_DECIMALS)) for item in prediction.scores]
    return sorted(scored, key=lambda item: -item.score)


def _refuse(images: Sequence[ImageAnswer]) -> GatewayError:
    """The refusal of a request of which no image has an answer: 413 only where every image is too large."""
    errors = [image.error for image in images if image.error is not None]
    shown = next((error for error in errors if not isinstance(error, TooLargeError)), errors[0])
    return type(shown)(shown.message, fields=classify_body(images, ()))


def _describe_files(files: ImageFiles) -> list[ClassifyWarning]:
    warnings = [
        ClassifyWarning(warning_id=WarningId.INVALID_ZIP, description=item.error.message) for item in files.invalid_zips
    ]
    if files.count > IMAGES_LIMIT:
        description = f"The request has {files.count} images; the first {IMAGES_LIMIT} were classified."
        warnings.append(ClassifyWarning(warning_id=WarningId.LIMIT_REACHED, description=description))
    return warnings


def _custom(known: KnownClassifier) -> _Target:
    return _Target(classifier_id=known.classifier_id, name=known.display_name, known=known)


def _add_built_in(plan: _Plan, classifier_id: str) -> None:
    plan.targets.append(_Target(classifier_id=classifier_id, name=classifier_id))
    description = describe_missing_model(classifier_id)
    plan.warnings.append(ClassifyWarning(warning_id=WarningId.CLASSIFIER_UNAVAILABLE, description=description))


def _none_found_ids(classifier_ids: Sequence[str]) -> NotFoundError:
    return NotFoundError(f"None of the requested classifier ids were found: {_join(classifier_ids)}")


def _none_found(targets: Sequence[_Target]) -> NotFoundError:
    return _none_found_ids([target.classifier_id for target in targets])


def _describe_not_ready(classifier_ids: Sequence[str]) -> str:
    return f"Not ready to classify, because no training has succeeded yet: {_join(classifier_ids)}"


def _join(classifier_ids: Sequence[str]) -> str:
    shown = [classifier_id[:_SHOWN_ID_CHARACTERS] for classifier_id in classifier_ids[:_SHOWN_IDS]]
    more = len(classifier_ids) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
