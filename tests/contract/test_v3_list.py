"""The list of classifiers (section B1 of the REST contract)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import StoreUnavailableError
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, connect

FIGURES = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "0.967"}, "judgedImages": 100}


@pytest.fixture(scope="module")
def own_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with no other classifiers than a test's own."""
    built = Stage(folder=tmp_path_factory.mktemp("list"))
    yield built
    built.close()


@pytest.fixture(scope="module")
def lister(own_stage: Stage) -> V3Client:
    return connect(own_stage.start_gateway(), own_stage)


@pytest.fixture
def three(own_stage: Stage, lister: V3Client) -> Iterator[list[str]]:
    """Ids of a ready, a training and a failed classifier, oldest first."""
    identities = [lister.ready("ready"), lister.created("training"), lister.created("failed")]
    own_stage.finish_training(identities[0], figures=FIGURES)
    own_stage.fail_training(identities[2], "too few examples")
    for age, identity in enumerate(identities):
        manifest = own_stage.classifier(identity)
        manifest["metadata"]["creationTimestamp"] = f"2018-01-0{age + 1}T00:00:00Z"
        own_stage.put_classifier(manifest)
    yield identities
    for identity in identities:
        lister.delete(identity)


def listed(client: V3Client, **query: str) -> list[dict[str, Any]]:
    response = client.http.get("/v3/classifiers", params={**VERSION, **query})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["classifiers"]
    items: list[dict[str, Any]] = response.json()["classifiers"]
    return items


@pytest.mark.contract_row("B1", "0.1/GET /v3/classifiers")
def test_brief_items_have_three_fields_in_any_status_oldest_first(lister: V3Client, three: list[str]) -> None:
    statuses = zip(three, ("ready", "training", "failed"), strict=True)
    assert listed(lister) == [{"classifier_id": identity, "name": status, "status": status} for identity, status in statuses]


@pytest.mark.contract_row("B1")
@pytest.mark.parametrize("verbose", ["true", "false"])
def test_classifiers_of_one_second_are_listed_in_order_of_creation(own_stage: Stage, lister: V3Client, verbose: str) -> None:
    identities = [lister.created(name) for name in ("e", "c", "d", "a", "b")]
    for identity in identities:
        manifest = own_stage.classifier(identity)
        manifest["metadata"]["creationTimestamp"] = "2018-02-01T00:00:00Z"
        own_stage.put_classifier(manifest)
    assert [item["classifier_id"] for item in listed(lister, verbose=verbose)] == identities
    for identity in identities:
        lister.delete(identity)


@pytest.mark.contract_row("B1")
@pytest.mark.parametrize("verbose", ["true", "TRUE", "True"])
def test_verbose_items_are_those_of_details(lister: V3Client, three: list[str], verbose: str) -> None:
    items = listed(lister, verbose=verbose)
    assert items == [lister.get(identity).json() for identity in three]
    assert ["accuracy_interval" in item for item in items] == [True, False, False]


@pytest.mark.contract_row("B1")
@pytest.mark.parametrize("verbose", ["false", "FALSE", ""])
def test_other_spellings_of_false_are_brief(lister: V3Client, three: list[str], verbose: str) -> None:
    assert set(listed(lister, verbose=verbose)[0]) == {"classifier_id", "name", "status"}


@pytest.fixture
def damaged(own_stage: Stage, three: list[str]) -> str:
    """The id of the ready one, whose artifact cannot be read any more."""
    revision = own_stage.classifier(three[0])["status"]["servedRevision"]
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=three[0])
    own_stage.run(own_stage.objects.put(location.artifact_key(revision, ARTIFACT_METADATA), b"{"))
    return three[0]


def test_damaged_artifact_does_not_matter_to_the_brief_list(lister: V3Client, three: list[str], damaged: str) -> None:
    assert [item["classifier_id"] for item in listed(lister)] == three


def test_damaged_artifact_hides_no_others_from_the_verbose_list(lister: V3Client, three: list[str], damaged: str) -> None:
    items = listed(lister, verbose="true")
    assert [item["classifier_id"] for item in items] == three
    assert (items[0]["core_ml_enabled"], items[1:]) == (False, [lister.get(identity).json() for identity in three[1:]])


def test_store_that_cannot_be_read_is_503_for_the_verbose_list(
    own_stage: Stage, lister: V3Client, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(key: str, *, limit_bytes: int) -> bytes:
        raise StoreUnavailableError(f"object store: {key!r} cannot be read")

    monkeypatch.setattr(own_stage.objects, "get", get)
    response = lister.http.get("/v3/classifiers", params={**VERSION, "verbose": "true"})
    assert_error(response, 503, "unavailable", "object store")


@pytest.mark.contract_row("B1")
def test_list_without_classifiers_is_empty(own_stage: Stage, lister: V3Client, three: list[str]) -> None:
    other = connect(own_stage.start_gateway(), own_stage, "bert", "other")
    assert listed(other) == []


@pytest.mark.contract_row("B1")
def test_manifest_made_classifier_is_listed(own_stage: Stage, lister: V3Client) -> None:
    own_stage.put_classifier(
        {
            "metadata": {"name": "by-hand", "labels": {CLASSIFIER_ID_LABEL: "byxhand_7"}},
            "spec": {"classes": [{"name": "a", "examples": [{"url": "https://data.test/a.zip"}]}]},
        }
    )
    assert {"classifier_id": "byxhand_7", "name": "by-hand", "status": "training"} in listed(lister)


@pytest.mark.contract_row("A6", "B1")
def test_deleted_one_is_gone_from_the_list_of_every_replica(own_stage: Stage, lister: V3Client) -> None:
    other = connect(own_stage.start_gateway(), own_stage)
    identity = lister.ready("gone")
    lister.delete(identity)
    assert identity not in [item["classifier_id"] for client in (lister, other) for item in listed(client)]


def test_ready_in_the_list_is_a_promise_on_every_replica(own_stage: Stage, lister: V3Client) -> None:
    identity = lister.ready("promise")
    other = connect(own_stage.start_gateway(), own_stage)
    assert [item["status"] for item in listed(lister) if item["classifier_id"] == identity] == ["ready"]
    response: httpx.Response = other.classify(("a.png", b"x"), classifier_ids=identity)
    assert response.json()["error_id"] == "input_error"


def test_verbose_that_is_neither_is_400(lister: V3Client) -> None:
    response = lister.http.get("/v3/classifiers", params={**VERSION, "verbose": "yes"})
    assert_error(response, 400, "parameter_error", "verbose")
