"""Pod status as a kubelet writes it. Pure: facts in, a status manifest out.

Owns phases, conditions and the quality-of-service class. `lastTransitionTime` moves only when a condition's status
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ocelli_local.manifests import Manifest, format_time


@dataclass(frozen=True, kw_only=True)
class PodEnd:
    """Why the node itself ended a Pod."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PodFacts:
    """What is known of one Pod at one moment. Container statuses are in the order of the spec."""

    pod: Manifest
    now: datetime
    start_time: str
    pod_address: str | None
    host_address: str
    init_statuses: Sequence[Manifest]
    container_statuses: Sequence[Manifest]
    sidecar_names: frozenset[str] = frozenset()
    stopped: bool = False
    end: PodEnd | None = None
    disruption: str | None = None


def build_container_status(
    spec: Manifest, state: Manifest, *, last_state: Manifest, restart_count: int, ready: bool, started: bool | None
) -> Manifest:
    status = {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "imageID": "",
        "state": state,
        "lastState": last_state,
        "restartCount": restart_count,
        "ready": ready,
        "started": started,
    }
    container_id = (state.get("terminated") or {}).get("containerID") or (last_state.get("terminated") or {}).get("containerID")
    if container_id:
        status["containerID"] = container_id
    return status


def build_pod_status(facts: PodFacts) -> Manifest:
    phase = decide_phase(facts)
    status: Manifest = {
        "phase": phase,
        "observedGeneration": facts.pod["metadata"].get("generation", 1),
        "startTime": facts.start_time,
        "hostIP": facts.host_address,
        "hostIPs": [{"ip": facts.host_address}],
        "qosClass": facts.pod.get("status", {}).get("qosClass") or decide_qos_class(facts.pod["spec"]),
        "conditions": build_conditions(facts, phase),
        "containerStatuses": list(facts.container_statuses),
        # Null takes the field away again: a Pod that recovered has no reason.
        "reason": facts.end.reason if facts.end else None,
        "message": facts.end.message if facts.end else None,
    }
    if facts.init_statuses:
        status["initContainerStatuses"] = list(facts.init_statuses)
    if facts.pod_address is not None:
        status["podIP"] = facts.pod_address
        # `podIPs` merges by address: the one of before a restart of the node must be taken away by name.
        former = [entry["ip"] for entry in facts.pod.get("status", {}).get("podIPs", [])]
        status["podIPs"] = [{"ip": facts.pod_address}] + [
            {"$patch": "delete", "ip": ip} for ip in former if ip != facts.pod_address
        ]
    return status


def decide_phase(facts: PodFacts) -> str:
    if facts.end is not None:
        return "Failed"
    policy = facts.pod["spec"].get("restartPolicy", "Always")
    blocking = [status for status in facts.init_statuses if status["name"] not in facts.sidecar_names]
    if any(exit_code(status) not in (None, 0) for status in blocking) and (policy == "Never" or facts.stopped):
        return "Failed"
    codes = [exit_code(status) for status in facts.container_statuses]
    if facts.stopped:
        # Like the kubelet: a Pod that was stopped is Failed unless every container ended well.
        return "Succeeded" if codes and all(code == 0 for code in codes) else "Failed"
    if not all(is_initialized(status, facts.sidecar_names) for status in facts.init_statuses):
        return "Pending"
    if None not in codes and policy != "Always":
        if all(code == 0 for code in codes):
            return "Succeeded"
        if policy == "Never":
            return "Failed"
    never_ran = [status for status in facts.container_statuses if "waiting" in status["state"] and not status["lastState"]]
    return "Pending" if never_ran else "Running"


def exit_code(status: Manifest) -> int | None:
    terminated = status["state"].get("terminated")
    return None if terminated is None else int(terminated["exitCode"])


def is_initialized(status: Manifest, sidecar_names: frozenset[str]) -> bool:
    if status["name"] in sidecar_names:
        # One that ran and ended had let the others start.
        return bool(status.get("started") or "terminated" in status["state"] or status["lastState"])
    return exit_code(status) == 0


