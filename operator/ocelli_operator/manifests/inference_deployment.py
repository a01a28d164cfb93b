"""The Deployment that serves one revision."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ocelli_api.classifier import Accelerator, Manifest, Serving
from ocelli_api.pods import (
    ACCELERATOR_LABEL,
    INFERENCE_CONTAINER,
    INFERENCE_GRACE_SECONDS,
    INFERENCE_PORT,
    INFERENCE_PORT_NAME,
    INFERENCE_PRE_STOP_SECONDS,
    INTERNAL_PORT,
    INTERNAL_PORT_NAME,
    STORE_READ_AUDIENCE,
    Component,
    Environment,
    deployment_name,
)
from ocelli_operator.manifests.metadata import (
    PLACEMENT_HASH_ANNOTATION,
    SERVING_HASH_ANNOTATION,
    ChildOwner,
    build_labels,
    build_metadata,
    manifest_hash,
    selector_labels,
)
from ocelli_operator.manifests.placement import build_placement, placement_hash
from ocelli_operator.manifests.pod import (
    PodNeeds,
    build_cpu_limit,
    build_environment,
    build_pod_spec,
    build_program,
    build_resources,
)
from ocelli_operator.settings import ChildSettings

STARTUP_LIMIT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class InferenceServers:
    """How many servers of which revision, and whether they run on a GPU."""

    revision: str
    replicas: int
    accelerator: Accelerator = Accelerator.CPU
    """Not `Auto`."""
    artifact_digest: str = ""
    """Digest that the revision's artifact must have; empty: it is not known."""


def build_inference_deployment(owner: ChildOwner, settings: ChildSettings, servers: InferenceServers) -> Manifest:
    """The Deployment of a revision. A ready Pod has answered a real prediction with this revision."""
    serving = owner.classifier.spec.serving
    labels = {
        **build_labels(owner, Component.INFERENCE, servers.revision),
        ACCELERATOR_LABEL: str(servers.accelerator),
    }
    selector = selector_labels(owner.name, Component.INFERENCE, servers.revision)
    container = _build_container(owner, settings, servers)
    placement = build_placement(serving, settings.gpu, servers.accelerator)
    needs = PodNeeds(
        store_audience=STORE_READ_AUDIENCE,
        scratch_size=settings.inference_scratch_size,
        grace_seconds=INFERENCE_GRACE_SECONDS,
    )
    pod_spec = build_pod_spec(container, placement, settings, needs)
    pod_spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(selector)},
        }
    ]
    metadata = build_metadata(owner, deployment_name(owner.name, servers.revision), labels)
    metadata["annotations"] = {
        PLACEMENT_HASH_ANNOTATION: placement_hash(serving, settings.gpu),
        SERVING_HASH_ANNOTATION: serving_hash(serving),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": servers.replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": settings.rollout_deadline_seconds,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec},
        },
    }


def serving_hash(serving: Serving) -> str:
    """Sixteen hex digits over `spec.serving`."""
    return manifest_hash(asdict(serving))


def _build_container(owner: ChildOwner, settings: ChildSettings, servers: InferenceServers) -> Manifest:
    serving = owner.classifier.spec.serving
    image = settings.inference_gpu_image if servers.accelerator is Accelerator.GPU else settings.inference_image
    resources = serving.resources or settings.inference_resources
    # Without whether `Auto` or the user chose it: a change of only that would replace the servers.
    own: dict[str, str] = {
        Environment.ACCELERATOR: str(servers.accelerator),
        Environment.ARTIFACT_DIGEST: servers.artifact_digest,
    }
    return {
        **build_program(INFERENCE_CONTAINER, "ocelli_inference", image, settings),
        "env": [
            *build_environment(owner, settings, servers.revision, own),
            {"name": str(Environment.BIND_ADDRESS), "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            build_cpu_limit(),
        ],
        "ports": [
            {"name": INFERENCE_PORT_NAME, "containerPort": INFERENCE_PORT, "protocol": "TCP"},
            {"name": INTERNAL_PORT_NAME, "containerPort": INTERNAL_PORT, "protocol": "TCP"},
        ],
        "resources": build_resources(resources, settings.gpu, servers.accelerator),
        "startupProbe": {**_build_probe("/healthz"), "periodSeconds": 1, "failureThreshold": STARTUP_LIMIT_SECONDS},
        "readinessProbe": {**_build_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {**_build_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(INFERENCE_PRE_STOP_SECONDS)]}}},
    }


def _build_probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": INTERNAL_PORT_NAME}, "timeoutSeconds": 5}
