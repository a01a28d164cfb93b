"""What status says: conditions and their messages, the status document, the Events of a transition. Pure.

It decides nothing: `verdicts` decides what is true, this module words it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocelli_api.classifier import ClassifierSpec
from ocelli_api.classifier_status import HISTORY_LIMIT, ClassifierStatus, HistoryEntry
from ocelli_api.conditions import (
    ConditionStatus,
    ConditionType,
    DataValidReason,
    PromotedReason,
    ReadyReason,
    TrainedReason,
)
from ocelli_api.pods import TrainingStep
from ocelli_operator.observed import TrainingLimit
from ocelli_operator.settings import ChildSettings

_REPORTED_PROMOTIONS = (PromotedReason.GATES_MET, PromotedReason.APPROVED, PromotedReason.AWAITING_APPROVAL)
_POD_FORBIDDEN = re.compile(r'^(Error creating: )?(pods "[^"]*" is forbidden: )?')
"""The generated name of a Pod differs at each try and explains nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Status, reason and message of one condition."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """What an Event reports."""

    type: str
    """`Normal` or `Warning`."""
    reason: str
    action: str
    note: str


def true(reason: str, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.TRUE, reason=reason, message=message)


def false(reason: str, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.FALSE, reason=reason, message=message)


def unknown(reason: str, message: str) -> Verdict:
    return Verdict(status=ConditionStatus.UNKNOWN, reason=reason, message=message)


NOT_CHECKED = unknown(DataValidReason.NOT_CHECKED, "the sources have not been read yet")


def data_checked(spec: ClassifierSpec) -> Verdict:
    """`DataValid` after everything was read and accepted."""
    if spec.pretrained is not None:
        return true(DataValidReason.CHECKED, "weights and labels were read, and they match")
    return true(DataValidReason.CHECKED, "every source was read, and every class has enough usable examples")


def trained(spec: ClassifierSpec, revision: str, artifact: HistoryEntry | None) -> Verdict:
    """`Trained` where the artifact is stored."""
    if spec.pretrained is not None:
        message = f"revision {revision} was prepared from its weights, without a training"
        return true(TrainedReason.ARTIFACT_STORED, message)
    measured = "" if artifact is None else _describe_accuracy(artifact)
    if artifact is not None and artifact.not_improved:
        message = f"revision {revision} consists of linear heads{measured}: fine-tuning did not improve on them"
        return true(TrainedReason.NOT_IMPROVED, message)
    return true(TrainedReason.ARTIFACT_STORED, f"revision {revision} was learned{measured}")


def _describe_accuracy(artifact: HistoryEntry) -> str:
    if artifact.accuracy is None:
        return ""
    if artifact.accuracy_interval is None:
        # Artifacts of earlier releases keep their message, so that an upgrade rewrites no status.
        return f" with an accuracy of {artifact.accuracy} on held-out examples"
    return f" with an accuracy of {artifact.accuracy}, balanced over the classes ({describe_measurement(artifact)})"


def describe_measurement(artifact: HistoryEntry) -> str:
    """The interval of an accuracy that has one, and the images that it was measured on."""
    interval = artifact.accuracy_interval
    assert interval is not None
    facts = [f"95 % interval {interval.lower} to {interval.upper}"]
    if artifact.judged_images is not None:
        facts.append(f"{artifact.judged_images} images judged")
    if artifact.excluded_images is not None:
        facts.append(f"without {artifact.excluded_images} found among the examples")
    return ", ".join(facts)


def quota_message(sentence: str) -> str:
    """What an object waits for that exceeds a quota; the sentence names the quota and the remedy."""
    return f"waits for quota: {sentence}"


def refusal_message(sentence: str) -> str:
    """What an object waits for that Kubernetes refuses for now; the sentence is Kubernetes' own."""
    sentence = _POD_FORBIDDEN.sub("", sentence).rstrip(".")
    if "exceeded quota" in sentence:
        return quota_message(f"{sentence}; raise the quota, or delete objects that count against it")
    return f"waits for admission: {sentence}; have the policy allow it, or change the spec to what the policy allows"


def turn_message(child: str, limit: str) -> str:
    """Why a child is not started yet although nothing is wrong. It names no place in the queue: each step would be a write."""
    return f"{child} waits for its turn: this installation {limit} at the same time"


def training_turn_message(job: str, limit: TrainingLimit, namespace: str, settings: ChildSettings) -> str:
    """Why a training Job is not created yet: the limit that is reached, and the operator's setting for it."""
    if limit is TrainingLimit.NAMESPACE:
        most = f"namespace {namespace} runs at most {settings.namespace_trainings_limit} trainings at the same time"
        return f"{job} waits for its turn: {most} (OCELLI_NAMESPACE_TRAININGS_LIMIT)"
    if limit is TrainingLimit.INSTALLATION:
        return f"{turn_message(job, f'runs at most {settings.trainings_limit} trainings')} (OCELLI_TRAININGS_LIMIT)"
    starts = turn_message(job, f"starts at most {settings.trainings_starting_limit} trainings")
    return f"{starts} (OCELLI_TRAININGS_STARTING_LIMIT)"


def gpu_not_offered_message(part: str, setting: str) -> str:
    """Why a GPU that a part of the spec requests is not available in this installation."""
    return (
        f"{part} requests a GPU, but this installation offers none: the operator's setting {setting} is empty; set it to an "
        f"image with PyTorch for GPUs (in the chart: gpu.enabled), or set {part}.accelerator to CPU and remove GPUs from "
        f"{part}.resources"
    )


def extend_history(
    history: tuple[HistoryEntry, ...], entry: HistoryEntry, keep: frozenset[str | None]
) -> tuple[HistoryEntry, ...]:
    """`history` with the entry first. Above ten entries the oldest one goes that is not in `keep`.

    The entry of a revision stays as it is, unless its artifact was lost and trained again.
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


def describe_start(step: TrainingStep, job: str, revision: str) -> Occurrence:
    """The Event of a Job that was created."""
    if step is TrainingStep.CHECK:
        note = f"check Job {job} was created for the data of revision {revision}"
        return Occurrence(type="Normal", reason="CheckStarted", action="Check", note=note)
    note = f"training Job {job} was created for revision {revision}"
    return Occurrence(type="Normal", reason="TrainingStarted", action="Train", note=note)


def find_occurrences(before: ClassifierStatus, after: ClassifierStatus) -> tuple[Occurrence, ...]:
    """The Events of a status write: one for each transition that matters to a user."""
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
            note += f" instead of {before.served_revision}"
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
        elif new_ready.reason == ReadyReason.SUSPENDED:
            if after.is_true(ConditionType.DATA_VALID):
                add("Normal", ConditionType.DATA_VALID, "Check")
            add("Normal", ConditionType.READY, "Suspend")
    promoted, was_promoted = after.condition(ConditionType.PROMOTED), before.condition(ConditionType.PROMOTED)
    # Gates that are not met are reported with `Stalled`.
    changed = promoted is not None and (was_promoted is None or was_promoted.message != promoted.message)
    if promoted is not None and changed and promoted.reason in _REPORTED_PROMOTIONS:
        add("Normal", ConditionType.PROMOTED, "Promote")
    stalled, was_stalled = after.condition(ConditionType.STALLED), before.condition(ConditionType.STALLED)
    if stalled is not None and (was_stalled is None or was_stalled.message != stalled.message):
        add("Warning", ConditionType.STALLED, "Stall")
    return tuple(found)
