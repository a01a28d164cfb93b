"""What answers show of a Classifier's status: progress, accuracy, what its check found and what is wrong."""

from __future__ import annotations

from dataclasses import asdict

from ocelli_api.classifier import Classifier
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_api.conditions import ConditionType, TrainedReason
from ocelli_api.lifecycle import Lifecycle, find_awaited_approval, lifecycle
from ocelli_gateway.wire import MeasuredAccuracy, TrainingProgress, TuningProgress


def find_data_check(status: ClassifierStatus) -> str | None:
    """What the check of a suspended training found."""
    trained, data_valid = status.condition(ConditionType.TRAINED), status.condition(ConditionType.DATA_VALID)
    if trained is None or trained.reason != TrainedReason.SUSPENDED or data_valid is None:
        return None
    return data_valid.message if status.is_true(ConditionType.DATA_VALID) else None


def explain(classifier: Classifier) -> str | None:
    """Why it has failed, or what its trained revision waits for."""
    failed = lifecycle(classifier) is Lifecycle.FAILED
    condition = classifier.status.condition(ConditionType.STALLED) if failed else find_awaited_approval(classifier)
    # REST users do not know the names of objects.
    return None if condition is None else condition.message.removeprefix(f"{classifier}: ")


def read_progress(status: ClassifierStatus) -> TrainingProgress | None:
    """The progress in status; None if no training is running."""
    progress = status.progress
    if progress is None:
        return None
    tuning = progress.fine_tuning
    return TrainingProgress(
        stage=progress.stage,
        percent=progress.percent,
        images=progress.images,
        images_total=progress.images_total,
        device=progress.device,
        accuracy=None if progress.accuracy is None else float(progress.accuracy),
        fine_tuning=None if tuning is None else TuningProgress(**{**asdict(tuning), "loss": float(tuning.loss)}),
        estimated_completion=progress.estimated_completion,
    )


def read_accuracy(status: ClassifierStatus) -> MeasuredAccuracy | None:
    """The accuracy of the served revision; None if an earlier release trained it, without balancing and without an interval."""
    interval = status.accuracy_interval
    if status.served_revision is None or status.accuracy is None or interval is None:
        return None
    return MeasuredAccuracy(accuracy=float(status.accuracy), lower=float(interval.lower), upper=float(interval.upper))
