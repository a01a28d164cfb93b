"""Built-in classifiers with models (section B4 of the REST contract): Classifiers of their namespace, served by stubs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_gateway.languages import choose_language
from tests.gateway_harness.images import plain, png
from tests.gateway_harness.stage import SYSTEM_NAMESPACE, Stage, StubInferenceServer
from tests.gateway_harness.v3_client import V3Client, connect

REVISION = "0123456789"


@pytest.fixture
def own_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage(folder=tmp_path_factory.mktemp("built-in"))
    yield built
    built.close()


def install(stage: Stage, name: str, *, served: bool = True) -> StubInferenceServer | None:
    """A pretrained Classifier in the built-in namespace with its status, and the stub that serves it."""
    status: dict[str, Any] = {"classifierID": f"{name}_17"}
    if served:
        status["servedRevision"] = REVISION
    stage.put_classifier(
        {
            "metadata": {"name": name, "labels": {CLASSIFIER_ID_LABEL: f"{name}_17"}},
            "spec": {"pretrained": {"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}},
            "status": status,
        },
        SYSTEM_NAMESPACE,
    )
    if not served:
        return None
    return stage.start_server(f"{name}_17", REVISION, {"barn owl": 0.9, "owl": 0.95, "finch": 0.1}, namespace=SYSTEM_NAMESPACE)


def connected(stage: Stage) -> V3Client:
    return connect(stage.start_gateway(), stage)


def answered(client: V3Client, classifier_id: str, **fields: str) -> tuple[dict[str, Any], list[str]]:
    """The classifier's answer for one image, and the ids of the warnings."""
    response = client.classify(("a.png", plain((120, 130, 20))), classifier_ids=classifier_id, **fields)
    assert response.status_code == 200, response.text
    body = response.json()
    return body["images"][0]["classifiers"][0], [item["warning_id"] for item in body.get("warnings", [])]


@pytest.mark.contract_row(
    "B4", "B4/Tags come from the installed built-in model. A leaf carries", "A5/…classes[].type_hierarchy"
)
def test_tags_come_from_the_installed_model_with_their_hierarchy(own_stage: Stage) -> None:
    server = install(own_stage, "default")
    assert server is not None
    server.hierarchies = {"barn owl": "/animal/bird/owl/barn owl"}
    answer, warnings = answered(connected(own_stage), "default")
    tags = [item for item in answer["classes"] if not item["class"].endswith(" color")]
    assert (answer["classifier_id"], answer["name"], warnings) == ("default", "default", [])
    assert tags == [
        {"class": "owl", "score": 0.95},
        {"class": "barn owl", "score": 0.9, "type_hierarchy": "/animal/bird/owl/barn owl"},
    ]


@pytest.mark.contract_row("B4/default also returns colour classes whose name ends in")
def test_default_adds_the_colours_of_the_pixels(own_stage: Stage) -> None:
    install(own_stage, "default")
    answer, _ = answered(connected(own_stage), "default")
    colours = [item for item in answer["classes"] if item["class"].endswith(" color")]
    assert colours[0]["score"] >= 0.5
    assert all("type_hierarchy" not in item for item in colours)


WITHOUT_MODEL = {"default": None, "food": ["non-food"], "explicit": []}
"""Classes; None: colours."""


@pytest.mark.contract_row("B4/With no model installed for one of them: 200, its item has")
@pytest.mark.parametrize("state", ["not installed", "not ready", "not answering"])
@pytest.mark.parametrize("name", list(WITHOUT_MODEL))
def test_a_built_in_without_a_ready_model_is_a_warning(own_stage: Stage, state: str, name: str) -> None:
    if state != "not installed":
        server = install(own_stage, name, served=state == "not answering")
        if server is not None:
            own_stage.kill_server(server)
            own_stage.remove_pod(server, SYSTEM_NAMESPACE)
    answer, warnings = answered(connected(own_stage), name)
    assert warnings == ["classifier_unavailable"]
    classes = [item["class"] for item in answer["classes"]]
    if name == "default":
        assert classes
        assert all(item.endswith(" color") for item in classes)
    else:
        assert classes == WITHOUT_MODEL[name]


