"""Retrains roll out during requests: none fails, and none is answered by an older revision than one already seen `ready`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from tests.product.classifiers import create, sample_files, wait_for_status
from tests.product.instance import Ocelli

pytestmark = pytest.mark.cluster

REQUESTS = 2000
CLIENTS = 4


@dataclass
class Observations:
    """What the clients observed."""

    failures: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    answered: int = 0
    ready_classes: int = 2
    """Number of classes of the newest definition that was seen `ready`."""
    lock: threading.Lock = field(default_factory=threading.Lock)


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
            # Each retrain adds a class, so the number of classes identifies the revision.
            if len(classes) < promised:
                seen.stale.append(f"{len(classes)} classes after {promised} were ready")


@pytest.fixture(scope="module")
def observations(ocelli: Ocelli) -> Observations:
    seen = Observations()
    stop = threading.Event()
    with ocelli.client() as client, ThreadPoolExecutor(CLIENTS) as pool:
        identity = create(client, ocelli)
        wait_for_status(client, identity)
        workers = [pool.submit(classify_until, stop, ocelli, identity, seen) for _ in range(CLIENTS)]
        try:
            for count, name in enumerate(("two", "three", "four"), start=3):
                sample = "two.zip" if name == "two" else "other-digits.zip" if name == "three" else "tests.zip"
                files = sample_files(ocelli, {f"{name}_positive_examples": sample})
                answer = client.post(f"/v3/classifiers/{identity}", files=files)
                assert answer.status_code == 200, answer.text
                assert len(wait_for_status(client, identity)["classes"]) == count
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
