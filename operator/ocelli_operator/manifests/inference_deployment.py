"""The Deployment that serves one revision."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.pods import INFERENCE_PORT, INFERENCE_PORT_NAME, Component, Environment
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.metadata import (
    SCRATCH_PATH,
    ChildOwner,
    build_container_security_context,
    build_labels,
    build_metadata,
    build_pod_security_context,
    deployment_name,
    selector_labels,
)

CONTAINER_NAME = "inference"
TERMINATION_GRACE_SECONDS = 30
DRAIN_SECONDS = 5
"""A terminating Pod goes on answering for so long, until everybody knows that it should not be asked any more."""
STARTUP_LIMIT_SECONDS = 300


def build_inference_deployment(owner: ChildOwner, settings: ChildSettings, revision: str, replicas: int) -> Manifest:
    """The Deployment of a revision. Readiness means that this revision answered a real prediction."""
    serving = owner.classifier.spec.serving
    labels = build_labels(owner, Component.INFERENCE, revision)
    selector = selector_labels(owner.name, Component.INFERENCE, revision)
    pod_spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": build_pod_security_context(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(selector)},
            }
        ],
        "containers": [_build_container(owner, settings, revision)],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if serving.node_selector:
        pod_spec["nodeSelector"] = dict(serving.node_selector)
    if serving.tolerations:
        pod_spec["tolerations"] = [dict(toleration) for toleration in serving.tolerations]
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
    values = {
        Environment.STORE_URL: settings.store_url,
        Environment.CLASSIFIER: f"{owner.namespace}/{owner.name}",
        Environment.NAMESPACE: owner.namespace,
        Environment.CLASSIFIER_ID: owner.classifier_id,
        Environment.REVISION: revision,
        Environment.TERMINATION_MESSAGE_PATH: "/dev/termination-log",
        Environment.LOG_LEVEL: settings.log_level,
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
    }
    resources = owner.classifier.spec.serving.resources or settings.inference_resources
    return {
        "name": CONTAINER_NAME,
        "image": settings.inference_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "ocelli_inference"],
        "env": [
            *({"name": str(name), "value": value} for name, value in values.items()),
            {"name": str(Environment.BIND_ADDRESS), "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": str(Environment.CPU_LIMIT), "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
        ],
        "ports": [{"name": INFERENCE_PORT_NAME, "containerPort": INFERENCE_PORT, "protocol": "TCP"}],
        "resources": {kind: dict(quantities) for kind, quantities in resources.items()},
        "securityContext": build_container_security_context(),
        "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH_PATH}],
        "startupProbe": {**_build_probe("/healthz"), "periodSeconds": 1, "failureThreshold": STARTUP_LIMIT_SECONDS},
        "readinessProbe": {**_build_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {**_build_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
    }


def _build_probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": INFERENCE_PORT_NAME}, "timeoutSeconds": 5}
