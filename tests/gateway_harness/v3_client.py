"""A client of the v3 API, and the form of its errors."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.gateway_harness.images import examples
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, Stage

VERSION = {"version": "2018-03-19"}
ERROR_IDS = {
    "parameter_error",
    "input_error",
    "limit_exceeded",
    "classifier_not_ready",
    "not_found",
    "conflict",
    "unavailable",
    "unauthorized",
    "internal_error",
}


def assert_error(response: httpx.Response, status: int, error_id: str | None = None, *words: str) -> None:
    """Check that the whole body is as in section 0.5, with these words in its sentence."""
    assert response.status_code == status, response.text[:500]
    body = response.json()
    assert body["code"] == status
    assert isinstance(body["error"], str)
    assert body["error_id"] in ERROR_IDS
    assert error_id in (None, body["error_id"])
    assert [word for word in words if word not in body["error"]] == [], body["error"]
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["x-global-transaction-id"]


Files = Iterable[tuple[str, tuple[str, bytes] | bytes]]


@dataclass(kw_only=True)
class V3Client:
    """Calls of one user."""

    http: httpx.Client
    stage: Stage

    def create(self, name: str | None = "birds", files: Files | None = None, **options: Any) -> httpx.Response:
        parts = files if files is not None else TWO_SETS
        data = {} if name is None else {"name": name}
        return self.http.post("/v3/classifiers", data=data, files=list(parts), **options)

    def created(self, name: str = "birds", files: Files | None = None) -> str:
        response = self.create(name, files)
        assert response.status_code == 200, response.text[:500]
        classifier_id: str = response.json()["classifier_id"]
        return classifier_id

    def ready(self, name: str = "birds", scores: Mapping[str, float] | None = None, files: Files | None = None) -> str:
        """The id of a served classifier."""
        classifier_id = self.created(name, files)
        self.stage.finish_training(classifier_id, scores)
        return classifier_id

    def get(self, classifier_id: str) -> httpx.Response:
        return self.http.get(f"/v3/classifiers/{classifier_id}")

    def retrain(self, classifier_id: str, files: Files) -> httpx.Response:
        return self.http.post(f"/v3/classifiers/{classifier_id}", files=list(files))

    def delete(self, classifier_id: str) -> httpx.Response:
        return self.http.delete(f"/v3/classifiers/{classifier_id}")

    def classify(
        self, *images: tuple[str, bytes], part: str = "images_file", params: Mapping[str, str] | None = None, **fields: str
    ) -> httpx.Response:
        files = [(part, image) for image in images]
        return self.http.post("/v3/classify", data=fields, files=files, params={**VERSION, **(params or {})})


TWO_SETS: list[tuple[str, tuple[str, bytes]]] = [
    ("heron_positive_examples", ("heron.zip", examples(1))),
    ("owl_positive_examples", ("owl.zip", examples(2))),
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def connect(instance: GatewayInstance, stage: Stage, user: str = USER, password: str = PASSWORD) -> V3Client:
    headers = {"Authorization": basic(user, password)}
    return V3Client(http=httpx.Client(base_url=instance.address, headers=headers, params=VERSION, timeout=30), stage=stage)
