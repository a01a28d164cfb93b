"""JSON Schemas of the bodies of the management API, by name. It must not know which operation answers with which body."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.lifecycle import Lifecycle
from ocelli_api.revision import REVISION_PATTERN
from ocelli_gateway.cards import Manager
from ocelli_gateway.fields import CLASSIFIER_ID, Schema
from ocelli_gateway.limits import LIMITS
from ocelli_gateway.management_fields import DIGEST_SCHEMA
from ocelli_gateway.schemas import ERROR, NOT_EMPTY, SHARE, SUMMARY, TIME, closed, reference

REVISION: Schema = {"type": "string", "pattern": f"^{REVISION_PATTERN}$"}
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

_SOURCES: Schema = {"type": "array", "items": reference("Source")}
_DIFFERENCE: Schema = {"type": "number", "minimum": -1, "maximum": 1}

MANAGEMENT_SCHEMAS: Mapping[str, Schema] = {
    "ShownAccuracy": closed(
        {"value": SHARE, "lower": SHARE, "upper": SHARE, "images": COUNT},
        optional=("images",),
        description="Balanced over the classes, with its 95 % confidence interval, and the images that it was measured on.",
    ),
    "Card": closed(_CARD, optional=_CARD_OPTIONAL),
    "Session": closed(
        {
            "user": NOT_EMPTY,
            "namespace": {**NOT_EMPTY, "description": "Of the caller's classifiers."},
            "owner": {**NOT_EMPTY, "description": "The same as in the details of v3."},
            "version": {**NOT_EMPTY, "description": "Of this installation."},
            "built_ins": {"type": "array", "items": NOT_EMPTY, "description": "Ids of the built-in classifiers that it has."},
            "limits": closed({name: {"type": "integer", "minimum": 1} for name in LIMITS}),
            "quota": {
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 1},
                "description": "What the caller may have at most; without a quota it is left out.",
            },
        }
    ),
    "Source": closed(
        {
            "url": NOT_EMPTY,
            "upload": {**DIGEST_SCHEMA, "description": "SHA-256 of an uploaded zip."},
            "sha256": {**DIGEST_SCHEMA, "description": "The required digest of what is at the URL."},
            "bytes": {**COUNT, "description": "Of the upload."},
            "round": {**COUNT, "description": "An image in two classes belongs to the one of the later round."},
            "erased": {"const": True, "description": "The images were erased, as user data."},
        },
        optional=("url", "upload", "sha256", "bytes", "erased"),
        oneOf=[{"required": ["url"]}, {"required": ["upload"]}],
    ),
    "ClassSources": closed({"class": NOT_EMPTY, "sources": _SOURCES}),
    "Condition": closed(
        {"type": NOT_EMPTY, "status": NOT_EMPTY, "reason": NOT_EMPTY, "message": NOT_EMPTY, "changed": TIME},
        optional=("reason", "message", "changed"),
    ),
    "BaselineComparison": closed(
        {
            "baseline": {**REVISION, "description": "The revision that served when it was trained."},
            "drop": {**_DIFFERENCE, "description": "How much lower the accuracy is; below 0: it is higher."},
            "lower": {**_DIFFERENCE, "description": "Lower end of its 95 % interval."},
            "upper": _DIFFERENCE,
            "images": {**COUNT, "description": "Images that both were judged on."},
            "fault": {**NOT_EMPTY, "description": "Why the two cannot be compared."},
        },
        optional=("drop", "lower", "upper", "images", "fault"),
    ),
    "HistoryEntry": closed(
        {
            "revision": REVISION,
            "trained": TIME,
            "promoted": {**TIME, "description": "When it first served."},
            "accuracy": reference("ShownAccuracy"),
            "comparison": reference("BaselineComparison"),
            "served": {"type": "boolean"},
            "current": {"type": "boolean"},
            "pinned": {"type": "boolean"},
            "stored": {"type": "boolean", "description": "It still exists, so it can be pinned."},
        },
        optional=("promoted", "accuracy", "comparison"),
    ),
    "Correction": closed(
        {"image": DIGEST_SCHEMA, "class": {"type": "string", "description": "Empty: the image is not used."}},
    ),
    "Details": closed(
        {
            **_CARD,
            "classes": {"type": "array", "items": reference("ClassSources")},
            "negative_sources": _SOURCES,
            "threshold": {**SHARE, "description": "The one of classify where a request gives none."},
            "backbone": {**NOT_EMPTY, "description": "The one that was used."},
            "endpoint": {**NOT_EMPTY, "description": "Address of its inference servers in the cluster."},
            "conditions": {"type": "array", "items": reference("Condition")},
            "history": {"type": "array", "items": reference("HistoryEntry"), "description": "Trained revisions, newest first."},
            "pinned_revision": REVISION,
            "corrections": {"type": "array", "items": reference("Correction")},
            "manifest": {**NOT_EMPTY, "description": "YAML of this Classifier as one would commit it."},
        },
        optional=(*_CARD_OPTIONAL, "backbone", "endpoint", "pinned_revision"),
    ),
    "Cards": closed({"classifiers": {"type": "array", "items": reference("Card")}}),
    "Corrections": closed(
        {
            "corrections": {"type": "array", "items": reference("Correction"), "description": "All that then apply."},
            "changed": {**COUNT, "description": "Images whose correction differs from before."},
            "effect": {**NOT_EMPTY, "description": "What will happen, in one sentence."},
            "manifest": {**NOT_EMPTY, "description": "YAML of the Classifier with these corrections."},
            "revision": {**REVISION, "description": "The revision that these corrections make."},
            "applied": {"type": "boolean", "description": "They are written; with `dry_run` they are not."},
        }
    ),
    "DrawnId": closed({"classifier_id": CLASSIFIER_ID.schema}),
    "StoredUpload": closed({"sha256": DIGEST_SCHEMA, "bytes": COUNT}),
    "StoredUploads": closed({"uploads": {"type": "array", "items": reference("StoredUpload")}}),
    "CheckedUpload": closed(
        {
            "sha256": DIGEST_SCHEMA,
            "bytes": COUNT,
            "images": {**COUNT, "description": "Usable ones. Absent where the zip was stored before."},
            "skipped_count": COUNT,
            "skipped": {
                "type": "array",
                "items": closed({"name": NOT_EMPTY, "reason": NOT_EMPTY}),
                "description": "The first files that are not usable images.",
            },
        },
        optional=("images", "skipped_count", "skipped"),
    ),
    "ManifestError": closed(
        {**ERROR, "manifest": {**NOT_EMPTY, "description": "YAML of the Classifier with the change, to commit instead."}},
        optional=("manifest",),
    ),
    "UploadsError": closed(
        {**ERROR, "missing": {"type": "array", "items": DIGEST_SCHEMA, "description": "Uploads that are not stored."}},
        optional=("missing",),
    ),
}
