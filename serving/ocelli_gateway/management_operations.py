"""The operations of the management API, `/ocelli/v1`, as a table. `operations` explains how to add one.

They take no `version`. What they are sent besides path and query is one JSON object, whose fields are in `body`: a handler
reads it with `body = await self._read_body(known)`, then `body.read(FIELD)`. It must not know how operations are carried out.
"""

from __future__ import annotations

from ocelli_gateway.operation import Answer, Operation, Tag
from ocelli_gateway.operations import ALWAYS

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
