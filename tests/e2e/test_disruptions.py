"""Requests through the gateway's Service during disruptions: none fails, and none gets an older revision."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.documented_commands import bash_blocks
from tests.e2e.cluster import SYSTEM_NAMESPACE
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import Ocelli, wait_for
from tests.product.test_rollout import CLIENTS, REQUESTS, Observations, classify_until

OUTAGE_SECONDS = 30
STORE_PODS = ("-l", "app.kubernetes.io/name=ocelli-store", f"--namespace={SYSTEM_NAMESPACE}")


@pytest.fixture(scope="module")
def drained_node(ocelli: Ocelli) -> Iterator[str]:
    """A worker without the store, whose claim can't follow it; schedulable again in the end."""
    store = ocelli.kubectl("get", "pods", *STORE_PODS, "-o", "jsonpath={.items[*].spec.nodeName}").split()
    workers = ocelli.kubectl(
        "get", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "-o", "jsonpath={.items[*].metadata.name}"
    ).split()
    node = next(name for name in workers if name not in store)
    try:
        yield node
    finally:
        ocelli.kubectl("uncordon", node)


@pytest.fixture(scope="module")
def observations(ocelli: Ocelli, drained_node: str) -> Observations:
    seen = Observations()
    stop = threading.Event()
    with ocelli.client() as client, ThreadPoolExecutor(CLIENTS) as pool:
        identity = create(client, ocelli)
        try:
            wait_for_status(client, identity)
            serve_by_two(ocelli, identity.replace("_", "-"))
            workers = [pool.submit(classify_until, stop, ocelli, identity, seen) for _ in range(CLIENTS)]
            try:
                disturb(ocelli, client, identity, drained_node, seen)
            finally:
                stop.set()
            for worker in workers:
                worker.result(timeout=300)
        finally:
            client.delete(f"/v3/classifiers/{identity}")
    return seen


def disturb(ocelli: Ocelli, client: httpx.Client, identity: str, node: str, seen: Observations) -> None:
    """A retrain, in which a node is drained and a gateway killed, and another one."""
    retrain(client, identity, "two", ocelli.samples / "two.zip")
    (drain,) = bash_blocks("docs/operations.md", "Draining a node")
    ocelli.kubectl(*drain.replace("NODE", node).split()[1:], "--timeout=100s")
    kill_a_gateway(ocelli)
    # The rest of a small cluster may be too small for a training.
    ocelli.kubectl("uncordon", node)
    assert len(wait_for_status(client, identity)["classes"]) == 3
    seen.ready_classes = 3
    retrain(client, identity, "three", ocelli.samples / "other-digits.zip")
    assert len(wait_for_status(client, identity)["classes"]) == 4
    seen.ready_classes = 4


def retrain(client: httpx.Client, identity: str, name: str, sample: Path) -> None:
    answer = client.post(f"/v3/classifiers/{identity}", files={f"{name}_positive_examples": sample.read_bytes()})
    assert answer.status_code == 200, answer.text


def serve_by_two(ocelli: Ocelli, name: str) -> None:
    """A single server cannot outlive the drain of its node; above one there is a disruption budget."""
    ocelli.kubectl("patch", "classifier", name, "--type=merge", "-p", '{"spec": {"serving": {"replicas": 2}}}')
    ready = ("get", "pods", "-l", f"ocelli.dev/classifier={name},ocelli.dev/component=inference")
    columns = ("-o", "jsonpath={.items[*].status.containerStatuses[*].ready}")
    wait_for("two servers are ready", lambda: ocelli.kubectl(*ready, *columns).split() == ["true", "true"], 100)


def kill_a_gateway(ocelli: Ocelli) -> None:
    """Delete one of two ready replicas as a node that shuts down does."""
    selector = ("-l", "app.kubernetes.io/name=ocelli-gateway", f"--namespace={SYSTEM_NAMESPACE}")
    ocelli.kubectl("rollout", "status", "deployment/ocelli-gateway", f"--namespace={SYSTEM_NAMESPACE}", "--timeout=100s")
    victim = ocelli.kubectl("get", "pods", *selector, "-o", "jsonpath={.items[0].metadata.name}")
    ocelli.kubectl("delete", "pod", victim, f"--namespace={SYSTEM_NAMESPACE}")
    wait_for(
        "both gateways are ready again",
        lambda: (
            ocelli.kubectl("get", "pods", *selector, "-o", "jsonpath={.items[*].status.containerStatuses[*].ready}").split()
            == ["true", "true"]
        ),
    )


def test_2000_requests_are_answered_during_disruptions(observations: Observations) -> None:
    assert observations.answered >= REQUESTS


def test_no_request_fails_during_disruptions(observations: Observations) -> None:
    assert observations.failures == []


def test_no_answer_is_older_than_a_revision_already_seen_ready(observations: Observations) -> None:
    assert observations.stale == []


def test_no_request_fails_without_a_store(ocelli: Ocelli) -> None:
    """Longer than the failure threshold of readiness probes."""
    store = ("deployment/ocelli-store", f"--namespace={SYSTEM_NAMESPACE}")
    seen, stop = Observations(), threading.Event()
    with ocelli.client() as client, ThreadPoolExecutor(1) as pool:
        identity = create(client, ocelli)
        try:
            wait_for_status(client, identity)
            ocelli.kubectl("scale", *store, "--replicas=0")
            ocelli.kubectl("wait", "--for=delete", "pod", *STORE_PODS)
            worker = pool.submit(classify_until, stop, ocelli, identity, seen)
            stop.wait(OUTAGE_SECONDS)
            stop.set()
            worker.result(timeout=300)
        finally:
            stop.set()
            ocelli.kubectl("scale", *store, "--replicas=1")
            ocelli.kubectl("rollout", "status", *store, "--timeout=100s")
            client.delete(f"/v3/classifiers/{identity}")
    assert seen.failures == []
