"""Classifiers of an instance by REST: creating them from sample zips, and waiting for a status."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from tests.product.instance import Document, Ocelli, wait_for

TWO_CLASSES = {"zero_positive_examples": "zero.zip", "one_positive_examples": "one.zip"}


def sample_files(ocelli: Ocelli, zips: Mapping[str, str]) -> dict[str, tuple[str, bytes]]:
    """The parts of a form, by the names of the sample zips."""
    return {part: (name, (ocelli.few_samples / name).read_bytes()) for part, name in zips.items()}


def create(
    client: httpx.Client,
    ocelli: Ocelli,
    name: str = "created",
    zips: Mapping[str, str] = TWO_CLASSES,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Create a classifier; returns its id."""
    response = client.post("/v3/classifiers", data={"name": name}, files=sample_files(ocelli, zips), headers=headers)
    assert response.status_code == 200, response.text
    identity: str = response.json()["classifier_id"]
    return identity


def wait_for_status(client: httpx.Client, identity: str, status: str = "ready") -> Document:
    """The details, once they have this status. Another end of the training is an error."""

    def reached() -> Document | None:
        body: Document = client.get(f"/v3/classifiers/{identity}").json()
        assert body["status"] in ("training", "retraining", status), body
        return body if body["status"] == status else None

    found = wait_for(f"{identity} is {status}", reached, 120)
    assert found is not None
    return found
