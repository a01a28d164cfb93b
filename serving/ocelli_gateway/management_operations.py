"""The operations of the management API, `/ocelli/v1`, as a table. `operations` explains how to add one.

They take no `version`. In addition to path and query they are sent one JSON object, whose fields are in `body`: a handler
reads it with `body = await self._read_body(known)`, then `body.read(FIELD)`. It must not know how operations are carried out.
"""

from __future__ import annotations

from typing import Any

from ocelli_gateway import fields
from ocelli_gateway import management_fields as own
from ocelli_gateway.body_fields import BodyField
from ocelli_gateway.event_stream import EVENT_STREAM_TYPE
from ocelli_gateway.limits import LIMITS
from ocelli_gateway.operation import Answer, Operation, Tag
from ocelli_gateway.operations import ALWAYS, CONFLICT, NOT_FOUND, TOO_LARGE, TOO_MANY, UNAUTHORIZED, UNAVAILABLE, build_refusal
from ocelli_gateway.refusals import ConflictError, InputError

CARD_EXAMPLE = {
    "classifier_id": "birds_1471823042",
    "name": "birds",
    "resource": "team-a/birds-1471823042",
    "status": "ready",
    "reason": "Served",
    "created": "2026-04-02T08:15:07.000Z",
    "updated": "2026-04-02T08:16:41.204Z",
    "managed_by": "REST",
    "writable": True,
    "class_count": 2,
    "accuracy": {"value": 0.95, "lower": 0.87, "upper": 0.96, "images": 120},
    "served_revision": "0f3a9c1d2e",
    "current_revision": "0f3a9c1d2e",
}

DETAILS_EXAMPLE = {
    **CARD_EXAMPLE,
    "classes": [
        {"class": "heron", "sources": [{"upload": "b5" * 32, "bytes": 4182311, "round": 1}]},
        {"class": "owl", "sources": [{"url": "https://example.org/owls.zip", "sha256": "0c" * 32, "round": 1}]},
    ],
    "negative_sources": [],
    "threshold": 0.5,
    "backbone": "EfficientNetLite0",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Served",
            "message": "revision 0f3a9c1d2e answers",
            "changed": "2026-04-02T08:16:41.204Z",
        }
    ],
    "history": [
        {
            "revision": "0f3a9c1d2e",
            "trained": "2026-04-02T08:16:31.000Z",
            "promoted": "2026-04-02T08:16:40.000Z",
            "accuracy": {"value": 0.95, "lower": 0.87, "upper": 0.96, "images": 120},
            "served": True,
            "current": True,
            "pinned": False,
            "stored": True,
        }
    ],
    "corrections": [{"image": "9f" * 32, "class": "owl"}],
    "manifest": "apiVersion: ocelli.dev/v1alpha1\nkind: Classifier\n",
}

_MANIFEST_CONFLICT = build_refusal(
    ConflictError(
        "Classifier team-a/birds was created from a manifest and does not allow changes by REST; change the manifest.",
        fields={"manifest": "apiVersion: ocelli.dev/v1alpha1\nkind: Classifier\n"},
    ),
    "The classifier was created from a manifest and does not allow changes by REST: the body has the manifest to commit.",
    schema="ManifestError",
)
_UPLOADS_REFUSED = build_refusal(
    InputError(f"1 of the 2 uploads named are not stored: {'b5' * 32}; send them again.", fields={"missing": ["b5" * 32]}),
    "A field is missing or wrong, or uploads are not stored.",
    schema="UploadsError",
)
_DETAILS = Answer(status=200, description="The classifier after the change.", schema="Details", example=DETAILS_EXAMPLE)

