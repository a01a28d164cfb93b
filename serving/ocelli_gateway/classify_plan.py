"""Which classifiers answer a classify request, and the warnings about those that cannot.

It must not know images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ocelli_api.conditions import ReadyReason
from ocelli_gateway.auth import Caller
from ocelli_gateway.builtin import BUILT_IN_IDS, DEFAULT, describe_unavailable
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.fields import ACCEPT_LANGUAGE, CLASSIFIER_IDS, OWNERS, THRESHOLD, URL, Field, T
from ocelli_gateway.known_classifiers import KnownClassifier
from ocelli_gateway.refusals import ClassifierNotReadyError, GatewayError, NotFoundError, ParameterError
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.wire import ClassifyWarning, WarningId
from ocelli_storage.archives import shown_name

NO_IMAGES = "No images were specified."
CLASSIFIERS_LIMIT = 100
"""At most so many classifiers answer one request: every image is sent to each of them."""
_SHOWN_IDS = 20
_SHOWN_ID_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """A classify request with its fields parsed."""

    files: tuple[SpooledFile, ...]
    classifier_ids: tuple[str, ...]
    owners: tuple[str, ...]
    """`me` and `IBM`, in the order of the request; ignored where there are ids."""
    threshold: float
    url: str
    """Of one more image; empty where there is none."""
    language: str
    """Of the class names of built-in classifiers."""


class ReadField(Protocol):
    """Returns the value of a field."""

    def __call__(self, field: Field[T], /) -> T: ...


def parse_classify_request(files: Sequence[SpooledFile], read: ReadField) -> ClassifyRequest:
    """The request.

    Raises:
        ParameterError: the value of a field is not allowed, or there is no image.
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
class Target:
    """A classifier that should answer, with the id in the request."""

    classifier_id: str
    name: str
    is_custom: bool
    known: KnownClassifier | None
    """None for a built-in classifier without a model."""


@dataclass(kw_only=True)
class ClassifyPlan:
    """The classifiers that should answer, and the warnings about the others."""

    targets: list[Target] = field(default_factory=list)
    warnings: list[ClassifyWarning] = field(default_factory=list)
    refusal: GatewayError | None = None
    """Why none can answer; it applies to every image."""


async def plan_classify(store: ClassifierStore, caller: Caller, request: ClassifyRequest) -> ClassifyPlan:
    """The plan for a request. Raises ClusterError where the API server was needed and did not answer."""
    plan = ClassifyPlan()
    if request.classifier_ids:
        await _add_ids(plan, store, caller, request.classifier_ids)
    else:
        await _add_owners(plan, store, caller, request.owners)
    count = len(plan.targets)
    if count > CLASSIFIERS_LIMIT:
        del plan.targets[CLASSIFIERS_LIMIT:]
        message = (
            f"The request is for {count} classifiers; the first {CLASSIFIERS_LIMIT} answered. "
            "Name the others in classifier_ids."
        )
        plan.warnings.append(ClassifyWarning(warning_id=WarningId.LIMIT_REACHED, description=message))
    return plan


async def _add_owners(plan: ClassifyPlan, store: ClassifierStore, caller: Caller, owners: Sequence[str]) -> None:
    for owner in owners:
        if owner == "IBM":
            _add_built_in(plan, store, DEFAULT)
        else:
            known = await store.find_all(caller.namespace)
            plan.targets += [_build_custom(item) for item in known if item.served_revision is not None]
    if not plan.targets:
        plan.refusal = NotFoundError("No classifiers found")


async def _add_ids(plan: ClassifyPlan, store: ClassifierStore, caller: Caller, classifier_ids: Sequence[str]) -> None:
    unknown: list[str] = []
    not_ready: list[KnownClassifier] = []
    found = await store.find(caller.namespace, [key for key in classifier_ids if key not in BUILT_IN_IDS])
    for classifier_id in classifier_ids:
        known = found.get(classifier_id)
        if classifier_id in BUILT_IN_IDS:
            _add_built_in(plan, store, classifier_id)
        elif known is None:
            unknown.append(classifier_id)
        elif known.served_revision is None:
            not_ready.append(known)
        else:
            plan.targets.append(_build_custom(known))
    if not plan.targets:
        plan.refusal = ClassifierNotReadyError(_describe_not_ready(not_ready)) if not_ready else build_none_found(unknown)
    if unknown:
        plan.warnings.append(warn_unknown(unknown))
    if not_ready:
        message = _describe_not_ready(not_ready)
        plan.warnings.append(ClassifyWarning(warning_id=WarningId.CLASSIFIER_NOT_READY, description=message))


def _add_built_in(plan: ClassifyPlan, store: ClassifierStore, classifier_id: str) -> None:
    installed = store.find_built_in(classifier_id)
    known = installed if installed is not None and installed.served_revision is not None else None
    plan.targets.append(Target(classifier_id=classifier_id, name=classifier_id, is_custom=False, known=known))
    if installed is None:
        why = "has no model installed" if store.knows_built_in() else "cannot be looked up in Kubernetes now"
        plan.warnings.append(warn_unavailable(classifier_id, why))
    elif known is None:
        state = f" ({installed.ready_reason})" if installed.ready_reason else ""
        why = "has no model installed" if installed.stalled else "is not ready yet"
        plan.warnings.append(warn_unavailable(classifier_id, why + state))


def _build_custom(known: KnownClassifier) -> Target:
    return Target(classifier_id=known.classifier_id, name=known.display_name, is_custom=True, known=known)


def warn_unavailable(classifier_id: str, why: str) -> ClassifyWarning:
    """The warning that a built-in classifier answers without its model."""
    description = describe_unavailable(classifier_id, why)
    return ClassifyWarning(warning_id=WarningId.CLASSIFIER_UNAVAILABLE, description=description)


def warn_unknown(classifier_ids: Sequence[str]) -> ClassifyWarning:
    """The warning that these ids were not found."""
    description = f"The following classifier ids were not found: {list_ids(classifier_ids)}"
    return ClassifyWarning(warning_id=WarningId.UNKNOWN_CLASSIFIER_IDS, description=description)


def build_none_found(classifier_ids: Sequence[str]) -> NotFoundError:
    """The refusal of a request of which no id was found."""
    return NotFoundError(f"None of the requested classifier ids were found: {list_ids(classifier_ids)}")


def list_ids(classifier_ids: Sequence[str]) -> str:
    """The ids as messages show them: readable, and not too many."""
    shown = [shown_name(classifier_id, _SHOWN_ID_CHARACTERS) for classifier_id in classifier_ids[:_SHOWN_IDS]]
    more = len(classifier_ids) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _describe_not_ready(found: Sequence[KnownClassifier]) -> str:
    ids: dict[str, list[str]] = {}
    for known in found:
        ids.setdefault(_describe_why(known), []).append(known.classifier_id)
    return f"Not ready to classify, because {'; because '.join(f'{why}: {list_ids(those)}' for why, those in ids.items())}"


def _describe_why(known: KnownClassifier) -> str:
    if known.stalled:
        return "the training failed or its revision was refused, see explanation in the details"
    if known.ready_reason == ReadyReason.AWAITING_APPROVAL:
        return "the trained revision waits for approval, see explanation in the details"
    return "no training has succeeded yet"
