"""The trainer's outcome: the container's termination message and, in full, a document in the object store.

A termination message has at most 4,096 bytes. Other tools read it too, so it is limited to 2 KiB here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from functools import partial
from typing import Any, TypeGuard

from ocelli_api.documents import build_document, parse_fields, read_by
from ocelli_api.texts import clean_text, usable_count, usable_number, usable_share, usable_text, usable_time

TERMINATION_MESSAGE_LIMIT_BYTES = 2048
BACKBONE_LIMIT = 512
"""Characters of `backbone` in the status of a Classifier."""
DIGEST_LIMIT = 128
"""Characters of `artifactDigest` in the status of a Classifier."""
BASELINE_LIMIT = 10
"""Characters of `comparison.baseline` in the status of a Classifier."""
FAULT_LIMIT = 512
"""Characters of `comparison.fault` in the status of a Classifier."""
DEVICE_LIMIT = 64
"""Characters of `progress.device` in the status of a Classifier."""
IMAGES_LIMIT = 2**31 - 1
"""Highest number of images in the status of a Classifier."""
_COUNT_LIMIT = 1000
"""Highest number of networks and of epochs in the status of a Classifier."""
_LOSS_LIMIT = 1e6


class ExitCode(IntEnum):
    """Exit codes of the trainer that the Job's `podFailurePolicy` distinguishes."""

    SUCCEEDED = 0
    FAILED = 1
    """An unexpected error, or a transient one that outlasted the trainer's own retries. The Job may retry."""
    INVALID_DATA = 64
    """Examples or sources are not sufficient for a training. A retry without a change cannot succeed."""
    MISCONFIGURED = 65
    """The installation lacks something that the training needs, such as a backbone or space in the store. A retry cannot
    succeed."""
    WORKER_LOST = 66
    """Another worker of the training ended: this one starts again with it. It does not count as a retry."""


class EvaluationProtocol(StrEnum):
    """Which images were evaluated, and by which heads."""

    CROSS_VALIDATION = "CrossValidation"
    """All examples, each by heads that were trained without it."""
    TEST_SET = "TestSet"
    """The Classifier's own test set, by the served heads."""


class OutcomeReason(StrEnum):
    """Why a training ended."""

    SUCCEEDED = "Succeeded"
    INVALID_DATA = "InvalidData"
    """The bytes that were read are not sufficient for a training."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be downloaded."""
    BACKBONE_UNAVAILABLE = "BackboneUnavailable"
    """The backbone is not installed or could not be loaded."""
    NOT_IMPROVED = "NotImproved"
    """It succeeded, but fine-tuning did not improve on the linear heads, which are the result."""
    TRAINING_DIVERGED = "TrainingDiverged"
    """Fine-tuning ended in numbers that are not finite."""
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    """Half a batch does not fit into the memory of the GPU."""
    FAILED = "Failed"
    """Anything else."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The trained revision compared with the one that served, on images that neither learned from."""

    baseline: str
    """The revision that served."""
    drop: float | None = None
    """How much lower the balanced accuracy of the trained revision is, -1 to 1. None: they cannot be compared."""
    drop_interval: tuple[float, float] | None = None
    """Lower and upper end of its 95 % confidence interval."""
    images: int = 0
    """Number of images that both were judged on."""
    reclassified: int = 0
    """Number of images left out because the revisions learned different classes for them."""
    fault: str | None = None
    """Why they cannot be compared."""


