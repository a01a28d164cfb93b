"""JSON Schemas of the public bodies, by name: what `wire` and `errors` write, as the OpenAPI document shows it.

Objects are closed: a key that is not here must not be in an answer. It must not know which operation answers with which body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ocelli_api.classifier import DISPLAY_NAME_LIMIT
from ocelli_api.lifecycle import Lifecycle
from ocelli_api.outcome import Stage
from ocelli_gateway.errors import ERROR_IDS
from ocelli_gateway.fields import CLASSIFIER_ID, Schema
from ocelli_gateway.wire import WarningId


def reference(name: str) -> Schema:
    """A schema of that name, as other schemas point to it."""
    return {"$ref": f"#/components/schemas/{name}"}


def closed(properties: Mapping[str, Schema], *, optional: Iterable[str] = (), **more: Any) -> Schema:
    """The schema of an object without other properties than these."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
        **more,
    }


TEXT: Schema = {"type": "string"}
NOT_EMPTY: Schema = {"type": "string", "minLength": 1}
TIME: Schema = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_CODE: Schema = {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."}
_STATUS: Schema = {"type": "string", "enum": [str(status) for status in Lifecycle]}
ERROR: dict[str, Schema] = {
    "code": _CODE,
    "error": {**NOT_EMPTY, "description": "One sentence for people."},
    "error_id": {"type": "string", "enum": list(ERROR_IDS)},
}
SUMMARY: dict[str, Schema] = {
    "classifier_id": CLASSIFIER_ID.schema,
    "name": {"type": "string", "minLength": 1, "maxLength": DISPLAY_NAME_LIMIT},
}
_CLASSIFIED: dict[str, Schema] = {
    "images": {"type": "array", "items": reference("ClassifiedImage")},
    "images_processed": {"type": "integer", "minimum": 0, "description": "Images that were tried, failed ones too."},
    "custom_classes": {
        "type": "integer",
        "minimum": 0,
        "description": "Distinct pairs of custom classifier and class in this answer.",
    },
}

SCHEMAS: Mapping[str, Schema] = {
    "Error": closed(ERROR),
    "Empty": closed({}),
    "Class": closed({"class": NOT_EMPTY}),
    "Classifier": closed(
        {
            **SUMMARY,
            "owner": {**NOT_EMPTY, "description": "The same on all classifiers of one set of credentials."},
            "status": _STATUS,
            "core_ml_enabled": {"type": "boolean", "description": "Whether it can be downloaded as Core ML once it is ready."},
            "created": TIME,
            "updated": {**TIME, "description": "`retrained` where that is present, else `created`."},
            "retrained": {**TIME, "description": "When the last retraining finished."},
            "accuracy": {
                **SHARE,
                "description": "Of what is served: the mean over the classes of the share of images that is recognised.",
            },
            "accuracy_interval": reference("AccuracyInterval"),
            "progress": reference("TrainingProgress"),
            "explanation": {**NOT_EMPTY, "description": "Why it has failed, or what its trained revision waits for."},
            "suspended": {"type": "boolean", "description": "Images are only checked: see `suspend` of create and retrain."},
            "data_check": {**NOT_EMPTY, "description": "What the check found, once it has ended."},
            "classes": {"type": "array", "items": reference("Class")},
        },
        optional=("retrained", "accuracy", "accuracy_interval", "progress", "explanation", "suspended", "data_check"),
        dependentRequired={"accuracy": ["accuracy_interval"], "accuracy_interval": ["accuracy"]},
    ),
    "AccuracyInterval": closed({"lower": SHARE, "upper": SHARE}, description="The 95 % confidence interval of `accuracy`."),
    "TrainingProgress": closed(
        {
            "stage": {"type": "string", "enum": [str(stage).lower() for stage in Stage]},
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            "images": {"type": "integer", "minimum": 0, "description": "Images of the stage that are done."},
            "images_total": {"type": "integer", "minimum": 0, "description": "All images of the stage."},
            "device": {**NOT_EMPTY, "description": "What computes, such as `OpenVINO CPU float32`."},
            "accuracy": {**SHARE, "description": "Of the revision in training, as soon as it is evaluated."},
            "fine_tuning": reference("TuningProgress"),
            "estimated_completion": TIME,
        },
        optional=("images", "images_total", "device", "accuracy", "fine_tuning", "estimated_completion"),
        description="The running training, at most ten seconds old. Absent if none is running.",
    ),
    "TuningProgress": closed(
        {
            "network": {"type": "integer", "minimum": 1, "description": "The network in training. The last one is served."},
            "networks": {"type": "integer", "minimum": 1, "description": "How many are trained, one after another."},
            "epoch": {"type": "integer", "minimum": 1, "description": "The epoch in training."},
            "epochs": {"type": "integer", "minimum": 1, "description": "Highest number of epochs of this network."},
            "loss": {"type": "number", "minimum": 0, "description": "Of the last step."},
        },
        description="How far fine-tuning is. Absent before and after it, and with other strategies.",
    ),
    "ClassifierSummary": closed({**SUMMARY, "status": _STATUS}),
    "Classifiers": closed(
        {
            "classifiers": {
                "anyOf": [
                    {"type": "array", "items": reference("ClassifierSummary")},
                    {"type": "array", "items": reference("Classifier")},
                ]
            }
        }
    ),
    "ClassResult": closed(
        {
            "class": NOT_EMPTY,
            "score": SHARE,
            "type_hierarchy": {
                "type": "string",
                "pattern": "^/",
                "description": "Where the class stands in a hierarchy, such as `/animal/bird/owl`.",
            },
        },
        optional=("type_hierarchy",),
    ),
    "ClassifierResult": closed(
        {
            "classifier_id": NOT_EMPTY,
            "name": NOT_EMPTY,
            "classes": {"type": "array", "items": reference("ClassResult")},
        }
    ),
    "ImageError": closed({"code": _CODE, "description": NOT_EMPTY, "error_id": ERROR["error_id"]}),
    "ClassifiedImage": closed(
        {
            "classifiers": {"type": "array", "items": reference("ClassifierResult")},
            "image": {**TEXT, "description": "File name of an upload; in a zip `{zip}/{path}`."},
            "source_url": {**TEXT, "description": "The URL as it was given."},
            "resolved_url": {**TEXT, "description": "The URL after redirects."},
            "error": reference("ImageError"),
        },
        optional=("image", "source_url", "resolved_url", "error"),
        oneOf=[{"required": ["image"]}, {"required": ["source_url"]}],
    ),
    "Warning": closed(
        {"warning_id": {"type": "string", "enum": [str(warning) for warning in WarningId]}, "description": NOT_EMPTY}
    ),
    "ClassifiedImages": closed(
        {**_CLASSIFIED, "warnings": {"type": "array", "minItems": 1, "items": reference("Warning")}}, optional=("warnings",)
    ),
    "ClassifyError": closed({**ERROR, **_CLASSIFIED}, optional=_CLASSIFIED),
    "Token": closed(
        {
            "access_token": NOT_EMPTY,
            "refresh_token": TEXT,
            "token_type": {"const": "Bearer"},
            "expires_in": {"type": "integer", "minimum": 1},
            "expiration": {"type": "integer", "description": "When it expires, in seconds since 1970."},
            "scope": TEXT,
        }
    ),
    "TokenError": closed(
        {"errorCode": NOT_EMPTY, "errorMessage": NOT_EMPTY, **ERROR}, optional=("errorCode", "errorMessage", "error_id")
    ),
}
