"""Classify: which images, which classifiers, and one answer for all of them.

Classifiers are asked by the prediction client; the colours of the built-in `default` are found here. It must not know how
requests arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from ocelli_cluster.client import ClusterError

from ocelli_api.prediction import SCORE_DECIMALS, Prediction
from ocelli_gateway.auth import Caller
from ocelli_gateway.builtin import (
    BUILT_IN_IDS,
    DEFAULT,
    classes_without_model,
    complete_classes,
    describe_unavailable,
    score_colors,
)
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
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.fair_threads import FairThreads
from ocelli_gateway.fields import ACCEPT_LANGUAGE, CLASSIFIER_IDS, OWNERS, THRESHOLD, URL, Field, T
from ocelli_gateway.image_files import IMAGES_LIMIT, ImageFiles, ReadImage, has_zip, image_error
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import (
    ClassifierGoneError,
    ImageFaultError,
    PredictionClient,
    PredictionError,
    Question,
    QueueFullError,
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
from ocelli_storage.archives import shown_name
from ocelli_storage.image_file import ImageError

NO_IMAGES = "No images were specified."
CLASSIFIERS_LIMIT = 100
"""So many classifiers answer one request: every image is sent to each of them."""
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
    url: str
    """Of one more image; empty where there is none."""
    language: str
    """Of the class names of built-in classifiers."""


class ReadField(Protocol):
    """Gives the value of a field."""

    def __call__(self, field: Field[T], /) -> T: ...


def parse_classify_request(files: Sequence[SpooledFile], read: ReadField) -> ClassifyRequest:
    """What a request asks for.

    Raises:
        ParameterError: a field has a value that it may not have, or there is no image.
    """
    request = ClassifyRequest(
        files=tuple(file for file in files if file.size_bytes),
        classifier_ids=read(CLASSIFIER_IDS),
        owners=read(OWNERS),
        threshold=read(THRESHOLD),
        url=read(URL),
        language=read(ACCEPT_LANGUAGE),
    )
    if not request.files and not request.url:
        raise ParameterError(NO_IMAGES)
    return request


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A classifier that shall answer, by the id that it was asked for by."""

    classifier_id: str
    name: str
    is_custom: bool
    known: KnownClassifier | None
    """None for a built-in one that has no model."""


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

    origin: ImageOrigin
    scores: dict[str, list[ScoredClass]] = field(default_factory=dict)
    error: GatewayError | None = None
    failures: dict[str, Exception] = field(default_factory=dict)
    silent_built_in: dict[str, Exception] = field(default_factory=dict)
    """Built-in classifiers whose models did not answer."""


