"""An upgrade that replaces every Pod: nothing is lost, nothing is trained again, and no request fails meanwhile.

There is no earlier release yet; the same chart stands for both, with settings that change every Pod.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import SYSTEM_NAMESPACE
from tests.product.instance import CHECKOUT, Ocelli, wait_for
from tests.product.test_rollout import CLIENTS, Observations, classify_until, create, wait_until_ready

KEPT = ("servedRevision", "settledRevision", "classifierID", "trainedAt", "attempt")


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What there was before an upgrade, and after."""

    before: dict[str, Any]
    after: dict[str, Any]
    replaced: bool
    """Whether the inference servers are others."""
    seen: Observations


@pytest.fixture(scope="module")
def upgrade(ocelli: Ocelli) -> Iterator[Upgrade]:
    with ocelli.client() as client:
        ready = create(client, ocelli)
        wait_until_ready(client, ready)
        failed = create_in_vain(client, ocelli)
        other = create(client, ocelli)
        try:
            wait_for("the other one fails", lambda: client.get(f"/v3/classifiers/{failed}").json()["status"] == "failed")
            wait_until_ready(client, other)
            yield play(ocelli, client, ready)
        finally:
            set_log_level(ocelli, "INFO")
            for identity in (ready, failed, other):
                client.delete(f"/v3/classifiers/{identity}")


def play(ocelli: Ocelli, client: httpx.Client, ready: str) -> Upgrade:
    seen, stop = Observations(), threading.Event()
    before, servers = read_status(ocelli), read_servers(ocelli)
    with ThreadPoolExecutor(CLIENTS) as pool:
        workers = [pool.submit(classify_until, stop, ocelli, ready, seen) for _ in range(CLIENTS)]
        try:
            set_log_level(ocelli, "WARNING")
            replaced = wait_for("every inference server is another one", lambda: not servers & read_servers(ocelli), 240)
            wait_for("all of it is settled", lambda: read_status(ocelli) == before, 120)
        finally:
            stop.set()
        for worker in workers:
            worker.result(timeout=300)
    return Upgrade(before=before, after=read_status(ocelli), replaced=replaced, seen=seen)


def create_in_vain(client: httpx.Client, ocelli: Ocelli) -> str:
    """The same images for both classes: there is nothing to learn."""
    zero = (ocelli.samples / "zero.zip").read_bytes()
    files = {"zero_positive_examples": zero, "again_positive_examples": zero}
    identity: str = client.post("/v3/classifiers", data={"name": "in vain"}, files=files).json()["classifier_id"]
    return identity


def set_log_level(ocelli: Ocelli, level: str) -> None:
    """A setting that every Pod has, handed on to trainers and servers."""
    command = ("helm", "upgrade", "ocelli", "charts/ocelli", f"--namespace={SYSTEM_NAMESPACE}", "--reuse-values", "--wait")
    settings = [f"{part}.settings.OCELLI_LOG_LEVEL={level}" for part in ("operator", "gateway")]
    subprocess.run((*command, "--set", ",".join(settings)), cwd=CHECKOUT, check=True, timeout=300, capture_output=True)


def read_status(ocelli: Ocelli) -> dict[str, Any]:
    listed = json.loads(ocelli.kubectl("get", "classifiers", "-o", "json"))["items"]
    return {
        item["metadata"]["name"]: {
            **{field: item["status"].get(field) for field in KEPT},
            "conditions": sorted((part["type"], part["status"]) for part in item["status"]["conditions"]),
        }
        for item in listed
    }


def read_servers(ocelli: Ocelli) -> set[str]:
    return set(ocelli.kubectl("get", "pods", "-l", "ocelli.dev/component=inference", "-o", "name").split())


def test_every_pod_was_replaced(upgrade: Upgrade) -> None:
    assert upgrade.replaced


def test_nothing_is_lost_or_trained_again(upgrade: Upgrade) -> None:
    assert upgrade.after == upgrade.before


def test_no_request_fails_during_an_upgrade(upgrade: Upgrade) -> None:
    assert (upgrade.seen.failures, upgrade.seen.answered > 0) == ([], True)
