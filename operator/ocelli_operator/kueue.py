"""What Kueue says about a training Job that it has not admitted, and how status words that. Pure.

It must not know what follows for a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ocelli_api.classifier import Manifest

_INADMISSIBLE = "Inadmissible"
_QUEUE_REMEDY = "correct spec.training.queueName, or have the queue set up"


class KueueState(Enum):
    """What was found."""

    NOT_INSTALLED = auto()
    """The API server does not know Workloads."""
    FORBIDDEN = auto()
    """The operator has no right to list Workloads."""
    UNREADABLE = auto()
    """The API server cannot return Workloads now: Kueue itself converts them between versions, and may not be running."""
    NO_WORKLOAD = auto()
    """Kueue has not seen the Job yet, or does not manage it."""
    WAITING = auto()


@dataclass(frozen=True, kw_only=True)
class KueueAdmission:
    """What Kueue says about a suspended Job."""

    state: KueueState
    message: str = ""
    """Kueue's own; empty where it says nothing yet."""
    remedy: str = ""


def parse_admission(workload: Manifest) -> KueueAdmission:
    """What a Workload says."""
    name, status = workload["metadata"]["name"], workload.get("status") or {}
    conditions: dict[str, Mapping[str, Any]] = {item["type"]: item for item in status.get("conditions") or ()}

    def find(condition_type: str, value: str) -> Mapping[str, Any]:
        condition = conditions.get(condition_type, {})
        return condition if condition.get("status") == value else {}

    if (workload.get("spec") or {}).get("active") is False:
        message = find("Evicted", "True").get("message") or "the Workload is deactivated"
        return KueueAdmission(state=KueueState.WAITING, message=message, remedy=f"set spec.active of Workload {name} to true")
    waits = find("QuotaReserved", "False") or find("Evicted", "True") or find("Finished", "True")
    if waits:
        remedy = _QUEUE_REMEDY if waits.get("reason") == _INADMISSIBLE else ""
        return KueueAdmission(state=KueueState.WAITING, message=waits.get("message", ""), remedy=remedy)
    checks = [check for check in status.get("admissionChecks") or () if check.get("state") != "Ready"]
    message = "; ".join(f"admission check {check['name']}: {check.get('message') or check['state']}" for check in checks)
    return KueueAdmission(state=KueueState.WAITING, message=message)


def describe_admission(admission: KueueAdmission | None, queue: str) -> str:
    """Why a Job is suspended, with the remedy where a person has to act; completes a sentence that begins with the Job.

    `queue` is empty for a Job without Kueue's label.
    """
    if not queue and (admission is None or admission.state is not KueueState.WAITING):
        return "is suspended; set its spec.suspend to false to continue"
    waits = f'waits in queue "{queue}" of Kueue' if queue else "waits for Kueue"
    if admission is None:
        return waits
    if admission.state is KueueState.NOT_INSTALLED:
        return f"{waits}, but this cluster has no Kueue; install it, or remove spec.training.queueName"
    if admission.state is KueueState.FORBIDDEN:
        return f"{waits}; to see Kueue's message here, set the chart's value kueue.enabled"
    if admission.state is KueueState.UNREADABLE:
        return f"{waits}, whose message cannot be read: {admission.message.rstrip('. ')}; check that Kueue is running"
    if admission.state is KueueState.NO_WORKLOAD:
        return f"{waits}, which has not taken it up yet; if it stays so, have Kueue manage Jobs of this namespace"
    facts = [waits] if not admission.message else [f"{waits}: {admission.message.rstrip('. ')}"]
    return "; ".join([*facts, *([admission.remedy] if admission.remedy else [])])
