"""Uploads by digest, and classifiers that are created and changed with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from ocelli_cluster.client import UnreachableError
from tests.gateway_harness.images import build_zip, examples, png
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.raw_http import exchange, head
from tests.gateway_harness.stage import GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import assert_error, connect

HERONS, OWLS, STORKS = (examples(seed) for seed in (71, 72, 73))


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def draw(management: ManagementClient, name: str = "birds") -> str:
    classifier_id: str = management.call("POST", "/uploads", json={"name": name})["classifier_id"]
    return classifier_id


def put(management: ManagementClient, classifier_id: str, content: bytes) -> Any:
    return management.call("PUT", f"/uploads/{classifier_id}/{digest_of(content)}", content=content)


def definition_of(classifier_id: str, name: str = "birds", **more: Any) -> dict[str, Any]:
    classes = [{"class": "heron", "uploads": [digest_of(HERONS)]}, {"class": "owl", "uploads": [digest_of(OWLS)]}]
    return {"classifier_id": classifier_id, "name": name, "classes": classes, **more}


def create(management: ManagementClient, name: str = "birds") -> str:
    """The id of a classifier from two uploads."""
    classifier_id = draw(management, name)
    for content in (HERONS, OWLS):
        put(management, classifier_id, content)
    management.call("POST", "/classifiers", json=definition_of(classifier_id, name))
    return classifier_id


def stored(management: ManagementClient, classifier_id: str) -> list[str]:
    return [item["sha256"] for item in management.call("GET", f"/uploads/{classifier_id}")["uploads"]]


def sources(details: Any) -> dict[str, list[str]]:
    return {item["class"]: [source["upload"] for source in item["sources"]] for item in details["classes"]}


def test_drawn_id_stores_nothing(management: ManagementClient) -> None:
    classifier_id = draw(management, "drawn")
    assert classifier_id.startswith("drawn_")
    assert management.send("GET", f"/classifiers/{classifier_id}").status_code == 404
    assert not [name for name in management.v3.stage.stored_uploads() if classifier_id in name]


def test_upload_is_stored_under_its_digest_and_counted(management: ManagementClient) -> None:
    classifier_id = draw(management)
    content = build_zip({**{f"{number}.png": png(number, (12, 12)) for number in range(11)}, "notes.txt": b"words"})
    assert put(management, classifier_id, content) == {
        "sha256": digest_of(content),
        "bytes": len(content),
        "images": 11,
        "skipped_count": 1,
        "skipped": [{"name": "notes.txt", "reason": "is not a JPEG or PNG image"}],
    }
    assert management.call("GET", f"/uploads/{classifier_id}") == {
        "uploads": [{"sha256": digest_of(content), "bytes": len(content)}]
    }


def test_upload_that_is_stored_is_answered_without_reading_it_again(
    management: ManagementClient, gateway: GatewayInstance
) -> None:
    classifier_id = draw(management)
    put(management, classifier_id, HERONS)
    target = f"/ocelli/v1/uploads/{classifier_id}/{digest_of(HERONS)}"
    # The body never comes.
    answer = exchange(gateway, head("PUT", target, f"Content-Length: {len(HERONS)}"))
    assert answer.startswith(b"HTTP/1.1 200 ")


REFUSED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no zip": (b"words", ("cannot be used",)),
    "no images": (build_zip({"notes.txt": b"words"}), ("0 usable images", "at least 1", "add 1 or more", "notes.txt")),
    "cut off": (HERONS[:-40], ("cannot be used",)),
}


def test_zips_of_a_class_can_have_fewer_than_ten_images(management: ManagementClient) -> None:
    classifier_id, small = draw(management), [examples(seed, count=9) for seed in (74, 75)]
    answers = [put(management, classifier_id, content) for content in (*small, OWLS)]
    assert [answer["images"] for answer in answers[:2]] == [9, 9]
    classes = [
        {"class": "heron", "uploads": [digest_of(content) for content in small]},
        {"class": "owl", "uploads": [digest_of(OWLS)]},
    ]
    details = management.call("POST", "/classifiers", json={**definition_of(classifier_id), "classes": classes})
    assert sources(details)["heron"] == [digest_of(content) for content in small]


@pytest.mark.parametrize("fault", REFUSED)
def test_zip_that_cannot_be_used_is_refused_and_not_stored(management: ManagementClient, fault: str) -> None:
    content, words = REFUSED[fault]
    classifier_id = draw(management)
    response = management.send("PUT", f"/uploads/{classifier_id}/{digest_of(content)}", content=content)
    assert_error(response, 400, "input_error", *words)
    assert stored(management, classifier_id) == []


def test_body_with_another_digest_is_refused_and_not_stored(management: ManagementClient) -> None:
    classifier_id = draw(management)
    response = management.send("PUT", f"/uploads/{classifier_id}/{digest_of(OWLS)}", content=HERONS)
    assert_error(response, 400, "input_error", digest_of(HERONS), digest_of(OWLS))
    assert stored(management, classifier_id) == []


def test_upload_needs_a_digest_and_an_id_that_can_exist(management: ManagementClient) -> None:
    for path, word in ((f"/uploads/{draw(management)}/ABC", "SHA-256"), (f"/uploads/..x/{digest_of(OWLS)}", "draw one")):
        assert_error(management.send("PUT", path, content=OWLS), 400, "parameter_error", word)


def test_upload_without_a_length_is_refused(management: ManagementClient) -> None:
    path = f"/uploads/{draw(management)}/{digest_of(OWLS)}"
    assert_error(management.send("PUT", path, content=iter([OWLS])), 400, "parameter_error", "Content-Length")


def test_upload_above_100_megabytes_is_refused_before_it_is_read(
    management: ManagementClient, gateway: GatewayInstance
) -> None:
    target = f"/ocelli/v1/uploads/{draw(management)}/{digest_of(OWLS)}"
    answer = exchange(gateway, head("PUT", target, f"Content-Length: {100 * 1024 * 1024 + 1}"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 MB" in answer


def test_client_that_leaves_in_the_middle_leaves_nothing(management: ManagementClient, gateway: GatewayInstance) -> None:
    classifier_id = draw(management)
    target = f"/ocelli/v1/uploads/{classifier_id}/{digest_of(OWLS)}"
    answer = exchange(gateway, head("PUT", target, f"Content-Length: {len(OWLS)}") + OWLS[:-10], finish=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert stored(management, classifier_id) == []
    wait_for(lambda: not list(management.v3.stage.upload_folder.iterdir()), "the folder of uploads is empty")


def test_create_makes_a_classifier_of_the_named_uploads(management: ManagementClient) -> None:
    classifier_id = draw(management)
    for content in (HERONS, OWLS, STORKS):
        put(management, classifier_id, content)
    body = definition_of(classifier_id, negative_examples=[digest_of(STORKS)], suspend=True)
    details = management.call("POST", "/classifiers", json=body)
    assert sources(details) == {"heron": [digest_of(HERONS)], "owl": [digest_of(OWLS)]}
    assert [source["upload"] for source in details["negative_sources"]] == [digest_of(STORKS)]
    assert (details["status"], details["suspended"], details["managed_by"]) == ("training", True, "REST")


def test_create_sent_twice_makes_one_classifier(management: ManagementClient) -> None:
    classifier_id = create(management, "twice")
    again = management.call("POST", "/classifiers", json=definition_of(classifier_id, "twice"))
    assert again["classifier_id"] == classifier_id
    cards = management.call("GET", "/classifiers")["classifiers"]
    assert [card["name"] for card in cards].count("twice") == 1


def test_create_whose_answer_from_kubernetes_was_lost_finds_the_classifier(management: ManagementClient) -> None:
    classifier_id, cluster = draw(management, "lost"), management.v3.stage.cluster
    for content in (HERONS, OWLS):
        put(management, classifier_id, content)
    cluster.create_error = UnreachableError("the connection broke")
    assert management.send("POST", "/classifiers", json=definition_of(classifier_id, "lost")).status_code == 503
    assert management.call("POST", "/classifiers", json=definition_of(classifier_id, "lost"))["classifier_id"] == classifier_id


def test_id_of_a_classifier_with_another_definition_is_refused(management: ManagementClient) -> None:
    classifier_id = create(management)
    response = management.send("POST", "/classifiers", json=definition_of(classifier_id, negative_examples=[digest_of(OWLS)]))
    assert_error(response, 409, "conflict", classifier_id, "another definition")


def test_create_names_the_uploads_that_are_missing_and_creates_nothing(management: ManagementClient) -> None:
    classifier_id = draw(management)
    put(management, classifier_id, HERONS)
    response = management.send("POST", "/classifiers", json=definition_of(classifier_id))
    assert_error(response, 400, "input_error", "1 of the 2", digest_of(OWLS))
    assert response.json()["missing"] == [digest_of(OWLS)]
    assert management.send("GET", f"/classifiers/{classifier_id}").status_code == 404


WRONG_CLASSES: dict[str, tuple[Any, str]] = {
    "one class": ([{"class": "owl", "uploads": [digest_of(OWLS)]}], "at least two example sets"),
    "none": ([], "at least two example sets"),
    "twice": ([{"class": "owl", "uploads": [digest_of(OWLS)]}] * 2, "twice"),
    "no uploads": ([{"class": "owl", "uploads": []}], "no uploads"),
    "name": ([{"class": "a*b", "uploads": [digest_of(OWLS)]}], "*"),
    "no digest": ([{"class": "owl", "uploads": ["owls.zip"]}], "owls.zip"),
}


@pytest.mark.parametrize("fault", WRONG_CLASSES)
def test_create_refuses_classes_that_cannot_be_learned(management: ManagementClient, fault: str) -> None:
    classes, word = WRONG_CLASSES[fault]
    body = {**definition_of(draw(management)), "classes": classes}
    assert_error(management.send("POST", "/classifiers", json=body), 400, "parameter_error", word)


def ready(management: ManagementClient, name: str = "birds") -> str:
    """The same once it is trained."""
    classifier_id = create(management, name)
    management.v3.stage.finish_training(classifier_id)
    return classifier_id


def test_examples_are_added_to_classes_and_the_classifier_is_retrained(management: ManagementClient) -> None:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    body = {"classes": [{"class": "owl", "uploads": [digest_of(STORKS)]}]}
    details = management.call("POST", f"/classifiers/{classifier_id}/examples", json=body)
    assert sources(details) == {"heron": [digest_of(HERONS)], "owl": [digest_of(OWLS), digest_of(STORKS)]}
    assert details["status"] == "retraining"


def test_adding_keeps_corrections_that_are_still_being_trained(management: ManagementClient) -> None:
    classifier_id = ready(management)
    corrections = [{"image": "9f" * 32, "class": "owl"}]
    management.call("POST", f"/classifiers/{classifier_id}/corrections", json={"corrections": corrections})
    put(management, classifier_id, STORKS)
    body = {"negative_examples": [digest_of(STORKS)]}
    assert management.call("POST", f"/classifiers/{classifier_id}/examples", json=body)["corrections"] == corrections


def test_adding_sent_twice_adds_once(management: ManagementClient) -> None:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    body = {"classes": [{"class": "stork", "uploads": [digest_of(STORKS)]}]}
    first, second = (management.call("POST", f"/classifiers/{classifier_id}/examples", json=body) for _ in range(2))
    assert sources(first) == sources(second)
    assert management.v3.stage.classifier(classifier_id)["spec"]["retrainNonce"] == 1


def test_adding_names_the_uploads_that_are_missing(management: ManagementClient) -> None:
    classifier_id = ready(management)
    body = {"classes": [{"class": "stork", "uploads": [digest_of(STORKS)]}]}
    response = management.send("POST", f"/classifiers/{classifier_id}/examples", json=body)
    assert_error(response, 400, "input_error", digest_of(STORKS))


def sweep(management: ManagementClient, classifier_id: str, content: bytes) -> None:
    """Delete an upload, as the operator's sweep may do before there is a Classifier that refers to it."""
    stage = management.v3.stage
    (path,) = [name for name in stage.stored_uploads() if classifier_id in name and digest_of(content) in name]
    (stage.store_folder / path).unlink()