GET_SESSION = Operation(
    name="getSession",
    method="GET",
    path="/ocelli/v1/session",
    summary="Get the session of the caller",
    description="The user, the namespace of its classifiers, the limits of this release, and the quota that applies.",
    fields=(),
    answers=(
        Answer(
            status=200,
            description="The credentials are valid.",
            schema="Session",
            example={
                "user": "anna",
                "namespace": "team-a",
                "owner": "7d9f0c5e-33c1-4f0e-9a6c-0b6a6f1d2c11",
                "version": "0.1.0",
                "built_ins": ["default", "food", "explicit"],
                "limits": LIMITS,
                "quota": {"classifiers": 20},
            },
        ),
        *ALWAYS,
    ),
    tag=Tag.MANAGEMENT,
)
LIST_CARDS = Operation(
    name="listCards",
    method="GET",
    path="/ocelli/v1/classifiers",
    summary="List the classifiers",
    description="All classifiers of the caller, oldest first, with progress and accuracy; at most a second old.",
    fields=(),
    answers=(
        Answer(status=200, description="The classifiers.", schema="Cards", example={"classifiers": [CARD_EXAMPLE]}),
        *ALWAYS,
    ),
    tag=Tag.MANAGEMENT,
)
GET_DETAILS = Operation(
    name="getDetails",
    method="GET",
    path="/ocelli/v1/classifiers/{classifier_id}",
    summary="Get the details of a classifier",
    description=(
        "Its card, its classes and their sources, conditions, the revisions that were trained, corrections, and its manifest "
        "as one would commit it. Once the status is `ready`, every replica answers with the served revision."
    ),
    fields=(fields.CLASSIFIER_ID,),
    answers=(
        Answer(status=200, description="The classifier as it is now.", schema="Details", example=DETAILS_EXAMPLE),
        *ALWAYS,
        NOT_FOUND,
    ),
    tag=Tag.MANAGEMENT,
)


def _change(name: str, address: str, summary: str, description: str, body: tuple[BodyField[Any], ...] = ()) -> Operation:
    return Operation(
        name=name,
        method="POST",
        path=f"/ocelli/v1/classifiers/{{classifier_id}}/{address}",
        summary=summary,
        description=description,
        fields=(fields.CLASSIFIER_ID,),
        body=body,
        answers=(_DETAILS, *ALWAYS, NOT_FOUND, _MANIFEST_CONFLICT, TOO_LARGE),
        tag=Tag.MANAGEMENT,
    )


