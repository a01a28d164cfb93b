"""The status of a Classifier as frozen dataclasses.

It owns the field names and defaults of `status` in `crds/classifier.yaml`; a contract test compares the two. It must not know
who reads or writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocelli_api.conditions import Condition, ConditionStatus, ConditionType
from ocelli_api.documents import parse_fields

HISTORY_LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of the running training."""

    percent: int
    stage: str
    estimated_completion: str | None = None
    images: int | None = None
    images_total: int | None = None
    device: str | None = None
    accuracy: str | None = None
    """Of the revision in training, once it is evaluated: a decimal such as "0.932"."""
    fine_tuning: FineTuningProgress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuningProgress:
    """As `TuningProgress`, with the loss as a decimal such as "0.1234"."""

    network: int
    networks: int
    epoch: int
    epochs: int
    loss: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyInterval:
    """The 95 % confidence interval of an accuracy. Both ends are decimals from 0 to 1 such as "0.871"."""

    lower: str
    upper: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyDrop:
    """How much lower a revision's accuracy is than another's on the same images. All decimals are texts from -1 to 1."""

    drop: str
    """Below 0: the revision is better."""
    lower: str
    """Lower end of the 95 % interval."""
    upper: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionComparison:
    """A revision compared with the one that served when it was trained, on images that neither learned from."""

    baseline: str
    """The revision that served."""
    accuracy_drop: AccuracyDrop | None = None
    """None: the revisions cannot be compared."""
    images: int | None = None
    """Number of images that both were judged on."""
    reclassified_images: int | None = None
    """Number of images left out because the revisions learned different classes for them. None: there are none."""
    fault: str | None = None
    """Why they cannot be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    """A trained revision. `ClassifierStatus` explains the figures."""

    revision: str
    trained_at: str
    accuracy: str | None = None
    accuracy_interval: AccuracyInterval | None = None
    judged_images: int | None = None
    excluded_images: int | None = None
    """Number of images of the test set that are left out, because they are examples or near duplicates of examples. None: there
    are none."""
    artifact_digest: str | None = None
    backbone: str | None = None
    comparison: RevisionComparison | None = None
    """None: no other revision served when it was trained, or an earlier release trained it."""
    not_improved: bool | None = None
    """True: fine-tuning did not improve on the linear heads, which this revision consists of. None: anything else."""
    promoted_at: str | None = None
    """When it first served; None if it never did. For one that a release without promotion trained, when it was trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservedSources:
    """What the last poll of the sources saw."""

    addresses: str
    """Identifies the addresses that were polled."""
    digest: str | None = None
    """Identifies their contents. Part of the revision. None: no poll has reached all of them yet."""
    changed_at: str | None = None
    """When another digest was seen."""
    fault: str | None = None
    """Why the last poll saw nothing, or not everything."""


@dataclass(frozen=True, kw_only=True)
class ClassifierStatus:
    """What the operator observed and did. At its defaults, it belongs to a Classifier that no operator has seen."""

    observed_generation: int = -1
    classifier_id: str | None = None
    conditions: tuple[Condition, ...] = ()
    served_revision: str | None = None
    """The revision that answers predictions. One write of this field switches from one revision to the next."""
    settled_revision: str | None = None
    """The last revision for which `Ready` became true."""
    training_revision: str | None = None
    """The revision being trained. None if there is no training."""
    attempt: int = 0
    """Counts the training Jobs of this Classifier, so that each has its own name."""
    observed_retrain_nonce: int = 0
    """The `spec.retrainNonce` whose training and rollout have ended, successfully (settled) or not (stalled)."""
    failed_revision: str | None = None
    """The current revision when `Stalled` was set; the failure belongs to this revision only."""
    failed_training_hash: str | None = None
    """Hash of `spec.training` with which `failedRevision` failed. A change retries it."""
    failed_rollout_hash: str | None = None
    """Hash of the Deployment whose rollout failed. A change (of `spec.serving` or the image) retries it."""
    history: tuple[HistoryEntry, ...] = ()
    observed_sources: ObservedSources | None = None
    """None before the first poll of these addresses. It stays when `spec.pollInterval` is removed."""
    endpoint: str | None = None
    accuracy: str | None = None
    """Accuracy of the served revision, a decimal from 0 to 1 such as "0.934". With an interval it is balanced over the classes;
    without (trained by an earlier release) it is the share of all evaluated images that were recognized."""
    accuracy_interval: AccuracyInterval | None = None
    judged_images: int | None = None
    """Number of images that the accuracy was measured on, negative examples included."""
    backbone: str | None = None
    """The backbone that was used, with the reason if the spec says `Auto`."""
    progress: Progress | None = None
    trained_at: str | None = None
    retrained_at: str | None = None

    def condition(self, condition_type: ConditionType) -> Condition | None:
        """The condition of this type, or None."""
        return next((condition for condition in self.conditions if condition.type == condition_type), None)

    def is_true(self, condition_type: ConditionType) -> bool:
        """Whether the condition has the status True."""
        condition = self.condition(condition_type)
        return condition is not None and condition.status is ConditionStatus.TRUE


def parse_status(status: Mapping[str, Any]) -> ClassifierStatus:
    """Type `status`; it is empty until an operator has seen the Classifier.

    Raises:
        DocumentError: it does not match the CRD.
    """
    return parse_fields(ClassifierStatus, status)
