"""Pod status as a kubelet would write it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.status import (
    PodEnd,
    PodFacts,
    build_container_status,
    build_pod_status,
    decide_qos_class,
    status_differs,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING: Manifest = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITING: Manifest = {"waiting": {"reason": "ContainerCreating"}}


def ended(code: int) -> Manifest:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}


def make_container(state: Manifest, *, name: str = "main", ready: bool = False, last_state: Manifest | None = None) -> Manifest:
    return build_container_status(
        {"name": name}, state, last_state=last_state or {}, restart_count=0, ready=ready, started="running" in state
    )


def make_facts(*containers: Manifest, policy: str = "Always", init: list[Manifest] | None = None, **fields: Any) -> PodFacts:
    pod = {
        "metadata": {"name": "pod", "generation": 2},
        "spec": {"restartPolicy": policy, "containers": [{"name": c["name"]} for c in containers]},
        "status": fields.pop("status", {}),
    }
    pod["spec"].update(fields.pop("spec", {}))
    given: dict[str, Any] = {
        "pod": pod,
        "now": NOW,
        "start_time": "2026-01-01T00:00:00Z",
        "pod_address": "127.5.1.1",
        "host_address": "127.5.0.1",
        "init_statuses": init or [],
        "container_statuses": containers,
        **fields,
    }
    return PodFacts(**given)


def condition(status: Manifest, kind: str) -> Manifest:
    found: Manifest = next(c for c in status["conditions"] if c["type"] == kind)
    return found


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        ("Always", [WAITING], "Pending"),
        ("Always", [RUNNING, WAITING], "Pending"),
        ("Always", [RUNNING, RUNNING], "Running"),
        ("Always", [ended(0)], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("Never", [ended(0), ended(0)], "Succeeded"),
        ("Never", [ended(0), ended(1)], "Failed"),
        ("Never", [ended(1), RUNNING], "Running"),
    ],
)
def test_phase_follows_containers_and_restart_policy(policy: str, states: list[Manifest], phase: str) -> None:
    containers = [make_container(state, name=f"c{index}") for index, state in enumerate(states)]
    assert build_pod_status(make_facts(*containers, policy=policy))["phase"] == phase


def test_container_in_back_off_leaves_the_pod_running() -> None:
    back_off = make_container({"waiting": {"reason": "CrashLoopBackOff"}}, last_state=ended(1))
    assert build_pod_status(make_facts(back_off))["phase"] == "Running"


def test_pod_with_an_unfinished_init_container_is_pending() -> None:
    facts = make_facts(make_container(WAITING), init=[make_container(RUNNING, name="setup")])
    status = build_pod_status(facts)
    assert status["phase"] == "Pending"
    assert condition(status, "Initialized")["message"] == "containers with incomplete status: [setup]"


def test_failed_init_container_fails_a_never_restarted_pod() -> None:
    facts = make_facts(make_container(WAITING), init=[make_container(ended(1), name="setup")], policy="Never")
    assert build_pod_status(facts)["phase"] == "Failed"


def test_running_sidecar_counts_as_initialized() -> None:
    facts = make_facts(
        make_container(RUNNING, ready=True),
        init=[make_container(RUNNING, name="proxy", ready=True)],
        sidecar_names=frozenset({"proxy"}),
    )
    status = build_pod_status(facts)
    assert (status["phase"], condition(status, "Ready")["status"]) == ("Running", "True")


@pytest.mark.parametrize(("codes", "phase"), [([0, 0], "Succeeded"), ([0, 143], "Failed")])
def test_stopped_pod_succeeds_only_if_all_ended_well(codes: list[int], phase: str) -> None:
    containers = [make_container(ended(code), name=f"c{index}") for index, code in enumerate(codes)]
    assert build_pod_status(make_facts(*containers, stopped=True))["phase"] == phase


def test_pod_that_the_node_ended_says_why() -> None:
    end = PodEnd(reason="DeadlineExceeded", message="too long")
    status = build_pod_status(make_facts(make_container(RUNNING), end=end))
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


def test_pod_is_ready_when_all_containers_are() -> None:
    one, other = make_container(RUNNING, name="a", ready=True), make_container(RUNNING, name="b")
    status = build_pod_status(make_facts(one, other))
    assert condition(status, "Ready")["message"] == "containers with unready status: [b]"
    status = build_pod_status(make_facts(one, make_container(RUNNING, name="b", ready=True)))
    assert condition(status, "Ready")["status"] == "True"


def test_readiness_gate_holds_back_ready_alone() -> None:
    gates = {"readinessGates": [{"conditionType": "example.com/open"}]}
    status = build_pod_status(make_facts(make_container(RUNNING, ready=True), spec=gates))
    assert condition(status, "ContainersReady")["status"] == "True"
    assert condition(status, "Ready")["reason"] == "ReadinessGatesNotReady"


def test_completed_pod_is_not_ready_because_it_completed() -> None:
    status = build_pod_status(make_facts(make_container(ended(0)), policy="Never"))
    assert condition(status, "Ready")["reason"] == "PodCompleted"


def test_transition_time_moves_only_with_the_status() -> None:
    before = "2025-05-05T05:05:05Z"
    known = [
        {"type": "Ready", "status": "False", "lastTransitionTime": before},
        {"type": "Initialized", "status": "True", "lastTransitionTime": before},
    ]
    facts = make_facts(make_container(RUNNING, ready=True), status={"conditions": known})
    status = build_pod_status(facts)
    assert condition(status, "Initialized")["lastTransitionTime"] == before
    assert condition(status, "Ready")["lastTransitionTime"] == "2026-01-02T03:04:05Z"


def test_address_of_before_a_restart_is_taken_away() -> None:
    facts = make_facts(make_container(RUNNING), status={"podIPs": [{"ip": "127.9.1.1"}]})
    assert build_pod_status(facts)["podIPs"] == [{"ip": "127.5.1.1"}, {"$patch": "delete", "ip": "127.9.1.1"}]


def test_disruption_becomes_a_condition() -> None:
    status = build_pod_status(make_facts(make_container(ended(137)), policy="Never", disruption="lost"))
    assert condition(status, "DisruptionTarget")["reason"] == "TerminationByKubelet"


def test_foreign_change_of_ready_is_noticed() -> None:
    desired = build_pod_status(make_facts(make_container(RUNNING, ready=True)))
    changed = {**desired, "conditions": [{**c, "status": "False"} for c in desired["conditions"]]}
    assert status_differs(desired, changed)
    assert not status_differs(desired, desired)


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"example.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_quality_of_service_follows_requests_and_limits(resources: Manifest, qos: str) -> None:
    assert decide_qos_class({"containers": [{"name": "a", "resources": resources}]}) == qos
