"""Conditions of a Classifier: their types and, for each type, the documented set of reasons.

`merge_conditions` changes `lastTransitionTime` only when `status` changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class ConditionStatus(StrEnum):
    """Status of a condition, as in Kubernetes."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """Types of conditions of a Classifier."""

    DATA_VALID = "DataValid"
    """All sources were read, and there are enough examples."""
    TRAINED = "Trained"
    """The current revision has an artifact."""
    PROMOTED = "Promoted"
    """The current revision may serve: it meets `spec.promotion`, or was approved. Absent without `spec.promotion`, and until
    the revision is trained."""
    AVAILABLE = "Available"
    """A revision answers predictions now."""
    READY = "Ready"
    """The current revision is served and fully rolled out."""
    RECONCILING = "Reconciling"
    """The operator is working on it. Absent when it has finished."""
    STALLED = "Stalled"
    """The user has to act. Absent otherwise."""


class DataValidReason(StrEnum):
    """Reasons of `DataValid`."""

    CHECKED = "Checked"
    """All sources were read, and each class has enough usable examples. After a check before the training (`spec.suspend`, or a
    training on a GPU), the message says what was found: examples of each class, skipped files, duplicates, images in the wrong
    class. For a pretrained classifier: weights and labels were read and match."""
    NOT_CHECKED = "NotChecked"
    """The trainer has not read the sources yet."""
    INVALID_DATA = "InvalidData"
    """A source has too few usable examples or does not match its digest; or a file of a pretrained classifier is damaged or
    does not match the others. The message names the first problems; after a check before the training it names all."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be downloaded. The message contains the URL and the response."""


class TrainedReason(StrEnum):
    """Reasons of `Trained`."""

    ARTIFACT_STORED = "ArtifactStored"
    """The artifact of the current revision is stored."""
    NOT_IMPROVED = "NotImproved"
    """The artifact of the current revision is stored. It consists of linear heads: fine-tuning did not improve on them. The
    report contains the losses of both. Add examples, or set `spec.model.strategy` to `LinearProbe`, which is faster."""
    TRAINING = "Training"
    """The training Job is running."""
    QUEUED = "Queued"
    """The training Job has not started, or its Pod has not been created. If a quota, a webhook, another object with the same
    name, a limit on concurrent trainings or Kueue is the cause, the message says so. A limit is named with the operator's
    setting that raises it; of Kueue, the message is its own. The operator continues by itself."""
    CHECKING_DATA = "CheckingData"
    """A Job without a GPU reads and checks the data: before a training on a GPU, or because `spec.suspend` is true. The
    training uses what it read."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true: the revision is not trained. See `DataValid` for what the check of its data found, and set
    `spec.suspend` to false to train it."""
    UNSCHEDULABLE = "Unschedulable"
    """No node can take the trainer's Pod. The message is the scheduler's."""
    INVALID_DATA = "InvalidData"
    """Training failed because of the examples, see `DataValid`."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """Training failed because a source could not be downloaded, see `DataValid`."""
    TRAINING_FAILED = "TrainingFailed"
    """Training failed for another reason, which the message describes."""
    TRAINING_DIVERGED = "TrainingDiverged"
    """Fine-tuning ended in numbers that are not finite."""
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    """Half a batch of fine-tuning does not fit into the memory of the GPU."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """`spec.training` requires a GPU, but the installation offers none. The message names the operator's setting."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """`spec.pinnedRevision` names a revision without an artifact."""


