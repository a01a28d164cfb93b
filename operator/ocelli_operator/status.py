"""What status says: conditions and their sentences, the status document, the Events of a transition. Pure.

It judges nothing: `judgement` says what is the case, this module words it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ocelli_api.classifier import HISTORY_LIMIT, Classifier, ClassifierSpec, ClassifierStatus, HistoryEntry
from ocelli_api.conditions import (
    ConditionStatus,
    ConditionType,
    DataValidReason,
    ReadyReason,
    StalledReason,
    TrainedReason,
)
from ocelli_operator.observed import StoredArtifact

_POD_FORBIDDEN = re.compile(r'^(Error creating: )?(pods "[^"]*" is forbidden: )?')
"""Each Pod has another name, and says nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Status, reason and message of one condition."""

    status: ConditionStatus
    reason: StrEnum
    message: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a person must act."""

    reason: StalledReason
    message: str
    """Object, fact and remedy."""
    data_valid: Verdict
    trained: Verdict


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """What an Event tells."""

    type: str
    """`Normal` or `Warning`."""
    reason: str
    action: str
    note: str


def true(reason: StrEnum, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.TRUE, reason=reason, message=message)


def false(reason: StrEnum, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.FALSE, reason=reason, message=message)


def unknown(reason: StrEnum, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.UNKNOWN, reason=reason, message=message)


NOT_CHECKED = unknown(DataValidReason.NOT_CHECKED, "the sources have not been read yet")


def data_checked(spec: ClassifierSpec) -> Verdict:
    """`DataValid` where everything was read and found good."""
    if spec.pretrained is not None:
        return true(DataValidReason.CHECKED, "weights and labels were read, and fit each other")
    return true(DataValidReason.CHECKED, "every source was read, and every class has enough usable examples")


def learned(spec: ClassifierSpec, revision: str, artifact: StoredArtifact | None) -> Verdict:
    """`Trained` where the artifact is there."""
    if spec.pretrained is not None:
        return true(
            TrainedReason.ARTIFACT_STORED, f"revision {revision} was made ready from its weights; nothing had to be learned"
        )
    measured = "" if artifact is None else _tell_accuracy(artifact)
    return true(TrainedReason.ARTIFACT_STORED, f"revision {revision} was learned{measured}")


def _tell_accuracy(artifact: StoredArtifact) -> str:
    if artifact.accuracy is None:
        return ""
    if artifact.accuracy_interval is None:
        # An artifact of an earlier release. The message stays as it was, so that an upgrade rewrites no status.
        return f" with an accuracy of {artifact.accuracy} on held-out examples"
    interval = artifact.accuracy_interval
    images = "" if artifact.judged_images is None else f", {artifact.judged_images} images judged"
    return (
        f" with an accuracy of {artifact.accuracy}, balanced over the classes "
        f"(95 % interval {interval.lower} to {interval.upper}{images})"
    )


def failed_training(message: str) -> Failure:
    """A training that ended for a reason other than its examples."""
    return Failure(
        reason=StalledReason.TRAINING_FAILED,
        message=message,
        data_valid=NOT_CHECKED,
        trained=false(TrainedReason.TRAINING_FAILED, message),
    )


def failed_data(message: str) -> Failure:
    """A training that ended because of its examples."""
    return Failure(
        reason=StalledReason.INVALID_DATA,
        message=message,
        data_valid=false(DataValidReason.INVALID_DATA, message),
        trained=false(TrainedReason.INVALID_DATA, message),
    )


def failed_source(message: str) -> Failure:
    """A training that ended because a source could not be fetched: of its examples nothing is known."""
    return Failure(
        reason=StalledReason.SOURCE_UNREADABLE,
        message=message,
        data_valid=false(DataValidReason.SOURCE_UNREADABLE, message),
        trained=false(TrainedReason.SOURCE_UNREADABLE, message),
    )


def tell_no_room(sentence: str) -> str:
    """What a child waits for that a quota has no room for; the sentence names the quota and what to do."""
    return f"waits for room: {sentence}"


def tell_refusal(sentence: str) -> str:
    """What a child, or a Pod of it, waits for that Kubernetes refuses for now; the sentence is Kubernetes' own."""
    sentence = _POD_FORBIDDEN.sub("", sentence).rstrip(".")
    if "exceeded quota" in sentence:
        return tell_no_room(f"{sentence}; raise the quota or delete what uses it")
    return f"waits to be admitted: {sentence}; have it allowed, or ask for what is allowed"