def test_create_whose_uploads_are_swept_before_the_write_is_refused_and_leaves_nothing(management: ManagementClient) -> None:
    classifier_id = draw(management)
    for content in (HERONS, OWLS):
        put(management, classifier_id, content)
    management.v3.stage.cluster.before_create = lambda: sweep(management, classifier_id, OWLS)
    response = management.send("POST", "/classifiers", json=definition_of(classifier_id))
    assert_error(response, 400, "input_error", "1 of the 2", digest_of(OWLS), "send them again")
    assert management.send("GET", f"/classifiers/{classifier_id}").status_code == 404


def test_adding_uploads_that_are_swept_before_the_write_is_refused_and_changes_nothing(management: ManagementClient) -> None:
    classifier_id = ready(management)
    before = management.v3.stage.classifier(classifier_id)["spec"]
    put(management, classifier_id, STORKS)
    management.v3.stage.cluster.before_patch = lambda: sweep(management, classifier_id, STORKS)
    body = {"classes": [{"class": "stork", "uploads": [digest_of(STORKS)]}]}
    response = management.send("POST", f"/classifiers/{classifier_id}/examples", json=body)
    assert_error(response, 400, "input_error", "1 of the 1", digest_of(STORKS), "send them again")
    assert management.v3.stage.classifier(classifier_id)["spec"] == before