def parse_comparison(document: object) -> Comparison | None:
    """The comparison in an outcome; None if it is not usable, because Pods of the tenant can write any content."""
    if not isinstance(document, Mapping):
        return None
    baseline, fault = usable_text(document.get("baseline"), BASELINE_LIMIT), usable_text(document.get("fault"), FAULT_LIMIT)
    drop, interval = document.get("drop"), document.get("dropInterval")
    images, reclassified = document.get("images"), document.get("reclassified", 0)
    if baseline is None:
        return None
    if _is_share(drop) and isinstance(interval, list | tuple) and len(interval) == 2 and all(map(_is_share, interval)):
        if not (_is_count(images) and images and _is_count(reclassified)):
            return None
        return Comparison(
            baseline=baseline,
            drop=drop,
            drop_interval=(interval[0], interval[1]),
            images=images,
            reclassified=reclassified,
        )
    return None if fault is None else Comparison(baseline=baseline, fault=fault)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= IMAGES_LIMIT


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt to train a revision ended."""

    reason: OutcomeReason
    message: str = field(metadata=read_by(clean_text))
    """One or two sentences: object, fact, remedy."""
    revision: str
    attempt: int
    accuracy: float | None = field(default=None, metadata=read_by(usable_number))
    """Balanced over the classes if there is an interval. Outcomes of earlier releases have none and are not balanced."""
    accuracy_interval: tuple[float, float] | None = None
    """Lower and upper end of the 95 % confidence interval."""
    judged_images: int | None = field(default=None, metadata=read_by(usable_number))
    """Number of images that the accuracy was measured on, negative examples included."""
    excluded_images: int | None = field(default=None, metadata=read_by(usable_number))
    """Number of images of the test set that are left out, because they are examples or near duplicates of examples. None: there
    is no test set."""
    artifact_digest: str | None = field(default=None, metadata=read_by(partial(usable_text, limit=DIGEST_LIMIT)))
    backbone: str | None = field(default=None, metadata=read_by(partial(usable_text, limit=BACKBONE_LIMIT)))
    """The backbone that was used and why, such as `EfficientNetLite0 (Auto)`."""
    backbone_digest: str | None = field(default=None, metadata=read_by(partial(usable_text, limit=DIGEST_LIMIT)))
    comparison: Comparison | None = field(default=None, metadata=read_by(parse_comparison))
    """None: nothing served when the training started, or an earlier release trained it."""
    finished_at: str | None = field(default=None, metadata=read_by(usable_time))
    """RFC 3339, UTC, with milliseconds."""

    @property
    def succeeded(self) -> bool:
        return self.reason in (OutcomeReason.SUCCEEDED, OutcomeReason.NOT_IMPROVED)

    def to_json(self) -> dict[str, Any]:
        """The document to store. Fields that are None are left out."""
        return build_document(replace(self, message=clean_text(self.message)))

    def to_termination_message(self) -> str:
        """The document as JSON of at most 2 KiB. A message that is too long is cut; the other fields are complete."""
        document = self.to_json()
        text = json.dumps(document, ensure_ascii=False)
        message = clean_text(self.message)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT_BYTES and message:
            excess = len(text.encode()) - TERMINATION_MESSAGE_LIMIT_BYTES
            message = message[: max(0, len(message) - max(1, excess // 4) - 1)]
            text = json.dumps({**document, "message": message + "…"}, ensure_ascii=False)
        return text


def parse_termination_message(text: str) -> Outcome | None:
    """The outcome in a termination message, or None if there is none (after a crash or a kill)."""
    try:
        document = json.loads(text)
        return parse_fields(Outcome, document) if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        return None


class Stage(StrEnum):
    """Steps of a training."""

    READING = "Reading"
    """Sources are downloaded and checked."""
    CHECKING = "Checking"
    """Examples are compared with each other, in a check before the training."""
    EXTRACTING = "Extracting"
    """Backbone features are computed."""
    FITTING = "Fitting"
    EVALUATING = "Evaluating"
    STORING = "Storing"


@dataclass(frozen=True, kw_only=True)
class TuningProgress:
    """How far fine-tuning is, which trains several networks one after another."""

    network: int
    """The network in training, 1 to `networks`. The last one is the one that is stored."""
    networks: int
    epoch: int
    """The epoch in training, 1 to `epochs`."""
    epochs: int
    """The largest number of epochs of this network."""
    loss: float
    """Of the last step, on images that the network learns from."""


def parse_tuning_progress(document: object) -> TuningProgress | None:
    """The progress of fine-tuning; None if it is not usable, because Pods of the tenant can write any content."""
    if not isinstance(document, Mapping):
        return None
    counts = [document.get(name, 0) for name in ("network", "networks", "epoch", "epochs")]
    if not all(isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= _COUNT_LIMIT for count in counts):
        return None
    loss = usable_number(document.get("loss"))
    if loss is None or not 0 <= loss <= _LOSS_LIMIT:
        return None
    network, networks, epoch, epochs = counts
    return TuningProgress(network=network, networks=networks, epoch=epoch, epochs=epochs, loss=float(loss))


@dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """The small document that a trainer rewrites in the store every two seconds."""

    stage: Stage
    percent: int = field(metadata=read_by(int))
    data_valid: bool
    """All sources were read, and there are enough examples."""
    estimated_completion: str | None = field(default=None, metadata=read_by(usable_time))
    images: int | None = field(default=None, metadata=read_by(partial(usable_count, limit=IMAGES_LIMIT)))
    """Images of the stage that are done; None: the stage does not count images."""
    images_total: int | None = field(default=None, metadata=read_by(partial(usable_count, limit=IMAGES_LIMIT)))
    """All images of the stage."""
    device: str | None = field(default=None, metadata=read_by(partial(usable_text, limit=DEVICE_LIMIT)))
    """What computes, such as `OpenVINO CPU float32`; None: it is not known yet."""
    accuracy: float | None = field(default=None, metadata=read_by(usable_share))
    """Balanced accuracy, 0 to 1; None: the revision is not evaluated yet."""
    fine_tuning: TuningProgress | None = field(default=None, metadata=read_by(parse_tuning_progress))
    """None: it has not begun, or there is none."""

    def to_json(self) -> dict[str, Any]:
        return {**build_document(self), "estimatedCompletion": self.estimated_completion}