def waits_for_turn(child: str, most: str) -> str:
    """Why a child is not begun yet, though nothing is wrong. It tells no position: each would be a write."""
    return f"{child} waits for its turn: at most {most} at once in this installation"


def tell_gpu_not_offered(part: str, setting: str) -> str:
    """Why a GPU that a part of the spec asks for cannot be had here."""
    return (
        f"{part} asks for a GPU, and this installation offers it none: its operator's {setting} is empty; have that set to an "
        "image with PyTorch for GPUs (in the chart: gpu.enabled), "
        f"or set {part}.accelerator to CPU and name no GPU in {part}.resources"
    )


def failed_for_want_of_gpu(message: str) -> Failure:
    """A training that was not begun, because it asks for more than the installation offers."""
    return Failure(
        reason=StalledReason.GPU_NOT_OFFERED,
        message=message,
        data_valid=NOT_CHECKED,
        trained=false(TrainedReason.GPU_NOT_OFFERED, message),
    )


def missing_revision(classifier: Classifier, revision: str) -> Failure:
    """A pin that names a revision which was never learned, or is pruned."""
    known = ", ".join(entry.revision for entry in classifier.status.history)
    choice = f"pin one of {known}, or remove the pin" if known else "remove the pin"
    message = f"{classifier}: spec.pinnedRevision names revision {revision}, which has no artifact; {choice}"
    return Failure(
        reason=StalledReason.REVISION_NOT_FOUND,
        message=message,
        data_valid=NOT_CHECKED,
        trained=false(TrainedReason.REVISION_NOT_FOUND, message),
    )


def extend_history(
    history: tuple[HistoryEntry, ...], entry: HistoryEntry, keep: frozenset[str | None]
) -> tuple[HistoryEntry, ...]:
    """`history` with the entry first; of more than ten the oldest goes that is none of `keep`.

    A revision that is there already stays as it is, unless its artifact was lost and learned again.
    """
    known = next((item for item in history if item.revision == entry.revision), None)
    if known is not None and None in (known.artifact_digest, entry.artifact_digest):
        return history
    if known is not None and known.artifact_digest == entry.artifact_digest:
        return history
    entries = [entry, *(item for item in history if item is not known)]
    while len(entries) > HISTORY_LIMIT:
        spare = [item for item in entries[1:] if item.revision not in keep]
        entries.remove(spare[-1] if spare else entries[-1])
    return tuple(entries)


def find_occurrences(before: ClassifierStatus, after: ClassifierStatus) -> tuple[Occurrence, ...]:
    """The Events of a status write: one for each transition that somebody who looks on wants to know."""
    found: list[Occurrence] = []

    def add(occurrence_type: str, condition_type: ConditionType, action: str) -> None:
        condition = after.condition(condition_type)
        if condition is not None:
            found.append(Occurrence(type=occurrence_type, reason=condition.reason, action=action, note=condition.message))

    def became(condition_type: ConditionType, status: ConditionStatus) -> bool:
        old, new = before.condition(condition_type), after.condition(condition_type)
        return new is not None and new.status is status and (old is None or old.status is not status)

    if became(ConditionType.TRAINED, ConditionStatus.TRUE):
        add("Normal", ConditionType.TRAINED, "Train")
    if after.served_revision != before.served_revision and after.served_revision is not None:
        note = f"revision {after.served_revision} is served"
        if before.served_revision is not None:
            note += f" in place of {before.served_revision}"
        found.append(Occurrence(type="Normal", reason="Switched", action="Serve", note=note))
    if became(ConditionType.READY, ConditionStatus.TRUE):
        add("Normal", ConditionType.READY, "Serve")
    if became(ConditionType.AVAILABLE, ConditionStatus.FALSE) and before.served_revision is not None:
        add("Warning", ConditionType.AVAILABLE, "Serve")
    new_ready, old_ready = after.condition(ConditionType.READY), before.condition(ConditionType.READY)
    if new_ready is not None and (old_ready is None or old_ready.reason != new_ready.reason):
        if new_ready.reason == ReadyReason.UNSCHEDULABLE:
            add("Warning", ConditionType.READY, "Schedule")
        elif new_ready.reason == ReadyReason.ARTIFACT_LOST:
            add("Warning", ConditionType.READY, "Serve")
    stalled, was_stalled = after.condition(ConditionType.STALLED), before.condition(ConditionType.STALLED)
    if stalled is not None and (was_stalled is None or was_stalled.message != stalled.message):
        add("Warning", ConditionType.STALLED, "Stall")
    return tuple(found)
