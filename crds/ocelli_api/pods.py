"""What the operator tells the Pods it starts: labels, environment, ports. Trainer, inference server and gateway read it.

The environment is the whole interface: the same variables on a kubelet and on the local process node.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, GROUP

__all__ = [
    "ACCELERATOR_LABEL",
    "CLASSIFIER_ID_LABEL",
    "CLASSIFIER_LABEL",
    "COMPONENT_LABEL",
    "REVISION_LABEL",
    "Component",
    "Environment",
    "deployment_name",
    "find_controller",
    "is_inference_server",
]

CLASSIFIER_LABEL = f"{GROUP}/classifier"
"""Name of the Classifier object that something belongs to."""
REVISION_LABEL = f"{GROUP}/revision"
"""Revision that a Pod learns or serves."""
COMPONENT_LABEL = f"{GROUP}/component"
ACCELERATOR_LABEL = f"{GROUP}/accelerator"
"""On training Jobs, inference Deployments and their Pods: `GPU` or `CPU`, whatever `Auto` came to."""

TRAINER_CONTAINER = "trainer"
INFERENCE_CONTAINER = "inference"
"""Names of the containers that run the programs: others may be injected beside them, in any order."""

INFERENCE_PORT = 8080
"""Port of every inference server, on its Pod's own IP."""
INFERENCE_PORT_NAME = "http"
INTERNAL_PORT = 9090
"""Port of probes and metrics of every inference server."""
INTERNAL_PORT_NAME = "internal"


INFERENCE_PRE_STOP_SECONDS = 5
"""A terminating inference server is not told before: until then everybody learns that it should not be asked any more."""
INFERENCE_DRAIN_SECONDS = 15
"""Then it answers for so long at most what still comes."""
INFERENCE_IDLE_SECONDS = 4
"""Then it waits so long for gateways that have not used an idle connection once more."""
INFERENCE_LAST_ANSWERS_SECONDS = 5
"""What is still worked on then gets so long; then the process ends anyway."""
INFERENCE_GRACE_SECONDS = (
    INFERENCE_PRE_STOP_SECONDS + INFERENCE_DRAIN_SECONDS + INFERENCE_IDLE_SECONDS + INFERENCE_LAST_ANSWERS_SECONDS + 1
)
"""An inference server's Pod is killed after so long."""

STORE_TOKEN_FILE = "/var/run/secrets/ocelli-store/token"
"""Where the ServiceAccount token for the embedded store is mounted."""
STORE_AUDIENCE = "ocelli-store"
"""Audience of ServiceAccount tokens with which the embedded store may be read and written."""
STORE_READ_AUDIENCE = "ocelli-store-read"
"""Audience of those with which it may only be read."""


class Component(StrEnum):
    """Values of the component label."""

    TRAINING = "training"
    INFERENCE = "inference"


class Environment(StrEnum):
    """Variables of trainers and inference servers; `ocelli_api.pod_environment` and the two programs say what they mean."""

    STORE_URL = "OCELLI_STORE_URL"
    STORE_TOKEN_FILE = "OCELLI_STORE_TOKEN_FILE"
    """The ServiceAccount token for the embedded store."""
    CLASSIFIER = "OCELLI_CLASSIFIER"
    NAMESPACE = "OCELLI_NAMESPACE"
    CLASSIFIER_ID = "OCELLI_CLASSIFIER_ID"
    REVISION = "OCELLI_REVISION"
    ATTEMPT = "OCELLI_ATTEMPT"
    BACKBONES = "OCELLI_BACKBONES"
    FILE_SOURCES_FOLDER = "OCELLI_FILE_SOURCES_FOLDER"
    SOURCES_ALLOWED_NETWORKS = "OCELLI_SOURCES_ALLOWED_NETWORKS"
    SOURCES_DENIED_NETWORKS = "OCELLI_SOURCES_DENIED_NETWORKS"
    SCRATCH_FOLDER = "OCELLI_SCRATCH_FOLDER"
    TERMINATION_MESSAGE_PATH = "TERMINATION_MESSAGE_PATH"
    CPU_LIMIT = "OCELLI_CPU_LIMIT"
    ACCELERATOR = "OCELLI_ACCELERATOR"
    BIND_ADDRESS = "POD_IP"
    LOG_LEVEL = "OCELLI_LOG_LEVEL"


def deployment_name(classifier_name: str, revision: str) -> str:
    """Each revision that serves, or is about to, has a Deployment of its own."""
    return f"{classifier_name}-{revision}"


def find_controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ownerReference of an object's controller; empty where it has none."""
    return next((item for item in metadata.get("ownerReferences") or () if item.get("controller")), {})


def is_inference_server(metadata: Mapping[str, Any]) -> bool:
    """Whether a Pod that is labelled as an inference server was made by the Deployment of its revision.

    Labels are copied easily, by `kubectl debug` for one. A ReplicaSet is named after its Deployment.
    """
    controller, labels = find_controller(metadata), metadata.get("labels") or {}
    expected = deployment_name(labels.get(CLASSIFIER_LABEL, ""), labels.get(REVISION_LABEL, ""))
    return bool(controller.get("kind") == "ReplicaSet" and controller.get("name", "").rpartition("-")[0] == expected)
