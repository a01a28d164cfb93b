"""The v3 status of a Classifier: one pure function of spec and status, used by operator and gateway."""

from __future__ import annotations

from enum import StrEnum

from ocelli_api.classifier import Classifier
from ocelli_api.conditions import Condition, ConditionType, PromotedReason
from ocelli_api.revision import current_revision


class Lifecycle(StrEnum):
    """Values of `status` in v3."""

    TRAINING = "training"
    READY = "ready"
    RETRAINING = "retraining"
    FAILED = "failed"


def lifecycle(classifier: Classifier) -> Lifecycle:
    """The v3 status.

    Scaling, other changes of `serving`, transient errors and rollouts of the same revision never change it: it depends only on
    the revisions and nonces that status recorded when a training or rollout ended, and on `Stalled`.
    """
    status = classifier.status
    current = current_revision(classifier)
    nonce_observed = status.observed_retrain_nonce == classifier.spec.retrain_nonce
    if nonce_observed and status.failed_revision == current and status.is_true(ConditionType.STALLED):
        return Lifecycle.FAILED
    if nonce_observed and status.settled_revision == current:
        return Lifecycle.READY
    # The first revision is served before it settles, while it rolls out: that still counts as the first training.
    first = status.settled_revision is None and status.served_revision in (None, current)
    return Lifecycle.TRAINING if first else Lifecycle.RETRAINING


def find_awaited_approval(classifier: Classifier) -> Condition | None:
    """The condition that names the trained revision to approve; None if none waits for that.

    The v3 status stays `training` or `retraining` meanwhile: nothing has failed, and the new definition is not served yet.
    """
    promoted = classifier.status.condition(ConditionType.PROMOTED)
    if promoted is None or promoted.reason != PromotedReason.AWAITING_APPROVAL:
        return None
    # After an edit, the condition is still that of the revision before, and the new one has not been trained.
    current = current_revision(classifier)
    return promoted if any(entry.revision == current for entry in classifier.status.history) else None
