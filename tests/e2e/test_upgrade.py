"""An upgrade that replaces every Pod, with classifiers in every state: nothing is lost or trained again, no request fails.

There is no earlier release yet: both sides use the same chart, with settings that change every Pod.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.cluster import SYSTEM_NAMESPACE
from tests.e2e.slow_source import SlowSource
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import CHECKOUT, Ocelli, wait_for
from tests.product.test_rollout import CLIENTS, Observations, classify_until

KEPT = ("servedRevision", "settledRevision", "classifierID", "trainedAt", "attempt")
# The Pods of the built-ins' trainings have ended, and are kept for their logs.
SYSTEM_PODS = ("pods", f"--namespace={SYSTEM_NAMESPACE}", "-l", "ocelli.dev/component!=training", "-o", "name")
SERVERS = ("pods", "-l", "ocelli.dev/component=inference", "-o", "name")
TRAININGS = ("jobs", "-o", "jsonpath={.items[*].metadata.uid}")
REASONS = {
    "failed": "InvalidData",
    "retrain-failed": "InvalidData",
    "training": "Training",
    "retraining": "Retraining",
    "unschedulable": "Unschedulable",
}
"""Other Classifiers than the served one, and why each is not ready."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """The installation before and after an upgrade."""

    before: dict[str, Any]
    after: dict[str, Any]
    trainings_before: set[str]
    trainings_after: set[str]
    attempts: dict[str, int]
    """Attempts of the trainings that were running, after they ended."""
    kept_pods: set[str]
    """Pods of the system and inference servers that were not replaced."""
    seen: Observations


@pytest.fixture(scope="module")
def upgrade(ocelli: Ocelli) -> Iterator[Upgrade]:
    with ocelli.client() as client, SlowSource(ocelli) as source:
        served = create(client, ocelli)
        try:
            create_every_state(ocelli, source)
            wait_for_status(client, served)
            yield play(ocelli, source, served)
        finally:
            client.delete(f"/v3/classifiers/{served}")
            ocelli.kubectl("delete", "classifiers", *REASONS, "--ignore-not-found")


def create_every_state(ocelli: Ocelli, source: SlowSource) -> None:
    digits = {"zero": source.url("zero.zip"), "one": source.url("one.zip")}
    retrained = ("retrain-failed", "retraining")
    for name in retrained:
        apply(ocelli, name, digits)
    apply(ocelli, "failed", {"zero": source.url("zero.zip"), "again": source.url("zero.zip")})
    apply(ocelli, "training", {name: source.slow_url(f"{name}.zip") for name in digits})
    apply(ocelli, "unschedulable", digits, nodeSelector={"example.com/nowhere": "yes"})
    ocelli.kubectl("wait", "--for=condition=Ready", *(f"classifier/{name}" for name in retrained), "--timeout=100s")
    apply(ocelli, "retrain-failed", {**digits, "again": source.url("zero.zip")})
    apply(ocelli, "retraining", {**digits, "two": source.slow_url("two.zip")})
    for name, reason in REASONS.items():
        wait_for(f"{name} is {reason}", lambda name=name, reason=reason: ready_reason(ocelli, name) == reason, 100)


def apply(ocelli: Ocelli, name: str, examples: dict[str, str], **training: Any) -> None:
    """Apply a small Classifier, so that all of them fit a small cluster."""
    spec = {
        "classes": [{"name": class_name, "examples": [{"url": url}]} for class_name, url in examples.items()],
        "training": {"resources": {"requests": {"cpu": "50m", "memory": "512Mi"}}, **training},
        "serving": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}},
    }
    ocelli.apply({"apiVersion": "ocelli.dev/v1alpha1", "kind": "Classifier", "metadata": {"name": name}, "spec": spec})


def ready_reason(ocelli: Ocelli, name: str) -> str:
    return ocelli.kubectl("get", "classifier", name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}')


def play(ocelli: Ocelli, source: SlowSource, served: str) -> Upgrade:
    seen, stop = Observations(), threading.Event()
    before, pods = read_status(ocelli), read(ocelli, *SYSTEM_PODS) | read(ocelli, *SERVERS)
    trainings = read(ocelli, *TRAININGS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        workers = [pool.submit(classify_until, stop, ocelli, served, seen) for _ in range(CLIENTS)]
        try:
            with changed_settings(ocelli):
                # The built-ins' servers are among the system's Pods: they are replaced after those of tenants.
                wait_for(
                    "every Pod was replaced",
                    lambda: not pods & (read(ocelli, *SYSTEM_PODS) | read(ocelli, *SERVERS)),
                    240,
                )
                wait_for("everything is settled", lambda: read_status(ocelli) == before, 120)
                after, kept = read_status(ocelli), pods & (read(ocelli, *SYSTEM_PODS) | read(ocelli, *SERVERS))
                trainings_after = read(ocelli, *TRAININGS)
                source.go()
                running = ("training", "retraining")
                ocelli.kubectl("wait", "--for=condition=Ready", *(f"classifier/{name}" for name in running), "--timeout=100s")
                finished = read_status(ocelli)
        finally:
            stop.set()
        for worker in workers:
            worker.result(timeout=300)
    return Upgrade(
        before=before,
        after=after,
        trainings_before=trainings,
        trainings_after=trainings_after,
        attempts={name: finished[name]["attempt"] for name in running},
        kept_pods=kept,
        seen=seen,
    )


@contextmanager
def changed_settings(ocelli: Ocelli) -> Iterator[None]:
    """Another log level, which the operator passes to trainers and servers, and a group for the system's own Pods."""
    try:
        helm_upgrade("WARNING", "{4711}")
        yield
    finally:
        helm_upgrade("INFO", "null")


def helm_upgrade(log_level: str, groups: str) -> None:
    command = ("helm", "upgrade", "ocelli", "charts/ocelli", f"--namespace={SYSTEM_NAMESPACE}", "--reuse-values", "--wait")
    settings = [f"{part}.settings.OCELLI_LOG_LEVEL={log_level}" for part in ("operator", "gateway")]
    settings.append(f"podSecurityContext.supplementalGroups={groups}")
    options = [part for setting in settings for part in ("--set", setting)]
    subprocess.run((*command, *options), cwd=CHECKOUT, check=True, timeout=300, capture_output=True)


def read(ocelli: Ocelli, *what: str) -> set[str]:
    return set(ocelli.kubectl("get", *what).split())


def read_status(ocelli: Ocelli) -> dict[str, Any]:
    listed = json.loads(ocelli.kubectl("get", "classifiers", "-o", "json"))["items"]
    return {
        item["metadata"]["name"]: {
            **{field: item["status"].get(field) for field in KEPT},
            "conditions": sorted((part["type"], part["status"], part["reason"]) for part in item["status"]["conditions"]),
        }
        for item in listed
    }


def test_every_pod_except_the_trainers_was_replaced(upgrade: Upgrade) -> None:
    assert upgrade.kept_pods == set()


def test_every_state_is_kept(upgrade: Upgrade) -> None:
    assert upgrade.after == upgrade.before


def test_nothing_is_trained_again(upgrade: Upgrade) -> None:
    assert upgrade.trainings_after == upgrade.trainings_before


def test_running_trainings_succeed_at_their_first_attempt(upgrade: Upgrade) -> None:
    assert upgrade.attempts == {"training": 1, "retraining": 2}


def test_no_request_fails_during_an_upgrade(upgrade: Upgrade) -> None:
    assert (upgrade.seen.failures, upgrade.seen.answered > 0) == ([], True)
