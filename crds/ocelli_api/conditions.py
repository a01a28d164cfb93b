"""Conditions of a Classifier: their types, and for each the documented set of reasons.

`lastTransitionTime` moves only when the status does: `merge_conditions` sees to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class ConditionStatus(StrEnum):
    """As Kubernetes means it."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """What can be true of a Classifier."""

    DATA_VALID = "DataValid"
    """Every source was read and the examples suffice."""
    TRAINED = "Trained"
    """The current revision has an artifact."""
    AVAILABLE = "Available"
    """Some revision answers predictions now."""
    READY = "Ready"
    """The current revision is the one that answers, fully rolled out."""
    RECONCILING = "Reconciling"
    """Work is under way; absent when settled."""
    STALLED = "Stalled"
    """A person must act; absent otherwise."""


class DataValidReason(StrEnum):
    """Reasons of `DataValid`."""

    CHECKED = "Checked"
    """Every source was read and every class has enough usable examples. Of a pretrained classifier: its weights and labels were
    read and fit each other."""
    NOT_CHECKED = "NotChecked"
    """The trainer has not read the sources yet."""
    INVALID_DATA = "InvalidData"
    """A source holds no or too few usable examples, or not what its digest promises; or a file of a pretrained classifier is
    damaged, or does not fit the others. The message names the first offenders."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be fetched: the message names its address and what came back."""


class TrainedReason(StrEnum):
    """Reasons of `Trained`."""

    ARTIFACT_STORED = "ArtifactStored"
    """The artifact of the current revision lies in the store."""
    TRAINING = "Training"
    """The training Job runs."""
    QUEUED = "Queued"
    """The training Job waits to be started, or its Pod to be made. Where a quota, a webhook or another object of its name is in
    the way, the message says so, in Kubernetes' own words, and where too many start at once; it goes on by itself."""
    UNSCHEDULABLE = "Unschedulable"
    """No node can take the trainer's Pod; the message is the scheduler's own sentence."""
    INVALID_DATA = "InvalidData"
    """Training ended because of the examples, see `DataValid`."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """Training ended because a source could not be fetched, see `DataValid`."""
    TRAINING_FAILED = "TrainingFailed"
    """Training ended for another reason, which the message gives."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """`spec.training` asks for a GPU, and the installation offers none; the message names the operator's setting."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """`spec.pinnedRevision` names a revision that has no artifact."""


class AvailableReason(StrEnum):
    """Reasons of `Available`."""

    SERVING = "Serving"
    """At least one inference server of the served revision is ready."""
    NO_SERVER_READY = "NoServerReady"
    """A revision is to be served, but no inference server of it is ready now."""
    NEVER_SERVED = "NeverServed"
    """No revision was served yet."""


class ReadyReason(StrEnum):
    """Reasons of `Ready`: the state of the Classifier in one word."""

    SERVED = "Served"
    """The current revision answers every request."""
    TRAINING = "Training"
    """The first training runs or waits."""
    RETRAINING = "Retraining"
    """A later training runs or waits; the served revision goes on answering."""
    UNSCHEDULABLE = "Unschedulable"
    """The trainer or the inference server waits for a node that can take it."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """A GPU is asked for, and the installation offers none; the message names the operator's setting."""
    ROLLING_OUT = "RollingOut"
    """The artifact is there; inference servers are being replaced. Where a quota, a webhook or an object of somebody else's
    that has the name of one that is needed is in the way, the message says so; it goes on by itself once that is gone."""
    INVALID_DATA = "InvalidData"
    """The examples do not allow a training."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be fetched; nothing is known of its examples."""
    TRAINING_FAILED = "TrainingFailed"
    """The training failed."""
    ROLLOUT_FAILED = "RolloutFailed"
    """The inference servers of a new revision did not become ready by their deadline."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """`spec.pinnedRevision` names a revision that has no artifact."""
    NO_SERVER_READY = "NoServerReady"
    """The current revision is rolled out, but no inference server of it is ready now."""
    ARTIFACT_LOST = "ArtifactLost"
    """The artifact of the served revision is not in the object store any more. Servers that run answer from memory, and no
    other can start. Put it back from a backup, or raise `spec.retrainNonce` to train the revision again."""


class ReconcilingReason(StrEnum):
    """Reasons of `Reconciling`."""

    TRAINING = "Training"
    """The first training runs or waits."""
    RETRAINING = "Retraining"
    """A later training runs or waits."""
    ROLLING_OUT = "RollingOut"
    """Inference servers are being replaced."""


class StalledReason(StrEnum):
    """Reasons of `Stalled`: each needs a person."""

    INVALID_DATA = "InvalidData"
    """Change the sources, or raise `spec.retrainNonce` to read them again."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """Correct the address of the source; or put it in place, then raise `spec.retrainNonce` to read it again."""
    TRAINING_FAILED = "TrainingFailed"
    """Change `spec.training` (memory, deadline) or raise `spec.retrainNonce` to try again."""
    ROLLOUT_FAILED = "RolloutFailed"
    """Change `spec.serving`, pin an earlier revision, or raise `spec.retrainNonce`."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """Have the operator's setting set that the message names, or ask for no GPU: it goes on by itself after either."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """Pin one of the revisions that `status.history` lists, or remove the pin."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Condition:
        """Type one entry as the API server returns it."""
        return cls(
            type=item["type"],
            status=ConditionStatus(item["status"]),
            reason=item.get("reason", ""),
            message=item.get("message", ""),
            observed_generation=item.get("observedGeneration", 0),
            last_transition_time=item.get("lastTransitionTime", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """The entry as `status.conditions` holds it."""
        return {
            "type": str(self.type),
            "status": str(self.status),
            "reason": str(self.reason),
            "message": self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": self.last_transition_time,
        }


def merge_conditions(old: Iterable[Condition], new: Iterable[Condition], now: str) -> tuple[Condition, ...]:
    """`new`, each with the transition time of the old one where the status is the same, else `now` (RFC 3339)."""
    before = {condition.type: condition for condition in old}

    def with_time(condition: Condition) -> Condition:
        previous = before.get(condition.type)
        unchanged = previous is not None and previous.status == condition.status and previous.last_transition_time
        return replace(condition, last_transition_time=previous.last_transition_time if unchanged and previous else now)

    return tuple(with_time(condition) for condition in new)
