"""JSON Schemas of the answers about the quality of revisions, by name. It must not know which operation answers with which."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.outcome import EvaluationProtocol
from ocelli_gateway.fields import Schema
from ocelli_gateway.management_fields import DIGEST_SCHEMA
from ocelli_gateway.management_schemas import COUNT, REVISION
from ocelli_gateway.schemas import NOT_EMPTY, SHARE, TEXT, TIME, closed, reference

_DIGEST: Schema = {**DIGEST_SCHEMA, "description": "SHA-256 of the image's bytes."}
_CLASS: Schema = {"type": ["string", "null"], "description": "The name of a class; null: none of the classes."}
_BOOLEAN: Schema = {"type": "boolean"}
_THUMBNAIL: Schema = {**_BOOLEAN, "description": "Whether there is a thumbnail of the image."}
_BY_REVISION: Schema = {"type": "object", "propertyNames": REVISION, "minProperties": 2, "maxProperties": 2}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": reference(name)}


_LISTED_IMAGE: dict[str, Schema] = {"image": _DIGEST, "name": TEXT, "class": _CLASS, "thumbnail": _THUMBNAIL}
_DATA: dict[str, Schema] = {
    "revision": REVISION,
    "of": {"enum": ["training", "check"], "description": "What found it: `check` where there was no training yet."},
    "written": TIME,
    "faults_count": COUNT,
    "faults": {"type": "array", "items": TEXT, "description": "Of a check: what makes a training impossible."},
    "images": COUNT,
    "sets": _list_of("ExampleSetReport"),
    "near_duplicates_count": COUNT,
    "near_duplicates": _list_of("NearDuplicate"),
    "conflicts_count": COUNT,
    "conflicts": _list_of("ClassConflict"),
    "suspected_label_errors_count": COUNT,
    "suspected_label_errors": _list_of("SuspectedLabelError"),
    "outliers_count": COUNT,
    "outliers": _list_of("ListedImage"),
    "small_images_count": COUNT,
    "small_images": _list_of("SmallImage"),
    "corrections": reference("AppliedCorrections"),
}
_DATA_OPTIONAL = (
    "written",
    "faults_count",
    "faults",
    "suspected_label_errors_count",
    "suspected_label_errors",
    "outliers_count",
    "outliers",
)

QUALITY_SCHEMAS: Mapping[str, Schema] = {
    "Evaluation": closed(
        {
            "revision": REVISION,
            "trained": TIME,
            "protocol": {"enum": [str(protocol) for protocol in EvaluationProtocol]},
            "images": {**COUNT, "description": "The images in the confusion matrix: those whose scores are still stored."},
            "accuracy": reference("ShownAccuracy"),
            "calibration_error": SHARE,
            "excluded_images": COUNT,
            "has_negatives": {**_BOOLEAN, "description": "Whether it can answer none of the classes."},
            "classes": _list_of("ClassMetrics"),
            "confusion": _list_of("ConfusionCell"),
        },
        optional=("trained", "excluded_images"),
    ),
    "ClassMetrics": closed(
        {"class": NOT_EMPTY, "images": COUNT, "precision": SHARE, "recall": SHARE, "f1": SHARE},
        description="At the threshold 0.5, independent of other classes.",
    ),
    "ConfusionCell": closed({"actual": _CLASS, "predicted": _CLASS, "images": {**COUNT, "minimum": 1}}),
    "JudgedImages": closed({"revision": REVISION, "total": COUNT, "images": _list_of("JudgedImage")}),
    "JudgedImage": closed(
        {
            "image": _DIGEST,
            "name": TEXT,
            "actual": _CLASS,
            "predicted": _CLASS,
            "scores": {
                "type": "object",
                "additionalProperties": SHARE,
                "description": "Judged scores by class: of heads that did not learn from the image.",
            },
            "test_set": _BOOLEAN,
            "thumbnail": _THUMBNAIL,
            "correction": {**TEXT, "description": "The class in spec.corrections; empty: the image is dropped."},
        },
        optional=("name", "correction"),
    ),
    "JudgedScores": closed(
        {
            "revision": REVISION,
            "classes": {"type": "array", "items": NOT_EMPTY},
            "has_negatives": _BOOLEAN,
            "actual": {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "Indices; -1: no class."},
            "scores": {"type": "array", "items": {"type": "array", "items": SHARE}},
            "images": {"type": "array", "items": _DIGEST},
            "sampled": {"const": True, "description": "There are more images; these are a sample."},
        },
        optional=("sampled",),
    ),
    "DataReport": closed(_DATA, optional=_DATA_OPTIONAL),
    "ExampleSetReport": closed(
        {
            "class": _CLASS,
            "images": {**COUNT, "description": "Distinct images that belong to the set."},
            "files": COUNT,
            "duplicates_count": COUNT,
            "skipped_count": COUNT,
            "skipped": _list_of("SkippedFile"),
            "given_away_count": COUNT,
            "given_away": _list_of("SkippedFile"),
        }
    ),
    "SkippedFile": closed(
        {"image": _DIGEST, "name": TEXT, "reason": TEXT, "thumbnail": _THUMBNAIL}, optional=("image", "thumbnail")
    ),
    "NearDuplicate": closed({"image": _DIGEST, "name": TEXT, "oldest": _DIGEST, "oldest_name": TEXT, "thumbnail": _THUMBNAIL}),
    "ClassConflict": closed(
        {**_LISTED_IMAGE, "near_duplicate": _DIGEST, "near_duplicate_name": TEXT, "near_duplicate_class": _CLASS}
    ),
    "SuspectedLabelError": closed(
        {**_LISTED_IMAGE, "probability": SHARE, "suggested_class": _CLASS, "suggested_probability": SHARE}
    ),
    "ListedImage": closed(_LISTED_IMAGE),
    "SmallImage": closed({**_LISTED_IMAGE, "sides": {"type": "array", "items": COUNT, "maxItems": 2}}),
    "AppliedCorrections": closed({"relabelled": COUNT, "dropped": COUNT, "unchanged": COUNT, "unknown_count": COUNT}),
    "RevisionComparison": closed(
        {
            "revision": REVISION,
            "other": REVISION,
            "images": {**COUNT, "description": "Judged by both, of a class that both have."},
            "accuracy": {
                **_BY_REVISION,
                "additionalProperties": SHARE,
                "description": "Of each revision on these images, balanced over the classes.",
            },
            "better_count": COUNT,
            "worse_count": COUNT,
            "better": _list_of("ChangedImage"),
            "worse": _list_of("ChangedImage"),
            "only_in": {**_BY_REVISION, "additionalProperties": COUNT},
        },
        optional=("accuracy",),
    ),
    "ChangedImage": closed(
        {
            "image": _DIGEST,
            "name": TEXT,
            "actual": _CLASS,
            "predicted": {**_BY_REVISION, "additionalProperties": _CLASS},
            "thumbnail": _THUMBNAIL,
        },
        optional=("name",),
    ),
    "Thumbnails": closed(
        {
            "thumbnails": {
                "type": "object",
                "propertyNames": _DIGEST,
                "additionalProperties": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/jpeg"},
            }
        }
    ),
}
