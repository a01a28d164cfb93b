"""A Classifier of a later release, with values that the gateway does not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ocelli_api.names import build_object_name
from ocelli_cluster.resources import CLASSIFIERS
from tests.gateway_harness.images import png
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error


@pytest.fixture
def later(stage: Stage, client: V3Client) -> Iterator[str]:
    """The id of a served Classifier with an enumeration value that this release does not have."""
    identity = client.ready("later")
    manifest = stage.classifier(identity)
    manifest["spec"]["dataRetention"] = "Archive"
    stage.put_classifier(manifest)
    yield identity
    stage.call(lambda: stage.cluster.remove(CLASSIFIERS, NAMESPACE, build_object_name(identity)))


@pytest.mark.slow
def test_it_still_classifies(client: V3Client, later: str) -> None:
    response = client.classify(("a.png", png()), classifier_ids=later)
    assert response.json()["images"][0]["classifiers"][0]["classifier_id"] == later


def test_its_neighbours_are_listed(client: V3Client, later: str) -> None:
    neighbour = client.created("neighbour")
    response = client.http.get("/v3/classifiers", params=VERSION)
    assert response.status_code == 200
    assert neighbour in [item["classifier_id"] for item in response.json()["classifiers"]]


def test_its_details_are_refused_with_the_remedy(client: V3Client, later: str) -> None:
    assert_error(client.get(later), 503, "unavailable", "written by a later release", "upgrade it")


def test_user_data_is_not_reported_as_deleted(client: V3Client, later: str) -> None:
    response = client.http.delete("/v3/user_data", params={**VERSION, "customer_id": "somebody"})
    assert_error(response, 503, "unavailable", "written by a later release")
