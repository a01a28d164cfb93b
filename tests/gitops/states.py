"""The states of a Classifier, and the health that GitOps tools must report for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from ocelli_api.classifier import Manifest

OBJECTS_FOLDER = Path(__file__).with_name("objects")


class Argo(StrEnum):
    """Health in Argo CD."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"


class Kstatus(StrEnum):
    """Status by kstatus, which Flux uses."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The health that the tools must report for a state."""

    argo: Argo
    kstatus: Kstatus


READY = Expected(argo=Argo.HEALTHY, kstatus=Kstatus.CURRENT)
WAITS = Expected(argo=Argo.PROGRESSING, kstatus=Kstatus.IN_PROGRESS)
FAILED = Expected(argo=Argo.DEGRADED, kstatus=Kstatus.FAILED)
PERSON = Expected(argo=Argo.SUSPENDED, kstatus=Kstatus.IN_PROGRESS)
"""Nothing has failed, and nothing happens until a person acts."""
GOES = Expected(argo=Argo.PROGRESSING, kstatus=Kstatus.TERMINATING)

STATES = {
    # Not observed by the operator yet; the conditions are those of an earlier spec.
    "created": WAITS,
    "edited-unseen": WAITS,
    "corrected-unseen": WAITS,
    # The first training.
    "adopted": WAITS,
    "training": WAITS,
    "training-unschedulable": WAITS,
    "training-over-quota": WAITS,
    "training-queued": WAITS,
    "rolling-out": WAITS,
    "rollout-unschedulable": WAITS,
    "ready": READY,
    # Later ones.
    "retraining": WAITS,
    "retrained-rolling-out": WAITS,
    "retrained": READY,
    "tried-again": WAITS,
    "pinned": READY,
    # Serving.
    "scaling": WAITS,
    "scaled": READY,
    "server-lost": WAITS,
    "artifact-lost": WAITS,
    # A person must act.
    "invalid-data": FAILED,
    "source-unreadable": FAILED,
    "training-failed": FAILED,
    "rollout-failed": FAILED,
    "retraining-failed": FAILED,
    "pinned-to-nothing": FAILED,
    "gpu-not-offered": FAILED,
    # Gates.
    "below-minimum": FAILED,
    "regressed": FAILED,
    "not-comparable": FAILED,
    "awaiting-approval": PERSON,
    "approved": READY,
    # Checks without a training.
    "checking-data": WAITS,
    "suspended": PERSON,
    "suspended-with-bad-data": FAILED,
    # Fine-tuning.
    "fine-tuning": WAITS,
    "not-improved": READY,
    # Pretrained.
    "pretrained-without-weights": FAILED,
    "pretrained-ready": READY,
    # The end.
    "deleting": GOES,
}
"""By name of the file in `objects`."""


def load_object(state: str) -> Manifest:
    """The recorded object."""
    loaded: Manifest = yaml.safe_load((OBJECTS_FOLDER / f"{state}.yaml").read_text())
    return loaded


def find_condition(classifier: Manifest, condition_type: str) -> dict[str, Any]:
    """A condition of an object; empty where it is absent."""
    conditions = (classifier.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == condition_type), {})


def build_health_message(state: str, classifier: Manifest) -> str:
    """The health that Argo CD must show for an object in that state."""
    if STATES[state] is GOES:
        return "Pending deletion"
    generation = classifier["metadata"]["generation"]
    if classifier["status"]["observedGeneration"] != generation:
        return f"Waiting for the operator to see generation {generation}"
    ready, available = find_condition(classifier, "Ready"), find_condition(classifier, "Available")
    message = f"{ready['reason']}: {ready['message']}"
    if STATES[state] is FAILED and available["status"] == "True":
        message += f" ({available['message']})"
    return message


def build_health_test() -> Manifest:
    """`health_test.yaml`, in the form that Argo CD's repository has next to each health script."""
    tests = [
        {
            "healthStatus": {"status": str(expected.argo), "message": build_health_message(state, load_object(state))},
            "inputPath": f"testdata/{state}.yaml",
        }
        for state, expected in STATES.items()
    ]
    return {"tests": tests}