def test_uploads_swept_before_they_are_added_can_be_sent_and_added_again(management: ManagementClient) -> None:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    management.v3.stage.cluster.before_patch = lambda: sweep(management, classifier_id, STORKS)
    body = {"classes": [{"class": "stork", "uploads": [digest_of(STORKS)]}]}
    assert management.send("POST", f"/classifiers/{classifier_id}/examples", json=body).status_code == 400
    put(management, classifier_id, STORKS)
    details = management.call("POST", f"/classifiers/{classifier_id}/examples", json=body)
    assert (set(sources(details)), details["status"]) == ({"heron", "owl", "stork"}, "retraining")


def test_nothing_is_added_during_the_first_training(management: ManagementClient) -> None:
    classifier_id = create(management)
    response = management.send("PUT", f"/uploads/{classifier_id}/{digest_of(STORKS)}", content=STORKS)
    assert_error(response, 400, "classifier_not_ready", "first training")


def three_classes(management: ManagementClient) -> str:
    classifier_id = ready(management)
    put(management, classifier_id, STORKS)
    body = {"classes": [{"class": "stork", "uploads": [digest_of(STORKS)]}]}
    management.call("POST", f"/classifiers/{classifier_id}/examples", json=body)
    return classifier_id


REMOVALS: dict[str, dict[str, Any]] = {"class": {"classes": ["stork"]}, "upload": {"uploads": [digest_of(STORKS)]}}


