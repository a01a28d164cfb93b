"""Labels, environment and ports of the Pods that the operator starts. Trainer, inference server and gateway read them.

The environment is the whole interface. It has the same variables on a kubelet and on the local process node.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ocelli_api.classifier import GROUP

CLASSIFIER_LABEL = f"{GROUP}/classifier"
"""Name of the Classifier that owns the object."""
REVISION_LABEL = f"{GROUP}/revision"
"""Revision that a Pod trains or serves."""
COMPONENT_LABEL = f"{GROUP}/component"
ACCELERATOR_LABEL = f"{GROUP}/accelerator"
"""On training Jobs, inference Deployments and their Pods: `GPU` or `CPU`, also if the spec says `Auto`."""
STEP_LABEL = f"{GROUP}/step"
"""On Jobs that only check the data of a training, and on their Pods: `Check`."""

TRAINER_CONTAINER = "trainer"
INFERENCE_CONTAINER = "inference"
"""Names of the containers that run the programs. Other containers may be injected, in any order."""

INFERENCE_PORT = 8080
"""Port of all inference servers, on the Pod's IP."""
INFERENCE_PORT_NAME = "http"
INTERNAL_PORT = 9090
"""Port of the probes and metrics of all inference servers."""
INTERNAL_PORT_NAME = "internal"


INFERENCE_PRE_STOP_SECONDS = 5
"""Delay before a terminating inference server gets SIGTERM. Meanwhile, clients learn that it is being removed."""
INFERENCE_DRAIN_SECONDS = 15
"""Then it answers new requests for this time at most."""
INFERENCE_IDLE_SECONDS = 4
"""Then it waits this long for gateways that may still use an idle connection."""
INFERENCE_LAST_ANSWERS_SECONDS = 5
"""Requests in flight get this time. Then the process ends."""
INFERENCE_GRACE_SECONDS = (
    INFERENCE_PRE_STOP_SECONDS + INFERENCE_DRAIN_SECONDS + INFERENCE_IDLE_SECONDS + INFERENCE_LAST_ANSWERS_SECONDS + 1
)
"""Kubernetes kills the Pod of an inference server after this time."""

STORE_TOKEN_FILE = "/var/run/secrets/ocelli-store/token"
"""Where the ServiceAccount token for the embedded store is mounted."""
STORE_AUDIENCE = "ocelli-store"
"""Audience of ServiceAccount tokens that may read and write in the embedded store."""
SIGNING_SECRET_KEY = "key.pem"
"""Key of the Secret with the private key that signs artifacts."""
STORE_READ_AUDIENCE = "ocelli-store-read"
"""Audience of ServiceAccount tokens that may only read in it."""


class Component(StrEnum):
    """Values of the component label."""

    TRAINING = "training"
    INFERENCE = "inference"


class TrainingStep(StrEnum):
    """What a Job of a training does."""

    CHECK = "Check"
    """Reads and checks the data. The next step uses what it read."""
    TRAIN = "Train"
    """Trains, and reads and checks the data first if no Job has."""


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
    WORKERS = "OCELLI_WORKERS"
    WORKER = "JOB_COMPLETION_INDEX"
    """Kubernetes sets it in the Pods of an Indexed Job."""
    STEP = "OCELLI_STEP"
    BASELINE_REVISION = "OCELLI_BASELINE_REVISION"
    BACKBONES = "OCELLI_BACKBONES"
    FILE_SOURCES_FOLDER = "OCELLI_FILE_SOURCES_FOLDER"
    SOURCES_ALLOWED_NETWORKS = "OCELLI_SOURCES_ALLOWED_NETWORKS"
    SOURCES_DENIED_NETWORKS = "OCELLI_SOURCES_DENIED_NETWORKS"
    SOURCES_PROXY = "OCELLI_SOURCES_PROXY"
    SOURCES_CERTIFICATES = "OCELLI_SOURCES_CERTIFICATES"
    SOURCES_CACHE = "OCELLI_SOURCES_CACHE"
    SOURCES_IDENTITY_BUCKETS = "OCELLI_SOURCES_IDENTITY_BUCKETS"
    SOURCE_SECRETS_FOLDER = "OCELLI_SOURCE_SECRETS_FOLDER"
    SCRATCH_FOLDER = "OCELLI_SCRATCH_FOLDER"
    TERMINATION_MESSAGE_PATH = "TERMINATION_MESSAGE_PATH"
    CPU_LIMIT = "OCELLI_CPU_LIMIT"
    ACCELERATOR = "OCELLI_ACCELERATOR"
    ARTIFACT_DIGEST = "OCELLI_ARTIFACT_DIGEST"
    SIGNING_KEY = "OCELLI_SIGNING_KEY"
    SIGNING_PUBLIC_KEYS = "OCELLI_SIGNING_PUBLIC_KEYS"
    BIND_ADDRESS = "POD_IP"
    LOG_LEVEL = "OCELLI_LOG_LEVEL"


def deployment_name(classifier_name: str, revision: str) -> str:
    """Each revision that is served or rolled out has its own Deployment."""
    return f"{classifier_name}-{revision}"


def find_controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ownerReference of an object's controller; empty if there is none."""
    return next((item for item in metadata.get("ownerReferences") or () if item.get("controller")), {})


def is_inference_server(metadata: Mapping[str, Any]) -> bool:
    """Whether the Deployment of a revision created this Pod, which has the labels of an inference server.

    Labels alone are not enough: `kubectl debug`, for example, copies them. A ReplicaSet is named after its Deployment.
    """
    controller, labels = find_controller(metadata), metadata.get("labels") or {}
    expected = deployment_name(labels.get(CLASSIFIER_LABEL, ""), labels.get(REVISION_LABEL, ""))
    return bool(controller.get("kind") == "ReplicaSet" and controller.get("name", "").rpartition("-")[0] == expected)
