"""The Deployment that serves one revision."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.pods import INFERENCE_PORT, INFERENCE_PORT_NAME, STORE_READ_AUDIENCE, Component, Environment
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.metadata import (
    ChildOwner,
    build_labels,
    build_metadata,
    deployment_name,
    selector_labels,
)
from ocelli_operator.manifests.pod import build_cpu_limit, build_environment, build_pod_spec, build_program

CONTAINER_NAME = "inference"
DRAIN_SECONDS = 5
"""A terminating Pod goes on answering for so long, until everybody knows that it should not be asked any more."""
STARTUP_LIMIT_SECONDS = 300


def build_inference_deployment(owner: ChildOwner, settings: ChildSettings, revision: str, replicas: int) -> Manifest:
    """The Deployment of a revision. Readiness means that this revision answered a real prediction."""
    serving = owner.classifier.spec.serving
    labels = build_labels(owner, Component.INFERENCE, revision)
    selector = selector_labels(owner.name, Component.INFERENCE, revision)
    container = _build_container(owner, settings, revision)
    pod_spec = build_pod_spec(container, serving, settings, store_audience=STORE_READ_AUDIENCE)
    pod_spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(selector)},
        }
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(owner, deployment_name(owner.name, revision), labels),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": settings.rollout_deadline_seconds,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec},
        },
    }


def _build_container(owner: ChildOwner, settings: ChildSettings, revision: str) -> Manifest:
    resources = owner.classifier.spec.serving.resources or settings.inference_resources
    return {
        **build_program(CONTAINER_NAME, "ocelli_inference", settings.inference_image, settings),
        "env": [
            *build_environment(owner, settings, revision, {}),
            {"name": str(Environment.BIND_ADDRESS), "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            build_cpu_limit(),
        ],
        "ports": [{"name": INFERENCE_PORT_NAME, "containerPort": INFERENCE_PORT, "protocol": "TCP"}],
        "resources": {kind: dict(quantities) for kind, quantities in resources.items()},
        "startupProbe": {**_build_probe("/healthz"), "periodSeconds": 1, "failureThreshold": STARTUP_LIMIT_SECONDS},
        "readinessProbe": {**_build_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {**_build_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
    }


def _build_probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": INFERENCE_PORT_NAME}, "timeoutSeconds": 5}