@pytest.mark.parametrize("what", REMOVALS)
def test_class_is_taken_away_by_its_name_or_with_its_last_upload(management: ManagementClient, what: str) -> None:
    classifier_id = three_classes(management)
    details = management.call("POST", f"/classifiers/{classifier_id}/remove", json=REMOVALS[what])
    assert set(sources(details)) == {"heron", "owl"}


@pytest.mark.parametrize("what", REMOVALS)
def test_images_moved_to_a_class_that_is_removed_are_not_learned_as_their_former_class(
    management: ManagementClient, what: str
) -> None:
    classifier_id = three_classes(management)
    corrections = [
        {"image": "9f" * 32, "class": "stork"},
        {"image": "0c" * 32, "class": ""},
        {"image": "b5" * 32, "class": "owl"},
    ]
    management.call("POST", f"/classifiers/{classifier_id}/corrections", json={"corrections": corrections})
    details = management.call("POST", f"/classifiers/{classifier_id}/remove", json=REMOVALS[what])
    assert details["corrections"] == [{"image": "9f" * 32, "class": ""}, *corrections[1:]]


REFUSED_REMOVALS: dict[str, tuple[dict[str, Any], str]] = {
    "too few left": ({"classes": ["owl", "heron"]}, "at least two example sets"),
    "unknown class": ({"classes": ["dodo"]}, "dodo"),
    "unknown upload": ({"uploads": ["ab" * 32]}, "ab" * 32),
    "nothing": ({}, "Nothing was named"),
}


