"""The operations of the management API, `/ocelli/v1`, as a table. `operations` explains how to add one.

They take no `version`. What they are sent besides path and query is one JSON object, whose fields are in `body`: a handler
reads it with `body = await self._read_body(known)`, then `body.read(FIELD)`. It must not know how operations are carried out.
"""

from __future__ import annotations

from ocelli_gateway import fields
from ocelli_gateway.limits import LIMITS
from ocelli_gateway.operation import Answer, Operation, Tag
from ocelli_gateway.operations import ALWAYS, NOT_FOUND

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

GET_SESSION = Operation(
    name="getSession",
    method="GET",
    path="/ocelli/v1/session",
    summary="Get who one is",
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
