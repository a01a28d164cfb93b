"""The public bodies of v3, and the header of all answers. It must not know where the values come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ocelli_api.lifecycle import Lifecycle
from ocelli_api.times import format_time
from ocelli_gateway.errors import answer_refusal
from ocelli_gateway.refusals import GatewayError

TRANSACTION_HEADER = "X-Global-Transaction-Id"
"""Every answer has it: it names the exchange in the log."""


def wire_time(timestamp: str) -> str:
    """An RFC 3339 time in the format of v3: UTC with milliseconds and `Z`."""
    return format_time(datetime.fromisoformat(timestamp))


@dataclass(frozen=True, kw_only=True)
class ClassifierSummary:
    """A classifier in the brief list."""

    classifier_id: str
    name: str
    status: Lifecycle

    def to_json(self) -> dict[str, Any]:
        """The item of the list."""
        return {"classifier_id": self.classifier_id, "name": self.name, "status": str(self.status)}


@dataclass(frozen=True, kw_only=True)
class MeasuredAccuracy:
    """Accuracy of what is served, balanced over the classes, with its 95 % confidence interval; all are 0 to 1."""

    accuracy: float
    lower: float
    upper: float

    def to_json(self) -> dict[str, Any]:
        """The fields of the details."""
        return {
            "accuracy": round(self.accuracy, 3),
            "accuracy_interval": {"lower": round(self.lower, 3), "upper": round(self.upper, 3)},
        }


@dataclass(frozen=True, kw_only=True)
class TuningProgress:
    """How far fine-tuning is, which trains several networks one after another."""

    network: int
    networks: int
    epoch: int
    epochs: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is."""

    stage: str
    percent: int
    images: int | None = None
    images_total: int | None = None
    device: str | None = None
    accuracy: float | None = None
    fine_tuning: TuningProgress | None = None
    estimated_completion: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The field of the details, without what is not known."""
        estimated = None if self.estimated_completion is None else wire_time(self.estimated_completion)
        body = {
            "stage": self.stage.lower(),
            "percent": self.percent,
            "images": self.images,
            "images_total": self.images_total,
            "device": self.device,
            "accuracy": self.accuracy,
            "fine_tuning": None if self.fine_tuning is None else asdict(self.fine_tuning),
            "estimated_completion": estimated,
        }
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ClassifierDetails:
    """A classifier in the answers of create, retrain and details."""

    classifier_id: str
    name: str
    owner: str
    status: Lifecycle
    class_names: tuple[str, ...]
    created_at: str
    retrained_at: str | None
    explanation: str | None
    """Why it has failed, or what it waits for."""
    core_ml_enabled: bool = True
    accuracy: MeasuredAccuracy | None = None
    progress: TrainingProgress | None = None
    suspended: bool = False
    data_check: str | None = None
    """What the check of a suspended training found."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        created = wire_time(self.created_at)
        retrained = None if self.retrained_at is None else wire_time(self.retrained_at)
        body: dict[str, Any] = {
            "classifier_id": self.classifier_id,
            "name": self.name,
            "owner": self.owner,
            "status": str(self.status),
            "core_ml_enabled": self.core_ml_enabled,
            "created": created,
            "updated": retrained or created,
            "classes": [{"class": name} for name in self.class_names],
        }
        if retrained is not None:
            body["retrained"] = retrained
        if self.accuracy is not None:
            body.update(self.accuracy.to_json())
        if self.progress is not None:
            body["progress"] = self.progress.to_json()
        if self.suspended:
            body["suspended"] = True
        if self.data_check is not None:
            body["data_check"] = self.data_check
        if self.explanation:
            body["explanation"] = self.explanation
        return body


@dataclass(frozen=True, kw_only=True)
class ScoredClass:
    """One class in an answer of classify."""

    class_name: str
    score: float
    type_hierarchy: str | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"class": self.class_name, "score": self.score}
        if self.type_hierarchy is not None:
            body["type_hierarchy"] = self.type_hierarchy
        return body


@dataclass(frozen=True, kw_only=True)
class ClassifierAnswer:
    """The answer of one classifier for one image: the classes that reach the threshold."""

    classifier_id: str
    name: str
    is_custom: bool
    classes: tuple[ScoredClass, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "classifier_id": self.classifier_id,
            "name": self.name,
            "classes": [item.to_json() for item in self.classes],
        }


@dataclass(frozen=True, kw_only=True)
class ImageOrigin:
    """Which image of a request: an upload by its name, or one by URL."""

    name: str | None = None
    source_url: str | None = None
    resolved_url: str | None = None

    def to_json(self) -> dict[str, Any]:
        values = {"image": self.name, "source_url": self.source_url, "resolved_url": self.resolved_url}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ImageAnswer:
    """The answer for one image: classifiers with their classes, or an error."""

    origin: ImageOrigin
    classifiers: tuple[ClassifierAnswer, ...] = ()
    error: GatewayError | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"classifiers": [item.to_json() for item in self.classifiers], **self.origin.to_json()}
        if self.error is not None:
            answer = answer_refusal(self.error)
            body["error"] = {"code": answer.status, "description": answer.message, "error_id": answer.error_id}
        return body


class WarningId(StrEnum):
    """The warnings of classify."""

    LIMIT_REACHED = "limit_reached"
    UNKNOWN_CLASSIFIER_IDS = "unknown_classifier_ids"
    CLASSIFIER_NOT_READY = "classifier_not_ready"
    CLASSIFIER_UNAVAILABLE = "classifier_unavailable"
    INVALID_ZIP = "invalid_zip"


@dataclass(frozen=True, kw_only=True)
class ClassifyWarning:
    """A problem that did not prevent the answer."""

    warning_id: WarningId
    description: str

    def to_json(self) -> dict[str, Any]:
        return {"warning_id": str(self.warning_id), "description": self.description}


def classify_body(images: Sequence[ImageAnswer], warnings: Iterable[ClassifyWarning]) -> dict[str, Any]:
    """The body of classify. `custom_classes` counts the distinct pairs of custom classifier and class that it holds."""
    pairs = {
        (answer.classifier_id, item.class_name)
        for image in images
        for answer in image.classifiers
        if answer.is_custom
        for item in answer.classes
    }
    body: dict[str, Any] = {
        "images": [image.to_json() for image in images],
        "images_processed": len(images),
        "custom_classes": len(pairs),
    }
    found = [warning.to_json() for warning in warnings]
    if found:
        body["warnings"] = found
    return body
