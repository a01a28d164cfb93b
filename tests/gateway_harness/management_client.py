"""A client of the management API that checks every answer against the OpenAPI document."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator

from tests.gateway_harness.v3_client import V3Client

ROOT = "/ocelli/v1"


@dataclass(kw_only=True)
class ManagementClient:
    """Calls of one user."""

    v3: V3Client
    document: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.document = self.v3.http.get("/openapi.json").json()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to a request, which is one that the document describes."""
        response = self.v3.http.request(method, ROOT + path, **options)
        answers = self._find_operation(method, ROOT + path.partition("?")[0])["responses"]
        assert str(response.status_code) in answers, response.text[:500]
        schema = answers[str(response.status_code)]["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**schema, "components": self.document["components"]}, validate_formats=True)
        validator.validate(response.json())
        return response

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The body of an answer with the status 200."""
        response = self.send(method, path, **options)
        assert response.status_code == 200, response.text[:500]
        return response.json()

    def card(self, classifier_id: str) -> Any:
        """The classifier in the list; None where it is not in it."""
        cards = self.call("GET", "/classifiers")["classifiers"]
        return next((card for card in cards if card["classifier_id"] == classifier_id), None)

    def details(self, classifier_id: str) -> Any:
        return self.call("GET", f"/classifiers/{classifier_id}")

    def _find_operation(self, method: str, path: str) -> Any:
        for pattern, operations in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
                return operations[method.lower()]
        raise AssertionError(f"the document has no address {path}")