class PromotedReason(StrEnum):
    """Reasons of `Promoted`."""

    GATES_MET = "GatesMet"
    """The revision meets every gate of `spec.promotion`. The message contains the figures."""
    APPROVED = "Approved"
    """`spec.approvedRevision` or `spec.pinnedRevision` names the revision, which needs no gate then."""
    SERVED_BEFORE = "ServedBefore"
    """The revision serves, or has served: gates apply to revisions that have not served yet."""
    BELOW_MINIMUM_ACCURACY = "BelowMinimumAccuracy"
    """The accuracy is lower than `spec.promotion.minAccuracy`. The served revision continues to serve. Improve the examples;
    or lower `minAccuracy` or set `spec.approvedRevision`, which needs no training."""
    REGRESSED = "Regressed"
    """On images that neither revision learned from, the accuracy is lower than that of the served revision, by more than
    `spec.promotion.maxAccuracyDrop`. The served revision continues to serve. Improve the examples; or raise
    `maxAccuracyDrop` or set `spec.approvedRevision`, which needs no training."""
    NOT_COMPARABLE = "NotComparable"
    """`spec.promotion` asks for figures that do not exist: the accuracy of a training of an earlier release, or a comparison
    of two revisions without a common image or class. The message says why. The served revision continues to serve until
    `spec.approvedRevision` names the new one, or the gate is removed."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """Every gate is met, and `spec.promotion.approval` is `Manual`. Set `spec.approvedRevision` to the revision."""


class AvailableReason(StrEnum):
    """Reasons of `Available`."""

    SERVING = "Serving"
    """At least one inference server of the served revision is ready."""
    NO_SERVER_READY = "NoServerReady"
    """A revision should be served, but none of its inference servers is ready."""
    NEVER_SERVED = "NeverServed"
    """No revision has been served yet."""


class ReadyReason(StrEnum):
    """Reasons of `Ready`: the state of the Classifier in one word."""

    SERVED = "Served"
    """The current revision answers all requests."""
    TRAINING = "Training"
    """The first training is running or waiting."""
    RETRAINING = "Retraining"
    """A later training is running or waiting. The served revision continues to answer."""
    CHECKING_DATA = "CheckingData"
    """`spec.suspend` is true, and the data of the current revision is being checked. A served revision continues to answer."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true, so the current revision is not trained. Its data was checked, see `DataValid`. A served revision
    continues to answer. Set `spec.suspend` to false to train it."""
    UNSCHEDULABLE = "Unschedulable"
    """The trainer or an inference server is waiting for a node that can take it."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """The Classifier requires a GPU, but the installation offers none. The message names the operator's setting."""
    ROLLING_OUT = "RollingOut"
    """The artifact is stored, and inference servers are being replaced. If a quota, a webhook or an unrelated object with the
    same name is the cause of a delay, the message says so. The operator continues by itself once the cause is gone."""
    INVALID_DATA = "InvalidData"
    """The examples are not sufficient for a training."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be downloaded. Its examples are unknown."""
    TRAINING_FAILED = "TrainingFailed"
    """The training failed, but not because of its data: it ran out of memory, time, disk or quota, its Pod was evicted, the
    backbone is not installed, not all of its workers started, or there is an error in Ocelli. The message names the cause."""
    TRAINING_DIVERGED = "TrainingDiverged"
    """Fine-tuning ended in numbers that are not finite."""
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    """Half a batch of fine-tuning does not fit into the memory of the GPU."""
    ROLLOUT_FAILED = "RolloutFailed"
    """The inference servers of a new revision were not ready before the deadline."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """`spec.pinnedRevision` names a revision without an artifact."""
    BELOW_MINIMUM_ACCURACY = "BelowMinimumAccuracy"
    """The trained revision does not serve, because its accuracy is too low; see `Promoted`."""
    REGRESSED = "Regressed"
    """The trained revision does not serve, because it is worse than the served one; see `Promoted`."""
    NOT_COMPARABLE = "NotComparable"
    """The trained revision does not serve, because a gate cannot be checked; see `Promoted`."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """The trained revision serves once `spec.approvedRevision` names it."""
    NO_SERVER_READY = "NoServerReady"
    """The current revision is rolled out, but none of its inference servers is ready."""
    ARTIFACT_LOST = "ArtifactLost"
    """The artifact of the served revision is missing from the object store. Running servers answer from memory, but no new one
    can start. Restore it from a backup, or increase `spec.retrainNonce` to train the revision again."""


class ReconcilingReason(StrEnum):
    """Reasons of `Reconciling`."""

    TRAINING = "Training"
    """The first training is running or waiting."""
    RETRAINING = "Retraining"
    """A later training is running or waiting."""
    CHECKING_DATA = "CheckingData"
    """`spec.suspend` is true, and the data is being checked."""
    ROLLING_OUT = "RollingOut"
    """Inference servers are being replaced."""


class StalledReason(StrEnum):
    """Reasons of `Stalled`. The user has to act on each of them."""

    INVALID_DATA = "InvalidData"
    """Change the sources, or increase `spec.retrainNonce` to read them again."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """Correct the URL of the source, or make the source available and increase `spec.retrainNonce`."""
    TRAINING_FAILED = "TrainingFailed"
    """Do what the message says: change `spec.training` (memory, deadline), or remove the cause and increase
    `spec.retrainNonce` to try again."""
    TRAINING_DIVERGED = "TrainingDiverged"
    """Lower `spec.model.learningRate`."""
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    """Lower `spec.model.batchSize`, or have the trainer run on a GPU with more memory (`spec.training.nodeSelector`)."""
    ROLLOUT_FAILED = "RolloutFailed"
    """Change `spec.serving`, pin an earlier revision, or increase `spec.retrainNonce`."""
    GPU_NOT_OFFERED = "GPUNotOffered"
    """Set the operator's setting that the message names, or do not require a GPU. The operator then continues by itself."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """Pin one of the revisions that `status.history` lists, or remove the pin."""
    BELOW_MINIMUM_ACCURACY = "BelowMinimumAccuracy"
    """Improve the examples, lower `spec.promotion.minAccuracy`, or set `spec.approvedRevision`."""
    REGRESSED = "Regressed"
    """Improve the examples, raise `spec.promotion.maxAccuracyDrop`, or set `spec.approvedRevision`."""
    NOT_COMPARABLE = "NotComparable"
    """Set `spec.approvedRevision`, or remove the gate that cannot be checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


def merge_conditions(old: Iterable[Condition], new: Iterable[Condition], now: str) -> tuple[Condition, ...]:
    """`new`, with the old transition times of conditions whose status is the same, and `now` (RFC 3339) for the others."""
    before = {condition.type: condition for condition in old}

    def with_time(condition: Condition) -> Condition:
        previous = before.get(condition.type)
        unchanged = previous is not None and previous.status == condition.status and previous.last_transition_time
        return replace(condition, last_transition_time=previous.last_transition_time if unchanged and previous else now)

    return tuple(with_time(condition) for condition in new)