@pytest.mark.parametrize("fault", REFUSED_REMOVALS)
def test_wrong_removal_is_refused_and_changes_nothing(management: ManagementClient, fault: str) -> None:
    body, word = REFUSED_REMOVALS[fault]
    classifier_id = three_classes(management)
    before = management.v3.stage.classifier(classifier_id)
    assert_error(management.send("POST", f"/classifiers/{classifier_id}/remove", json=body), 400, "parameter_error", word)
    assert management.v3.stage.classifier(classifier_id) == before


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tenant that may have one classifier and a megabyte of uploads."""
    stage = Stage(folder=tmp_path_factory.mktemp("limited"))
    client = connect(stage.start_gateway(quota_classifiers=1, quota_stored_megabytes=1), stage)
    yield ManagementClient(v3=client)
    client.http.close()
    stage.close()


def padded(kilobytes: int) -> bytes:
    images = {f"{number}.png": png(number, (12, 12)) for number in range(10)}
    return build_zip({**images, "padding.png": png(1, (kilobytes, 360))})


def test_quotas_apply_to_uploads_by_digest(limited: ManagementClient) -> None:
    classifier_id = draw(limited)
    large = padded(1200)
    assert len(large) > 1024 * 1024
    response = limited.send("PUT", f"/uploads/{classifier_id}/{digest_of(large)}", content=large)
    assert_error(response, 413, "limit_exceeded", "quota of stored examples")
    assert stored(limited, classifier_id) == []
    for content in (HERONS, OWLS):
        put(limited, classifier_id, content)
    limited.call("POST", "/classifiers", json=definition_of(classifier_id))
    response = limited.send("POST", "/uploads", json={"name": "more"})
    assert_error(response, 429, "limit_exceeded", "quota of classifiers")
    # Waiting does not help.
    assert "retry-after" not in response.headers


CALLS: Sequence[tuple[str, str, Any]] = (
    ("GET", "/classifiers/{id}", None),
    *(("POST", f"/classifiers/{{id}}/{change}", None) for change in ("unpin", "suspend", "resume", "retrain")),
    ("POST", "/classifiers/{id}/approve", {"revision": "0123456789"}),
    ("POST", "/classifiers/{id}/pin", {"revision": "0123456789"}),
    ("POST", "/classifiers/{id}/corrections", {"corrections": [{"image": "9f" * 32, "class": "owl"}]}),
    ("POST", "/classifiers/{id}/corrections", {"corrections": [{"image": "9f" * 32, "class": "owl"}], "dry_run": True}),
    ("POST", "/classifiers/{id}/examples", {"negative_examples": [digest_of(OWLS)]}),
    ("POST", "/classifiers/{id}/remove", {"classes": ["owl"]}),
)


@pytest.fixture(scope="module")
def bert(stage: Stage, gateway: GatewayInstance) -> ManagementClient:
    """Another tenant."""
    return ManagementClient(v3=connect(gateway, stage, "bert", "other"))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
def test_classifier_of_another_tenant_is_answered_like_a_missing_one(
    management: ManagementClient, bert: ManagementClient, call: tuple[str, str, Any]
) -> None:
    method, path, body = call
    annas = ready(management, "annas")
    before = management.v3.stage.classifier(annas)
    of_another, of_unknown = (bert.send(method, path.format(id=name), json=body) for name in (annas, "annas_1"))
    assert of_another.status_code == of_unknown.status_code == 404
    assert of_another.text.replace(annas, "ID") == of_unknown.text.replace("annas_1", "ID")
    assert management.v3.stage.classifier(annas) == before


def test_uploads_of_another_tenant_are_not_shown_and_cannot_be_used(
    management: ManagementClient, bert: ManagementClient
) -> None:
    annas = create(management, "annas")
    assert bert.call("GET", f"/uploads/{annas}") == bert.call("GET", "/uploads/annas_1") == {"uploads": []}
    assert_error(bert.send("POST", "/classifiers", json=definition_of(annas)), 400, "input_error", "2 of the 2")


def test_upload_for_an_id_of_another_tenant_stays_with_its_sender(management: ManagementClient, bert: ManagementClient) -> None:
    annas = create(management, "annas")
    put(bert, annas, STORKS)
    assert digest_of(STORKS) not in stored(management, annas)
    names = [name for name in management.v3.stage.stored_uploads() if annas in name and digest_of(STORKS) in name]
    assert [name.split("/")[1] for name in names] == ["team-b"]