def test_food_without_a_model_answers_non_food_at_every_threshold(own_stage: Stage) -> None:
    answer, _ = answered(connected(own_stage), "food", threshold="1.0")
    assert answer["classes"] == [{"class": "non-food", "score": 1.0}]


@pytest.mark.parametrize("threshold", ["0.96", "1"])
def test_food_answers_non_food_if_no_class_reaches_the_threshold(own_stage: Stage, threshold: str) -> None:
    install(own_stage, "food")
    answer, warnings = answered(connected(own_stage), "food", threshold=threshold)
    assert answer["classes"] == [{"class": "non-food", "score": float(threshold)}]
    assert warnings == []


def test_food_answers_only_the_classes_that_reach_the_threshold(own_stage: Stage) -> None:
    install(own_stage, "food")
    answer, _ = answered(connected(own_stage), "food", threshold="0.92")
    assert [item["class"] for item in answer["classes"]] == ["owl"]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("absent", "no model installed"),
        ("training", "not ready yet (Training)"),
        ("dead", "no reachable server"),
        ("busy", "busy"),
    ],
)
def test_warning_says_why_there_is_no_answer(own_stage: Stage, state: str, why: str) -> None:
    if state == "training":
        install(own_stage, "food", served=False)
        manifest = own_stage.call(lambda: own_stage.cluster.find(CLASSIFIERS, SYSTEM_NAMESPACE, "food"))
        assert manifest is not None
        manifest["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "Training"}]
        own_stage.put_classifier(manifest, SYSTEM_NAMESPACE)
    elif state != "absent":
        server = install(own_stage, "food")
        assert server is not None
        server.refusal = (429, "QueueFull") if state == "busy" else (503, "NotReady")
    body = connected(own_stage).classify(("a.png", png()), classifier_ids="food").json()
    assert [why in item["description"] for item in body["warnings"]] == [True], body["warnings"]


def test_warning_about_missing_weights_does_not_advise_waiting(own_stage: Stage) -> None:
    install(own_stage, "food", served=False)
    manifest = own_stage.call(lambda: own_stage.cluster.find(CLASSIFIERS, SYSTEM_NAMESPACE, "food"))
    assert manifest is not None
    conditions = [("Ready", "False"), ("Stalled", "True")]
    manifest["status"]["conditions"] = [
        {"type": name, "status": status, "reason": "SourceUnreadable"} for name, status in conditions
    ]
    own_stage.put_classifier(manifest, SYSTEM_NAMESPACE)
    [warning] = connected(own_stage).classify(("a.png", png()), classifier_ids="food").json()["warnings"]
    assert "food has no model installed (SourceUnreadable); it answers with non-food only" in warning["description"]


def test_gateway_without_rights_in_the_built_in_namespace_is_healthy_and_says_so(own_stage: Stage) -> None:
    own_stage.cluster.forbidden_namespace = SYSTEM_NAMESPACE
    gateway = own_stage.start_gateway()
    body = connect(gateway, own_stage).classify(("a.png", plain((229, 0, 0)))).json()
    assert "cannot be looked up" in body["warnings"][0]["description"]
    assert httpx.get(f"{gateway.internal_address}/healthz").status_code == 200


@pytest.mark.parametrize("name", ["default", "food"])
def test_file_that_is_not_an_image_is_refused_without_a_model(own_stage: Stage, name: str) -> None:
    server = install(own_stage, name)
    assert server is not None
    server.refusal = (503, "NotReady")
    assert connected(own_stage).classify(("a.png", png()[:-200]), classifier_ids=name).status_code == 400


def test_pretrained_classifier_of_a_tenant_is_a_custom_one_with_its_hierarchy(own_stage: Stage) -> None:
    own_stage.put_classifier(
        {
            "metadata": {"name": "fish", "labels": {CLASSIFIER_ID_LABEL: "fish_5"}},
            "spec": {"pretrained": {"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}},
            "status": {"classifierID": "fish_5", "servedRevision": REVISION},
        }
    )
    server = own_stage.start_server("fish_5", REVISION, {"fish": 0.9, "carp": 0.8})
    server.hierarchies = {"carp": "/fish/carp"}
    body = connected(own_stage).classify(("a.png", png()), owners="me").json()
    assert body["images"][0]["classifiers"] == [
        {
            "classifier_id": "fish_5",
            "name": "fish",
            "classes": [
                {"class": "fish", "score": 0.9},
                {"class": "carp", "score": 0.8, "type_hierarchy": "/fish/carp"},
            ],
        }
    ]
    assert body["custom_classes"] == 2


def test_failed_built_in_classifier_does_not_fail_the_request(own_stage: Stage) -> None:
    server = install(own_stage, "food")
    assert server is not None
    server.refusal = (429, "QueueFull")
    client = connected(own_stage)
    birds = client.ready("birds", {"owl": 0.8})
    body = client.classify(("a.png", png()), classifier_ids=f"food,{birds}").json()
    assert [[seen["class"] for seen in item["classes"]] for item in body["images"][0]["classifiers"]] == [["non-food"], ["owl"]]


@pytest.mark.contract_row("A5/owners")
def test_owner_ibm_means_default(own_stage: Stage) -> None:
    install(own_stage, "default")
    body = connected(own_stage).classify(("a.png", png()), owners="IBM").json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["default"]
    assert body["custom_classes"] == 0


def test_built_in_ones_are_not_listed(own_stage: Stage) -> None:
    install(own_stage, "default")
    assert connected(own_stage).http.get("/v3/classifiers").json() == {"classifiers": []}


def test_credential_set_of_the_built_in_namespace_is_refused(own_stage: Stage) -> None:
    own_stage.write_credentials("eve.json", user="eve", password="eve", namespace=SYSTEM_NAMESPACE, owner="eve")
    client = connect(own_stage.start_gateway(), own_stage, "eve", "eve")
    assert client.http.get("/v3/classifiers").status_code == 401


@pytest.mark.contract_row("B4/Accept-Language (en, ar, de, es, fr, it, ja, ko, pt-br")
@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("de", "de"),
        ("pt-BR,pt;q=0.9", "pt-br"),
        ("xx", "en"),
        ("de;q=0.1, fr;q=0.8", "fr"),
        ("", "en"),
        ("xx-yy-zz, ,;q", "en"),
    ],
)
def test_built_in_server_gets_the_language_of_the_client(own_stage: Stage, header: str, asked: str) -> None:
    server = install(own_stage, "default")
    assert server is not None
    client = connected(own_stage)
    birds = client.ready("birds")
    custom = [item for item in own_stage.servers if item.classifier_id == birds]
    response = client.http.post(
        "/v3/classify",
        data={"classifier_ids": f"default,{birds}"},
        files=[("images_file", ("a.png", png()))],
        headers={"Accept-Language": header},
    )
    assert response.status_code == 200
    assert (server.languages, custom[0].languages) == ([asked], [None])


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("en", "en"),
        ("de-AT", "de"),
        ("zh-TW", "zh-tw"),
        ("zh-Hant-HK", "zh-tw"),
        ("zh", "zh-cn"),
        ("pt", "pt-br"),
        ("sv, ja;q=0.5", "ja"),
        ("fr;q=0, de;q=0.1", "de"),
        ("*", "en"),
        ("de;q=x", "en"),
        (",".join(["xx"] * 1000), "en"),
    ],
)
def test_language_is_the_preferred_one_of_the_client(accepted: str, language: str) -> None:
    assert choose_language(accepted) == language
