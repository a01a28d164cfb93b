"""The cards of the management API: what they show, and that they come from the watch cache."""

from __future__ import annotations

from typing import Any

from tests.gateway_harness.stage import NAMESPACE
from tests.gateway_harness.v3_client import V3Client


def find_card(client: V3Client, classifier_id: str) -> Any:
    response = client.http.get("/ocelli/v1/classifiers")
    assert response.status_code == 200, response.text[:500]
    return next(card for card in response.json()["classifiers"] if card["classifier_id"] == classifier_id)


def test_card_of_a_new_classifier_has_no_unknown_values(client: V3Client) -> None:
    classifier_id = client.created("cards")
    card = find_card(client, classifier_id)
    assert {name: card[name] for name in card if name not in ("created", "updated", "current_revision")} == {
        "classifier_id": classifier_id,
        "name": "cards",
        "resource": f"{NAMESPACE}/{classifier_id.replace('_', '-')}",
        "status": "training",
        "managed_by": "REST",
        "writable": True,
        "class_count": 2,
    }
