"""Failures that need a person, and the record of the last one. Pure.

v1alpha1 has no field of its own for that record: it is spread over `failedRevision`, `failedTrainingHash`, `failedRolloutHash`,
`observedRetrainNonce` and three conditions, all written together. Only `find_last_failure` and `record_last_failure` know that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocelli_api.classifier import Classifier, ClassifierSpec
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_api.conditions import ConditionStatus, ConditionType, DataValidReason, StalledReason, TrainedReason
from ocelli_api.outcome import Outcome, OutcomeReason
from ocelli_operator.status import NOT_CHECKED, Verdict, false

TRAINING_FAILURES = frozenset(
    {
        StalledReason.INVALID_DATA,
        StalledReason.SOURCE_UNREADABLE,
        StalledReason.TRAINING_FAILED,
        StalledReason.TRAINING_DIVERGED,
        StalledReason.GPU_OUT_OF_MEMORY,
    }
)
_OF_FINE_TUNING = frozenset({OutcomeReason.TRAINING_DIVERGED, OutcomeReason.GPU_OUT_OF_MEMORY})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a person must act."""

    reason: str
    """A `StalledReason`; read from status perhaps one of a later release."""
    message: str
    """Object, fact and remedy."""
    data_valid: Verdict
    trained: Verdict
    rollout_hash: str | None = None
    """Hash of the Deployment whose rollout failed: another one is a reason to try again."""


@dataclass(frozen=True, kw_only=True)
class LastFailure:
    """A failure, and what has to change before the operator tries again."""

    failure: Failure
    revision: str
    retrain_nonce: int
    training_hash: str | None
    """Of the `spec.training` under which it failed."""


def find_last_failure(status: ClassifierStatus) -> LastFailure | None:
    """The failure that status records."""
    stalled = status.condition(ConditionType.STALLED)
    if stalled is None or stalled.status is not ConditionStatus.TRUE or status.failed_revision is None:
        return None
    failure = Failure(
        reason=stalled.reason,
        message=stalled.message,
        data_valid=_find_verdict(status, ConditionType.DATA_VALID) or NOT_CHECKED,
        trained=_find_verdict(status, ConditionType.TRAINED) or false(TrainedReason.TRAINING_FAILED, stalled.message),
        rollout_hash=status.failed_rollout_hash,
    )
    return LastFailure(
        failure=failure,
        revision=status.failed_revision,
        retrain_nonce=status.observed_retrain_nonce,
        training_hash=status.failed_training_hash,
    )


def record_last_failure(status: ClassifierStatus, last: LastFailure | None) -> ClassifierStatus:
    """Status with this record, or with none. The conditions follow from the failure's verdicts."""
    if last is None:
        return replace(status, failed_revision=None, failed_training_hash=None, failed_rollout_hash=None)
    return replace(
        status,
        failed_revision=last.revision,
        failed_training_hash=last.training_hash,
        failed_rollout_hash=last.failure.rollout_hash,
        observed_retrain_nonce=last.retrain_nonce,
    )


def _find_verdict(status: ClassifierStatus, condition_type: ConditionType) -> Verdict | None:
    found = status.condition(condition_type)
    return None if found is None else Verdict(status=found.status, reason=found.reason, message=found.message)


def failed_learning(reason: StalledReason, message: str) -> Failure:
    """A training that failed, or that cannot start. `DataValid` and `Trained` have reasons of the same names."""
    about_data = reason in (StalledReason.INVALID_DATA, StalledReason.SOURCE_UNREADABLE)
    return Failure(
        reason=reason,
        message=message,
        data_valid=false(DataValidReason(reason), message) if about_data else NOT_CHECKED,
        trained=false(TrainedReason(reason), message),
    )


def failed_outcome(spec: ClassifierSpec, outcome: Outcome) -> Failure:
    """A training whose trainer reported the failure."""
    if outcome.reason in _OF_FINE_TUNING:
        return failed_learning(StalledReason(outcome.reason), outcome.message)
    if outcome.reason not in (OutcomeReason.INVALID_DATA, OutcomeReason.SOURCE_UNREADABLE):
        return failed_learning(StalledReason.TRAINING_FAILED, outcome.message)
    message = outcome.message
    # Files behind a URL can be corrected without a change of the spec. An upload can only be replaced, which changes the spec.
    if spec.pretrained is not None:
        message = f"{message.rstrip('.')}; then raise spec.retrainNonce to have it tried again"
    elif any(source.url for source in spec.sources):
        message = f"{message.rstrip('.')}; then raise spec.retrainNonce to read the sources again"
    return failed_learning(StalledReason(outcome.reason), message)


def revision_not_found(classifier: Classifier, revision: str) -> Failure:
    """A pin to a revision that was never trained, or that was removed from the history."""
    known = ", ".join(entry.revision for entry in classifier.status.history)
    choice = f"pin one of {known}, or remove the pin" if known else "remove the pin"
    message = f"{classifier}: spec.pinnedRevision names revision {revision}, which has no artifact; {choice}"
    return failed_learning(StalledReason.REVISION_NOT_FOUND, message)
