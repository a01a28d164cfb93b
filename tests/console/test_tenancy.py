"""One tenant sees nothing of another: not in the console, and at no address that the console asks."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.console.trained import TrainedClassifier
from tests.console.window import Window
from tests.gateway_harness.stage import OTHER_USER, GatewayInstance

SECTIONS = ("training", "quality", "data", "quick-test", "history", "compare", "use", "add")


def test_every_page_of_a_classifier_is_missing_for_another_tenant(window: Window, shapes: TrainedClassifier) -> None:
    window.log_in(user=OTHER_USER, password="other")
    for section in SECTIONS:
        window.go(f"#/classifiers/{shapes.classifier_id}/{section}")
        expect(window.page.get_by_role("alert")).to_have_text(re.compile(f"Cannot find the classifier {shapes.classifier_id}"))
        window.go("#/classifiers")
        expect(window.page.get_by_role("heading", name="No classifiers yet")).to_be_visible()


def test_every_address_of_the_management_api_is_missing_for_another_tenant(
    gateway: GatewayInstance, shapes: TrainedClassifier
) -> None:
    paths = httpx.get(f"{gateway.address}/openapi.json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        if not path.startswith("/ocelli/v1/classifiers/{classifier_id}"):
            continue
        for method, operation in operations.items():
            address = path.replace("{classifier_id}", shapes.classifier_id)
            address = address.replace("{revision}", shapes.revisions[0]).replace("{other}", shapes.revisions[0])
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            example = next(iter(body.get("schema", {}).get("examples", [])), {})
            parameters = {
                item["name"]: item["example"] for item in operation["parameters"] if "example" in item and item["in"] == "query"
            }
            answer = httpx.request(
                method, gateway.address + address, auth=(OTHER_USER, "other"), json=example if body else None, params=parameters
            )
            assert answer.status_code == 404, (method, address, answer.text)
            asked += 1
    assert asked > 10
