"""The trainer's outcome: what a finished training says, as its container's termination message and, with detail, in the store.

A termination message holds at most 4,096 bytes and other tools read it too, hence the limit of 2 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from ocelli_api.texts import clean_text, usable_text, usable_time

TERMINATION_MESSAGE_LIMIT_BYTES = 2048
BACKBONE_LIMIT = 512
"""Characters of a backbone as resolved, in the status of a Classifier."""


class ExitCode(IntEnum):
    """Exit codes of the trainer that the Job's `podFailurePolicy` tells apart."""

    SUCCEEDED = 0
    FAILED = 1
    """Something unexpected, or a transient fault that outlasted the trainer's own retries: the Job may try again."""
    INVALID_DATA = 64
    """The examples or their sources do not allow a training: trying again without a change is in vain."""
    MISCONFIGURED = 65
    """The installation lacks something that this training needs, such as a backbone or room in the store: trying again is in
    vain."""


class OutcomeReason(StrEnum):
    """Why a training ended."""

    SUCCEEDED = "Succeeded"
    INVALID_DATA = "InvalidData"
    """The bytes that were read do not allow a training."""
    SOURCE_UNREADABLE = "SourceUnreadable"
    """A source could not be fetched."""
    BACKBONE_UNAVAILABLE = "BackboneUnavailable"
    """The named backbone is not installed or could not be loaded."""
    FAILED = "Failed"
    """Anything else."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a revision ended."""

    reason: OutcomeReason
    message: str
    """One sentence or two: object, fact, remedy."""
    revision: str
    attempt: int
    accuracy: float | None = None
    """Balanced over the classes where there is an interval; outcomes of earlier releases have none, and are not balanced."""
    accuracy_interval: tuple[float, float] | None = None
    """Lower and upper end of its 95 % confidence interval."""
    judged_images: int | None = None
    """How many images the accuracy was measured on, negatives included."""
    artifact_digest: str | None = None
    backbone: str | None = None
    """The backbone as resolved, with why, such as `EfficientNetLite0 (Auto)`."""
    backbone_digest: str | None = None
    finished_at: str | None = None
    """RFC 3339, UTC, with milliseconds."""

    @property
    def succeeded(self) -> bool:
        return self.reason is OutcomeReason.SUCCEEDED

    def to_json(self) -> dict[str, Any]:
        """The document that is stored; absent values are left out."""
        document = {
            "reason": str(self.reason),
            "message": clean_text(self.message),
            "revision": self.revision,
            "attempt": self.attempt,
            "accuracy": self.accuracy,
            "accuracyInterval": None if self.accuracy_interval is None else list(self.accuracy_interval),
            "judgedImages": self.judged_images,
            "artifactDigest": self.artifact_digest,
            "backbone": self.backbone,
            "backboneDigest": self.backbone_digest,
            "finishedAt": self.finished_at,
        }
        return {key: value for key, value in document.items() if value is not None}

    def to_termination_message(self) -> str:
        """The same as JSON of at most 2 KiB: a message that is too long is cut, everything else stays."""
        document = self.to_json()
        text = json.dumps(document, ensure_ascii=False)
        message = clean_text(self.message)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT_BYTES and message:
            excess = len(text.encode()) - TERMINATION_MESSAGE_LIMIT_BYTES
            message = message[: max(0, len(message) - max(1, excess // 4) - 1)]
            text = json.dumps({**document, "message": message + "…"}, ensure_ascii=False)
        return text

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Outcome:
        """Type a stored outcome. The API server refuses a whole status for one value that the CRD does not allow, so wrong ones
        that can be spared are left out.

        Raises:
            KeyError, ValueError, TypeError: it is none.
        """
        message, revision, attempt = document["message"], document["revision"], document["attempt"]
        if not (isinstance(message, str) and isinstance(revision, str) and isinstance(attempt, int)):
            raise TypeError("an outcome has the texts message and revision, and the number attempt")
        return cls(
            reason=OutcomeReason(document["reason"]),
            message=clean_text(message),
            revision=revision,
            attempt=attempt,
            accuracy=document.get("accuracy"),
            accuracy_interval=_parse_interval(document.get("accuracyInterval")),
            judged_images=document.get("judgedImages"),
            artifact_digest=document.get("artifactDigest"),
            backbone=usable_text(document.get("backbone"), BACKBONE_LIMIT),
            backbone_digest=document.get("backboneDigest"),
            finished_at=usable_time(document.get("finishedAt")),
        )


def _parse_interval(interval: Any) -> tuple[float, float] | None:
    if interval is None:
        return None
    lower, upper = interval
    return lower, upper


def parse_termination_message(text: str) -> Outcome | None:
    """The outcome in a termination message, or None where it holds none (a crash, a kill)."""
    try:
        document = json.loads(text)
        return Outcome.parse(document) if isinstance(document, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Stage(StrEnum):
    """What a running training is doing."""

    READING = "Reading"
    """Sources are fetched and checked."""
    EXTRACTING = "Extracting"
    """Backbone features are computed."""
    FITTING = "Fitting"
    EVALUATING = "Evaluating"
    STORING = "Storing"


@dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """The small file that a trainer rewrites in the store every two seconds."""

    stage: Stage
    percent: int
    data_valid: bool
    """Every source was read and the examples suffice."""
    estimated_completion: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": str(self.stage),
            "percent": self.percent,
            "dataValid": self.data_valid,
            "estimatedCompletion": self.estimated_completion,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ProgressReport:
        return cls(
            stage=Stage(document["stage"]),
            percent=int(document["percent"]),
            data_valid=bool(document["dataValid"]),
            estimated_completion=usable_time(document.get("estimatedCompletion")),
        )