APPROVE = _change(
    "approve",
    "approve",
    "Let a trained revision serve",
    "One that waits for approval, or does not meet its gates. It is written to `spec.approvedRevision`.",
    (own.NAMED_REVISION,),
)
PIN = _change(
    "pin",
    "pin",
    "Roll back or forward to a stored revision",
    "It serves until another is pinned or the pin is removed, and nothing is trained. It is written to `spec.pinnedRevision`.",
    (own.NAMED_REVISION,),
)
UNPIN = _change("unpin", "unpin", "Remove the pin", "What the classifier describes serves again; it is trained if it was not.")
SUSPEND = _change("suspend", "suspend", "Only check data", "Nothing is trained until it is resumed. What is trained serves on.")
RESUME = _change("resume", "resume", "Train again", "What was checked while it was suspended is trained.")
RETRAIN = _change(
    "retrain",
    "retrain",
    "Train the same definition again",
    "For instance after a failure whose cause is gone. It is refused while a training is running.",
)
CORRECT = Operation(
    name="correct",
    method="POST",
    path="/ocelli/v1/classifiers/{classifier_id}/corrections",
    summary="Move or drop single images",
    description=(
        "Merges corrections into `spec.corrections`, and changes nothing else: sources stay as they are. It is a retrain, "
        "because another definition makes another revision. With `dry_run` nothing is written: it shows what would happen and, "
        "for classifiers of manifests, what to commit."
    ),
    fields=(fields.CLASSIFIER_ID,),
    body=(own.CORRECTIONS, own.DRY_RUN),
    answers=(
        Answer(
            status=200,
            description="The corrections that apply, and their effect.",
            schema="Corrections",
            example={
                "corrections": [{"image": "9f" * 32, "class": "owl"}],
                "changed": 1,
                "effect": (
                    "1 image gets another class; the new revision 5be0c1aa42 is trained, while the revision 0f3a9c1d2e answers."
                ),
                "manifest": "apiVersion: ocelli.dev/v1alpha1\nkind: Classifier\n",
                "revision": "5be0c1aa42",
                "applied": True,
            },
        ),
        *ALWAYS,
        NOT_FOUND,
        _MANIFEST_CONFLICT,
        TOO_LARGE,
    ),
    tag=Tag.MANAGEMENT,
)
DRAW_ID = Operation(
    name="drawId",
    method="POST",
    path="/ocelli/v1/uploads",
    summary="Draw the id of a new classifier",
    description="Uploads are sent to the id, then the classifier is created with it. It stores nothing.",
    fields=(),
    body=(own.NAME,),
    answers=(
        Answer(status=200, description="The id.", schema="DrawnId", example={"classifier_id": "birds_1471823042"}),
        *ALWAYS,
        TOO_LARGE,
    ),
    tag=Tag.MANAGEMENT,
)
LIST_UPLOADS = Operation(
    name="listUploads",
    method="GET",
    path="/ocelli/v1/uploads/{classifier_id}",
    summary="List what is stored for an id",
    description="So that a client whose connection was lost sends only what is left. For an unknown id the list is empty.",
    fields=(fields.CLASSIFIER_ID,),
    answers=(
        Answer(
            status=200,
            description="The uploads, also those that no classifier refers to yet.",
            schema="StoredUploads",
            example={"uploads": [{"sha256": "b5" * 32, "bytes": 4182311}]},
        ),
        *ALWAYS,
    ),
    tag=Tag.MANAGEMENT,
)
PUT_UPLOAD = Operation(
    name="putUpload",
    method="PUT",
    path="/ocelli/v1/uploads/{classifier_id}/{sha256}",
    summary="Store one zip of examples under its digest",
    description=(
        "Needs `Content-Length`. The zip is checked as those of v3 are, but one usable image suffices: a class needs 10 in all "
        "its zips, which the training counts. One that is stored is not read again. What nothing refers to is deleted after an "
        "hour."
    ),
    fields=(fields.CLASSIFIER_ID, own.SHA256),
    zip_description="Zip of JPEG or PNG images, at most 100 MB.",
    answers=(
        Answer(
            status=200,
            description="It is stored.",
            schema="CheckedUpload",
            example={
                "sha256": "b5" * 32,
                "bytes": 4182311,
                "images": 59,
                "skipped_count": 1,
                "skipped": [{"name": "notes.txt", "reason": "is not a JPEG or PNG image"}],
            },
        ),
        *ALWAYS,
        CONFLICT,
        TOO_LARGE,
    ),
    tag=Tag.MANAGEMENT,
)
CREATE = Operation(
    name="createFromUploads",
    method="POST",
    path="/ocelli/v1/classifiers",
    summary="Create a classifier from stored uploads",
    description=(
        "Sent again with the same id, definition and headers, it answers with the classifier that exists. The headers are "
        "those of v3, and say whose the images are and whether they are kept."
    ),
    fields=(fields.LEARNING_OPT_OUT, fields.METADATA),
    body=(own.NEW_ID, own.NAME, own.CLASS_UPLOADS, own.NEGATIVE_UPLOADS, own.SUSPEND),
    answers=(_DETAILS, UNAUTHORIZED, _UPLOADS_REFUSED, TOO_MANY, UNAVAILABLE, CONFLICT, TOO_LARGE),
    tag=Tag.MANAGEMENT,
)
ADD_EXAMPLES = Operation(
    name="addExamples",
    method="POST",
    path="/ocelli/v1/classifiers/{classifier_id}/examples",
    summary="Add stored uploads to a classifier",
    description="To classes, new or not, or to the negative examples. It is a retrain. What is there already is left as it is.",
    fields=(fields.CLASSIFIER_ID, fields.LEARNING_OPT_OUT, fields.METADATA),
    body=(own.CLASS_UPLOADS, own.NEGATIVE_UPLOADS),
    answers=(_DETAILS, UNAUTHORIZED, _UPLOADS_REFUSED, TOO_MANY, UNAVAILABLE, NOT_FOUND, _MANIFEST_CONFLICT, TOO_LARGE),
    tag=Tag.MANAGEMENT,
)
REMOVE_EXAMPLES = _change(
    "removeExamples",
    "remove",
    "Take classes or uploads away",
    "It is a retrain. At least two example sets must remain.",
    (own.REMOVED_CLASSES, own.REMOVED_UPLOADS, own.ALL_NEGATIVES),
)
STREAM_EVENTS = Operation(
    name="streamEvents",
    method="GET",
    path="/ocelli/v1/events",
    summary="Follow the classifiers",
    description=(
        "Server-sent events. First `ready`, with empty data; then `classifier` with a card for each change, and `deleted` with "
        "a `classifier_id`; a comment every 15 seconds. It ends with `expired` when the token does, and without an event when "
        "the service stops: connect again, and list the classifiers once `ready` has come."
    ),
    fields=(own.ONE_CLASSIFIER_ID,),
    answers=(
        Answer(status=200, description="Events, without an end.", media_type=EVENT_STREAM_TYPE),
        *ALWAYS,
    ),
    tag=Tag.MANAGEMENT,
)
