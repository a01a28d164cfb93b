"""Retrains roll out while requests come in: none fails, none is answered by an older revision than one already seen `ready`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from tests.product.instance import Ocelli

pytestmark = pytest.mark.cluster

REQUESTS = 2000
CLIENTS = 4


@dataclass
class Observations:
    """What the clients saw."""

    failures: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    answered: int = 0
    ready_classes: int = 2
    """Number of classes of the newest definition that was seen `ready`."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def create(client: httpx.Client, ocelli: Ocelli) -> str:
    answer = client.post(
        "/v3/classifiers",
        data={"name": "rollout"},
        files={
            "zero_positive_examples": (ocelli.few_samples / "zero.zip").read_bytes(),
            "one_positive_examples": (ocelli.few_samples / "one.zip").read_bytes(),
        },
    )
    identity: str = answer.json()["classifier_id"]
    return identity


def wait_until_ready(client: httpx.Client, identity: str) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        details = client.get(f"/v3/classifiers/{identity}").json()
        assert details["status"] != "failed", details
        if details["status"] == "ready":
            return len(details["classes"])
        time.sleep(0.1)
    raise AssertionError(f"{identity} is not ready in time: {details}")


def classify_until(stop: threading.Event, ocelli: Ocelli, identity: str, seen: Observations) -> None:
    image = (ocelli.samples / "test-one.png").read_bytes()
    form = {"classifier_ids": identity, "threshold": "0.0"}
    with ocelli.client() as client:
        while not stop.is_set() or seen.answered < REQUESTS:
            promised = seen.ready_classes
            try:
                response = client.post("/v3/classify", data=form, files={"images_file": image})
            except httpx.HTTPError as error:
                seen.failures.append(repr(error))
                continue
            with seen.lock:
                seen.answered += 1
            if response.status_code != 200:
                seen.failures.append(f"{response.status_code} {response.text}")
                continue
            classes = response.json()["images"][0]["classifiers"][0]["classes"]
            # Each retrain adds a class, so that the number of classes tells the revision.
            if len(classes) < promised:
                seen.stale.append(f"{len(classes)} classes after {promised} were ready")


@pytest.fixture(scope="module")
def observations(ocelli: Ocelli) -> Observations:
    seen = Observations()
    stop = threading.Event()
    with ocelli.client() as client, ThreadPoolExecutor(CLIENTS) as pool:
        identity = create(client, ocelli)
        wait_until_ready(client, identity)
        workers = [pool.submit(classify_until, stop, ocelli, identity, seen) for _ in range(CLIENTS)]
        try:
            for count, name in enumerate(("two", "three", "four"), start=3):
                sample = "two.zip" if name == "two" else "other-digits.zip" if name == "three" else "tests.zip"
                answer = client.post(
                    f"/v3/classifiers/{identity}",
                    files={f"{name}_positive_examples": (ocelli.few_samples / sample).read_bytes()},
                )
                assert answer.status_code == 200, answer.text
                assert wait_until_ready(client, identity) == count
                seen.ready_classes = count
        finally:
            stop.set()
        for worker in workers:
            worker.result(timeout=120)
    return seen


def test_2000_requests_are_answered_while_three_retrains_roll_out(observations: Observations) -> None:
    assert observations.answered >= REQUESTS


def test_no_request_fails_while_retrains_roll_out(observations: Observations) -> None:
    assert observations.failures == []


def test_no_answer_is_older_than_a_revision_already_seen_ready(observations: Observations) -> None:
    assert observations.stale == []
