"""Bad input ends in an HTTP error or a condition with object, fact and remedy, and does not affect served classifiers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from tests.gateway_harness.images import build_zip, png
from tests.product.classifiers import wait_for_status
from tests.product.instance import Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster

SIZE = (48, 48)


def images(count: int, seed: int = 0, name: str = "{}.png") -> dict[str, bytes]:
    return {name.format(index): png(seed * 1000 + index, SIZE) for index in range(count)}


GOOD = build_zip(images(12, seed=1))
OTHER = build_zip(images(12, seed=2))


@dataclass(frozen=True, kw_only=True)
class RefusedUpload:
    """A create request that is refused."""

    what: str
    status: int
    words: tuple[str, ...]
    parts: list[tuple[str, bytes]]


REFUSED = [
    RefusedUpload(
        what="a zip of text files",
        status=400,
        words=("bad", "10"),
        parts=[
            ("bad_positive_examples", build_zip({f"{index}.txt": b"text" for index in range(20)})),
            ("good_positive_examples", GOOD),
        ],
    ),
    RefusedUpload(
        what="nine images",
        status=400,
        words=("bad", "9", "10"),
        parts=[("bad_positive_examples", build_zip(images(9))), ("good_positive_examples", GOOD)],
    ),
    RefusedUpload(
        what="two equal classes",
        status=400,
        words=("good",),
        parts=[("good_positive_examples", GOOD), ("good_positive_examples", OTHER)],
    ),
    RefusedUpload(
        what="a class name with $",
        status=400,
        words=("$",),
        parts=[("a$b_positive_examples", GOOD), ("good_positive_examples", OTHER)],
    ),
    RefusedUpload(
        what="a zip bomb",
        status=400,
        words=("bad", "10"),
        parts=[
            ("bad_positive_examples", build_zip({f"{index}.png": bytes(30 * 2**20) for index in range(12)})),
            ("good_positive_examples", GOOD),
        ],
    ),
    RefusedUpload(
        what="no zip",
        status=400,
        words=("bad", "zip"),
        parts=[("bad_positive_examples", b"hello"), ("good_positive_examples", GOOD)],
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
def test_rest_refuses_with_an_error_that_names_the_part_and_the_fact(client: httpx.Client, case: RefusedUpload) -> None:
    response = client.post(
        "/v3/classifiers", data={"name": "refused"}, files=[(name, (f"{name}.zip", data)) for name, data in case.parts]
    )
    body = response.json()
    assert (response.status_code, [word for word in case.words if word not in body["error"]]) == (case.status, []), body


def test_an_explanation_keeps_an_emoji_of_a_class_name(client: httpx.Client) -> None:
    # The image of every file is in the later class.
    files = {"\U0001f436\U00020000_positive_examples": GOOD, "good_positive_examples": GOOD}
    identity = client.post("/v3/classifiers", data={"name": "\U0001f436"}, files=files).json()["classifier_id"]
    assert "\U0001f436\U00020000" in wait_for_status(client, identity, "failed")["explanation"]
    client.delete(f"/v3/classifiers/{identity}")


def test_rest_repairs_a_classifier_whose_first_training_failed(client: httpx.Client) -> None:
    damaged = build_zip({f"\U0001f697{index}.png": png(index, SIZE)[:200] for index in range(12)})
    files = {"cars_positive_examples": damaged, "negative_examples": damaged, "good_positive_examples": GOOD}
    identity = client.post("/v3/classifiers", data={"name": "cars"}, files=files).json()["classifier_id"]
    wait_for_status(client, identity, "failed")
    repaired = {"cars_positive_examples": OTHER, "negative_examples": build_zip(images(12, seed=3))}
    assert client.post(f"/v3/classifiers/{identity}", files=repaired).status_code == 200
    wait_for_status(client, identity)
    client.delete(f"/v3/classifiers/{identity}")


def test_a_suspended_classifier_says_everything_that_is_wrong_with_its_images(client: httpx.Client, ocelli: Ocelli) -> None:
    # The image of every file is in the later class.
    zips = {"left": GOOD, "right": GOOD, "up": OTHER, "down": OTHER}
    files = {f"{name}_positive_examples": data for name, data in zips.items()}
    form = {"name": "sides", "suspend": "true"}
    identity = client.post("/v3/classifiers", data=form, files=files).json()["classifier_id"]
    details = wait_for_status(client, identity, "failed")
    wanted = [
        f'class "{name}" has 0 usable examples of 12 files: all its images are also in class "{other}"'
        for name, other in (("left", "right"), ("up", "down"))
    ]
    assert (details["suspended"], [text for text in wanted if text not in details["explanation"]]) == (True, [])
    jobs = ocelli.items("jobs", f"ocelli.dev/classifier-id={identity}")
    assert [job["metadata"]["name"].endswith("-1-check") for job in jobs] == [True]
    client.delete(f"/v3/classifiers/{identity}")


def test_a_zip_with_a_corrupt_image_and_names_that_lead_out_is_used_without_harm(client: httpx.Client, ocelli: Ocelli) -> None:
    entries = {**images(12, name="../../../escaped-{}.png"), "broken.png": png(99, SIZE)[:200]}
    files = {"bad_positive_examples": build_zip(entries), "good_positive_examples": OTHER}
    identity = client.post("/v3/classifiers", data={"name": "escape"}, files=files).json()["classifier_id"]
    wait_for_status(client, identity)
    client.delete(f"/v3/classifiers/{identity}")
    # `os.walk` ignores folders that vanish meanwhile: the classifier's files are being deleted.
    found = [name for _, _, names in os.walk(ocelli.state_dir.parent) for name in names if name.startswith("escaped-")]
    assert found == []


def build_manifest(name: str, bad: Document, **spec: object) -> Document:
    return {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": name},
        "spec": {
            "classes": [{"name": "bad", "examples": [bad]}, {"name": "good", "examples": [{"url": "file:///few/one.zip"}]}],
            **spec,
        },
    }


def stalled(ocelli: Ocelli, name: str) -> Document | None:
    status = ocelli.get("classifier", name).get("status", {})
    found = [item for item in status.get("conditions", []) if item["type"] == "Stalled" and item["status"] == "True"]
    return found[0] if found else None


def serve_text_files(ocelli: Ocelli) -> Document:
    (ocelli.samples / "texts.zip").write_bytes(build_zip({f"{index}.txt": b"text" for index in range(12)}))
    return {"url": "file:///texts.zip"}


def serve_nine(ocelli: Ocelli) -> Document:
    (ocelli.samples / "nine.zip").write_bytes(build_zip(images(9, seed=3)))
    return {"url": "file:///nine.zip"}


def refuse_connection(_: Ocelli) -> Document:
    # Port 9 (discard) of an address that no Pod uses: there is no server.
    return {"url": "http://127.255.255.254:9/cats.zip"}


def wrong_pin(_: Ocelli) -> Document:
    return {"url": "file:///few/zero.zip", "sha256": "0" * 64}


def climb_out(_: Ocelli) -> Document:
    return {"url": "file:///../password"}


SOURCES: dict[str, tuple[Callable[[Ocelli], Document], tuple[str, ...]]] = {
    "unreadable-address": (refuse_connection, ("127.255.255.254",)),
    "zip-of-text-files": (serve_text_files, ("bad", "0 usable", "10")),
    "nine-images": (serve_nine, ("bad", "9 usable", "1")),
    "wrong-digest": (wrong_pin, ("zero.zip", "digest", "0" * 64)),
    "path-that-climbs-out": (climb_out, ("password",)),
}
"""By the name of a Classifier: one of its sources, and words of the message about it."""
LITTLE_MEMORY = {"resources": {"limits": {"memory": "16Mi"}, "requests": {"memory": "16Mi"}}}


@pytest.fixture(scope="module", autouse=True)
def bad_classifiers(ocelli: Ocelli) -> None:
    """All concurrently, and before the other tests: some are retried for most of a minute."""
    for name, (source, _) in SOURCES.items():
        ocelli.apply(build_manifest(name, source(ocelli)))
    ocelli.apply(build_manifest("out-of-memory", {"url": "file:///few/zero.zip"}, training=LITTLE_MEMORY))


@pytest.mark.parametrize("name", SOURCES)
def test_bad_sources_stall_with_a_message_that_names_the_source(ocelli: Ocelli, name: str) -> None:
    found = wait_for("Stalled", lambda: stalled(ocelli, name), 90)
    assert [word for word in SOURCES[name][1] if word not in found["message"]] == [], found


def test_bad_data_is_tried_once(ocelli: Ocelli) -> None:
    wait_for("Stalled", lambda: stalled(ocelli, "nine-images"), 90)
    pods = ocelli.items("pods", "ocelli.dev/classifier=nine-images,ocelli.dev/component=training")
    assert (len(pods) <= 1, ocelli.get("classifier", "nine-images")["status"]["attempt"]) == (True, 1)


def test_a_trainer_that_runs_out_of_memory_stalls_with_a_remedy(ocelli: Ocelli) -> None:
    found = wait_for("Stalled", lambda: stalled(ocelli, "out-of-memory"), 90)
    assert [word for word in ("memory", "16Mi", "spec.training.resources.limits.memory") if word not in found["message"]] == []


def test_more_memory_starts_another_attempt(ocelli: Ocelli) -> None:
    wait_for("Stalled", lambda: stalled(ocelli, "out-of-memory"), 90)
    ocelli.apply(build_manifest("out-of-memory", {"url": "file:///few/zero.zip"}))
    ocelli.kubectl("wait", "--for=condition=Ready", "classifier/out-of-memory", "--timeout=90s")


def test_an_unschedulable_pod_is_reported_with_the_schedulers_message(ocelli: Ocelli) -> None:
    ocelli.apply(
        build_manifest("unschedulable", {"url": "file:///few/zero.zip"}, training={"nodeSelector": {"disk": "holographic"}})
    )

    def reported() -> str | None:
        conditions = ocelli.get("classifier", "unschedulable").get("status", {}).get("conditions", [])
        found = [item for item in conditions if item["type"] == "Trained" and item["reason"] == "Unschedulable"]
        return found[0]["message"] if found else None

    message = wait_for("Trained says Unschedulable", reported)
    assert "0/1 nodes are available" in message


@pytest.fixture(scope="module")
def survivor(ocelli: Ocelli) -> str:
    """The id of a served Classifier whose retrain, which renamed a class, failed."""
    ocelli.apply(build_manifest("survivor", {"url": "file:///few/zero.zip"}))
    ocelli.kubectl("wait", "--for=condition=Ready", "classifier/survivor", "--timeout=90s")
    identity: str = ocelli.get("classifier", "survivor")["status"]["classifierID"]
    changed = build_manifest("survivor", serve_nine(ocelli))
    changed["spec"]["classes"][0]["name"] = "worse"
    ocelli.apply(changed)
    wait_for("Stalled", lambda: stalled(ocelli, "survivor"), 90)
    return identity


def test_a_failed_retrain_leaves_the_served_revision_answering(ocelli: Ocelli, client: httpx.Client, survivor: str) -> None:
    image = {"images_file": (ocelli.samples / "test-one.png").read_bytes()}
    answer = client.post("/v3/classify", files=image, data={"classifier_ids": survivor}).json()
    assert answer["images"][0]["classifiers"][0]["classes"][0]["class"] == "good"


def test_v3_explains_a_failed_retrain_and_shows_the_old_classes(client: httpx.Client, survivor: str) -> None:
    details = wait_for_status(client, survivor, "failed")
    assert ("worse" in details["explanation"], sorted(item["class"] for item in details["classes"])) == (True, ["bad", "good"])


@pytest.mark.parametrize(
    ("what", "change", "words"),
    [
        ("two equal classes", {"classes": [{"name": "a", "examples": [{"url": "file:///few/one.zip"}]}] * 2}, ("Duplicate",)),
        (
            "a class name with $",
            {"classes": [{"name": name, "examples": [{"url": "file:///few/one.zip"}]} for name in ("a$", "b")]},
            ("a$",),
        ),
        ("one example set", {"classes": [{"name": "a", "examples": [{"url": "file:///few/one.zip"}]}]}, ("negativeExamples",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_api_server_refuses_a_bad_manifest_with_a_remedy(
    ocelli: Ocelli, what: str, change: Document, words: tuple[str, ...]
) -> None:
    manifest = build_manifest("refused", {"url": "file:///few/zero.zip"})
    manifest["spec"].update(change)
    output = ocelli.kubectl("apply", "-f", "-", input_text=json.dumps(manifest), check=False)
    assert [word for word in words if word not in output] == [], output
