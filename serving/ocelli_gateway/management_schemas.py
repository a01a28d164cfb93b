"""JSON Schemas of the bodies of the management API, by name. It must not know which operation answers with which body."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.lifecycle import Lifecycle
from ocelli_gateway.cards import Manager
from ocelli_gateway.fields import Schema
from ocelli_gateway.schemas import NOT_EMPTY, SHARE, SUMMARY, TIME, closed, reference

REVISION: Schema = {"type": "string", "pattern": "^[0-9a-f]{10}$"}
COUNT: Schema = {"type": "integer", "minimum": 0}
_CARD: dict[str, Schema] = {
    **SUMMARY,
    "resource": {"type": "string", "description": "Namespace and name of the Classifier, such as `team-a/birds-19`."},
    "status": {"type": "string", "enum": [str(status) for status in Lifecycle]},
    "reason": {**NOT_EMPTY, "description": "The reason of its condition `Ready`."},
    "explanation": {**NOT_EMPTY, "description": "Why it has failed, or what it waits for."},
    "created": TIME,
    "updated": {**TIME, "description": "When a training last ended, or a condition last changed."},
    "managed_by": {"type": "string", "enum": [str(manager) for manager in Manager], "description": "What it is changed with."},
    "writable": {"type": "boolean", "description": "Whether this API may change it."},
    "class_count": {"type": "integer", "minimum": 1},
    "suspended": {"const": True, "description": "Its data is only checked."},
    "accuracy": reference("ShownAccuracy"),
    "progress": reference("TrainingProgress"),
    "served_revision": {**REVISION, "description": "The one that answers."},
    "current_revision": {**REVISION, "description": "The one that should answer."},
    "training_revision": {**REVISION, "description": "The one in training."},
    "awaits_approval": {**REVISION, "description": "The one that serves once it is approved."},
}
_CARD_OPTIONAL = (
    "reason",
    "explanation",
    "managed_by",
    "class_count",
    "suspended",
    "accuracy",
    "progress",
    "served_revision",
    "training_revision",
    "awaits_approval",
)

MANAGEMENT_SCHEMAS: Mapping[str, Schema] = {
    "ShownAccuracy": closed(
        {"value": SHARE, "lower": SHARE, "upper": SHARE, "images": COUNT},
        optional=("images",),
        description="Balanced over the classes, with its 95 % confidence interval, and the images that it was measured on.",
    ),
    "Card": closed(_CARD, optional=_CARD_OPTIONAL),
    "Cards": closed({"classifiers": {"type": "array", "items": reference("Card")}}),
}