def build_conditions(facts: PodFacts, phase: str) -> list[Manifest]:
    conditions = [
        build_ready_to_start(facts, phase),
        build_initialized(facts, phase),
        *build_readiness(facts, phase),
    ]
    if facts.disruption is not None:
        conditions.append(
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": facts.disruption,
            }
        )
    previous = {condition["type"]: condition for condition in facts.pod.get("status", {}).get("conditions", [])}
    for condition in conditions:
        before = previous.get(condition["type"], {})
        unchanged = before.get("status") == condition["status"] and before.get("lastTransitionTime")
        condition["lastTransitionTime"] = before["lastTransitionTime"] if unchanged else format_time(facts.now)
        # A merge keeps what is not named.
        condition.setdefault("reason", None)
        condition.setdefault("message", None)
        condition["observedGeneration"] = facts.pod["metadata"].get("generation", 1)
    return conditions


def build_ready_to_start(facts: PodFacts, phase: str) -> Manifest:
    has_sandbox = facts.pod_address is not None and phase not in ("Succeeded", "Failed")
    return {"type": "PodReadyToStartContainers", "status": "True" if has_sandbox else "False"}


def build_initialized(facts: PodFacts, phase: str) -> Manifest:
    if phase == "Succeeded":
        return {"type": "Initialized", "status": "True", "reason": "PodCompleted"}
    incomplete = [s["name"] for s in facts.init_statuses if not is_initialized(s, facts.sidecar_names)]
    if not incomplete:
        return {"type": "Initialized", "status": "True"}
    return {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": f"containers with incomplete status: [{' '.join(incomplete)}]",
    }


def build_readiness(facts: PodFacts, phase: str) -> list[Manifest]:
    if phase in ("Succeeded", "Failed"):
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        return [{"type": name, "status": "False", "reason": reason} for name in ("ContainersReady", "Ready")]
    sidecars = [status for status in facts.init_statuses if status["name"] in facts.sidecar_names]
    unready = [status["name"] for status in [*sidecars, *facts.container_statuses] if not status["ready"]]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return [
            {"type": name, "status": "False", "reason": "ContainersNotReady", "message": message}
            for name in ("ContainersReady", "Ready")
        ]
    containers_ready = {"type": "ContainersReady", "status": "True"}
    unmet = find_unmet_gates(facts.pod)
    if unmet:
        message = f"the status of pod readiness gates {' '.join(unmet)} is not True"
        return [
            containers_ready,
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": message},
        ]
    return [containers_ready, {"type": "Ready", "status": "True"}]


def find_unmet_gates(pod: Manifest) -> list[str]:
    met = {c["type"] for c in pod.get("status", {}).get("conditions", []) if c["status"] == "True"}
    return [gate["conditionType"] for gate in pod["spec"].get("readinessGates", []) if gate["conditionType"] not in met]


def decide_qos_class(spec: Manifest) -> str:
    resources = [c.get("resources", {}) for c in [*spec.get("initContainers", []), *spec["containers"]]]
    named = [entry for entry in resources if entry.get("requests") or entry.get("limits")]
    if not any(has_cpu_or_memory(entry) for entry in named):
        return "BestEffort"
    guaranteed = all(
        entry.get("limits", {}).get(name) is not None
        and entry.get("requests", {}).get(name, entry["limits"][name]) == entry["limits"][name]
        for entry in resources
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def has_cpu_or_memory(resources: Manifest) -> bool:
    return any(name in resources.get(kind, {}) for kind in ("requests", "limits") for name in ("cpu", "memory"))


def status_differs(desired: Manifest, actual: Manifest) -> bool:
    """Whether somebody else changed what the node had reported, node-lifecycle's `Ready=False` for one."""
    if desired["phase"] != actual.get("phase") or desired.get("podIP") != actual.get("podIP"):
        return True
    reported = {condition["type"]: condition["status"] for condition in actual.get("conditions", [])}
    if any(reported.get(condition["type"]) != condition["status"] for condition in desired["conditions"]):
        return True
    return container_states(desired.get("containerStatuses", [])) != container_states(actual.get("containerStatuses", []))


def container_states(statuses: Iterable[Manifest]) -> list[tuple[str, int, bool, list[str]]]:
    return [(s["name"], s["restartCount"], s["ready"], sorted(k for k, v in s["state"].items() if v)) for s in statuses]