class Classification:
    """Answers classify requests, each within the timeout.

    `images` bounds how many images are in memory, over all requests; `zips` opens uploads.
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
            GatewayError: no image has an answer; the body says it of each of them.
            ClusterError: the API server was needed and did not answer.
        """
        plan = _bounded(await self._plan(caller, request))
        files = await self._open_files(caller, request.files)
        try:
            return await self._answer(caller, files, request, plan)
        finally:
            await asyncio.to_thread(files.close)

    async def _open_files(self, caller: Caller, files: Sequence[SpooledFile]) -> ImageFiles:
        # Whoever sends an image does not wait for those who send zips.
        if await asyncio.to_thread(has_zip, files):
            return await self._zips.run(caller.namespace, ImageFiles, files)
        return await asyncio.to_thread(ImageFiles, files)

    async def _next_image(self, tenant: str, images: Iterator[ReadImage], *, has_zip: bool) -> ReadImage | None:
        # To read one of a zip may take a second: whoever sends an image does not wait for those, either.
        if has_zip:
            return await self._zips.run(tenant, next, images, None)
        return await asyncio.to_thread(next, images, None)

    async def _answer(self, caller: Caller, files: ImageFiles, request: ClassifyRequest, plan: _Plan) -> dict[str, Any]:
        if not files.count and not request.url:
            raise _refuse([ImageAnswer(origin=ImageOrigin(name=item.name), error=item.error) for item in files.invalid_zips])
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
                raise UnavailableError("Classifying takes too long now; try again, or send fewer images.") from error
        targets = _without_failed(plan, outcomes, warnings, named=bool(request.classifier_ids))
        answers = [_answer_image(outcome, targets, request.threshold) for outcome in outcomes]
        if not targets:
            raise _refuse([ImageAnswer(origin=item.origin, error=_none_found(plan.targets)) for item in outcomes])
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

    async def _plan(self, caller: Caller, request: ClassifyRequest) -> _Plan:
        if request.classifier_ids:
            return await self._plan_ids(caller, request.classifier_ids)
        plan = _Plan()
        for owner in request.owners:
            if owner == "IBM":
                self._add_built_in(plan, DEFAULT)
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
        not_ready: list[KnownClassifier] = []
        custom_ids = [classifier_id for classifier_id in classifier_ids if classifier_id not in BUILT_IN_IDS]
        found = await self._store.find(caller.namespace, custom_ids)
        for classifier_id in classifier_ids:
            known = found.get(classifier_id)
            if classifier_id in BUILT_IN_IDS:
                self._add_built_in(plan, classifier_id)
            elif known is None:
                unknown.append(classifier_id)
            elif known.served_revision is None:
                not_ready.append(known)
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

    def _add_built_in(self, plan: _Plan, classifier_id: str) -> None:
        installed = self._store.find_built_in(classifier_id)
        known = installed if installed is not None and installed.served_revision is not None else None
        plan.targets.append(_Target(classifier_id=classifier_id, name=classifier_id, is_custom=False, known=known))
        if installed is None:
            why = "has no model installed" if self._store.knows_built_in() else "cannot be looked up in Kubernetes now"
            plan.warnings.append(_warn_unavailable(classifier_id, why))
        elif known is None:
            state = f" ({installed.ready_reason})" if installed.ready_reason else ""
            why = "has no model installed" if installed.stalled else "is not ready yet"
            plan.warnings.append(_warn_unavailable(classifier_id, why + state))

    async def _score_all(
        self,
        caller: Caller,
        images: Iterator[ReadImage],
        targets: Sequence[_Target],
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

    async def _score(self, tenant: str, image: ReadImage, targets: Sequence[_Target], request: ClassifyRequest) -> _Outcome:
        if image.error is not None:
            return _Outcome(origin=image.origin, error=image.error)
        scores: dict[str, list[ScoredClass]] = {
            target.classifier_id: classes_without_model(target.classifier_id) if target.known is None else []
            for target in targets
        }
        # Where nobody is asked, this is what tells whether it is an image.
        in_pixels = [target.classifier_id for target in targets if target.known is None or target.classifier_id == DEFAULT]
        if in_pixels:
            try:
                pixels = await self._pixels.read(image.data, tenant)
            except ImageError as error:
                return _Outcome(origin=image.origin, error=image_error(error.kind))
            for classifier_id in in_pixels:
                scores[classifier_id] += score_colors(classifier_id, pixels)
        asked = [(target, target.known) for target in targets if target.known is not None]
        question = Question(tenant=tenant, image=image.data, threshold=request.threshold, language=request.language)
        answers = await asyncio.gather(*(self._ask(target, known, question) for target, known in asked))
        failures: dict[str, Exception] = {}
        silent: dict[str, Exception] = {}
        for (target, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, ImageFaultError):
                return _Outcome(origin=image.origin, error=image_error(answer.fault))
            if isinstance(answer, Prediction):
                predicted = _sorted_classes(answer, request.threshold)
                scores[target.classifier_id] = [*predicted, *scores[target.classifier_id]]
            elif target.is_custom:
                failures[target.classifier_id] = answer
            else:
                silent[target.classifier_id] = answer
                scores[target.classifier_id] += classes_without_model(target.classifier_id)
        if len(silent) == len(targets) and not in_pixels:
            # Nobody has said whether it is an image.
            try:
                await self._pixels.read(image.data, tenant)
            except ImageError as error:
                return _Outcome(origin=image.origin, error=image_error(error.kind))
        return _Outcome(origin=image.origin, scores=scores, failures=failures, silent_built_in=silent)

    async def _ask(
        self, target: _Target, known: KnownClassifier, question: Question
    ) -> Prediction | PredictionError | ClusterError:
        try:
            # Names of custom classes are never translated.
            return await self._predictions.predict(known, replace(question, language=None) if target.is_custom else question)
        except (PredictionError, ClusterError) as error:
            return error


def _bounded(plan: _Plan) -> _Plan:
    """The plan with as many targets as may answer one request, and a warning where there were more."""
    count = len(plan.targets)
    if count <= CLASSIFIERS_LIMIT:
        return plan
    description = (
        f"The request is for {count} classifiers; the first {CLASSIFIERS_LIMIT} answered. Name the others in classifier_ids."
    )
    warning = ClassifyWarning(warning_id=WarningId.LIMIT_REACHED, description=description)
    return _Plan(targets=plan.targets[:CLASSIFIERS_LIMIT], warnings=[*plan.warnings, warning], refusal=plan.refusal)


def _without_failed(
    plan: _Plan, outcomes: Iterable[_Outcome], warnings: list[ClassifyWarning], *, named: bool
) -> list[_Target]:
    """The targets that answered for every image; `warnings` grows by what is to be said of the others.

    Raises:
        GatewayError, ClusterError: one that the request names did not answer, or none did.
    """
    failures: dict[str, Exception] = {}
    silent_built_in: dict[str, Exception] = {}
    for outcome in outcomes:
        failures.update(outcome.failures)
        silent_built_in.update(outcome.silent_built_in)
    warnings += [_warn_unavailable(key, _describe_silence(error)) for key, error in sorted(silent_built_in.items())]
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
    warnings = [
        ClassifyWarning(warning_id=WarningId.INVALID_ZIP, description=item.error.message) for item in files.invalid_zips
    ]
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


def _custom(known: KnownClassifier) -> _Target:
    return _Target(classifier_id=known.classifier_id, name=known.display_name, is_custom=True, known=known)


def _warn_unavailable(classifier_id: str, why: str) -> ClassifyWarning:
    description = describe_unavailable(classifier_id, why)
    return ClassifyWarning(warning_id=WarningId.CLASSIFIER_UNAVAILABLE, description=description)


def _describe_silence(error: Exception) -> str:
    match error:
        case ClassifierGoneError():
            return "has no model installed"
        case QueueFullError():
            return "has more to do than it can do now"
        case _:
            return "has no server that answers now"


def _none_found_ids(classifier_ids: Sequence[str]) -> NotFoundError:
    return NotFoundError(f"None of the requested classifier ids were found: {_join(classifier_ids)}")


def _none_found(targets: Sequence[_Target]) -> NotFoundError:
    return _none_found_ids([target.classifier_id for target in targets])


def _describe_not_ready(found: Sequence[KnownClassifier]) -> str:
    failed = [known.classifier_id for known in found if known.stalled]
    young = [known.classifier_id for known in found if not known.stalled]
    facts = [f"no training has succeeded yet: {_join(young)}"] if young else []
    if failed:
        facts.append(f"the training failed, see explanation in the details: {_join(failed)}")
    return f"Not ready to classify, because {'; because '.join(facts)}"


def _join(classifier_ids: Sequence[str]) -> str:
    shown = [shown_name(classifier_id, _SHOWN_ID_CHARACTERS) for classifier_id in classifier_ids[:_SHOWN_IDS]]
    more = len(classifier_ids) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
