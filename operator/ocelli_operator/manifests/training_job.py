"""The Job that learns one revision, in one attempt."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.outcome import ExitCode
from ocelli_api.pods import Component, Environment
from ocelli_api.revision import training_hash
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.metadata import (
    ATTEMPT_LABEL,
    SCRATCH_PATH,
    TRAINING_HASH_ANNOTATION,
    ChildOwner,
    build_container_security_context,
    build_labels,
    build_metadata,
    build_pod_security_context,
    job_name,
)

CONTAINER_NAME = "trainer"
KILLED_EXIT_CODE = 137
"""128 + SIGKILL: with a memory limit nearly always want of memory, which another attempt would meet again."""
TERMINATION_GRACE_SECONDS = 30


def build_training_job(owner: ChildOwner, settings: ChildSettings, revision: str, attempt: int) -> Manifest:
    """The Job of an attempt at a revision.

    Its Pods are not tried again after bad data, a missing backbone or a kill (exit codes 64, 65, 137), and for free after a
    disruption: the rules are read in their order, so that a Pod killed by a drain counts as disrupted.
    """
    training = owner.classifier.spec.training
    labels = {**build_labels(owner, Component.TRAINING, revision), ATTEMPT_LABEL: str(attempt)}
    metadata = build_metadata(owner, job_name(owner.name, revision, attempt), labels)
    metadata["annotations"] = {TRAINING_HASH_ANNOTATION: training_hash(training)}
    pod_spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": build_pod_security_context(),
        "containers": [_build_container(owner, settings, revision, attempt)],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if training.node_selector:
        pod_spec["nodeSelector"] = dict(training.node_selector)
    if training.tolerations:
        pod_spec["tolerations"] = [dict(toleration) for toleration in training.tolerations]
    if training.priority_class_name:
        pod_spec["priorityClassName"] = training.priority_class_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": training.backoff_limit,
            "activeDeadlineSeconds": training.active_deadline_seconds,
            "ttlSecondsAfterFinished": settings.job_ttl_seconds,
            # Two trainers of one attempt would write to the same keys of the store.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER_NAME,
                            "operator": "In",
                            "values": [int(ExitCode.INVALID_DATA), int(ExitCode.MISCONFIGURED), KILLED_EXIT_CODE],
                        },
                    },
                ]
            },
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec},
        },
    }


def _build_container(owner: ChildOwner, settings: ChildSettings, revision: str, attempt: int) -> Manifest:
    values = {
        Environment.STORE_URL: settings.store_url,
        Environment.CLASSIFIER: f"{owner.namespace}/{owner.name}",
        Environment.NAMESPACE: owner.namespace,
        Environment.CLASSIFIER_ID: owner.classifier_id,
        Environment.REVISION: revision,
        Environment.ATTEMPT: str(attempt),
        Environment.BACKBONES: settings.backbones,
        Environment.FILE_SOURCES_FOLDER: settings.file_sources_folder,
        Environment.SCRATCH_FOLDER: SCRATCH_PATH,
        Environment.TERMINATION_MESSAGE_PATH: "/dev/termination-log",
        Environment.LOG_LEVEL: settings.log_level,
        # Libraries write caches and temporary files to these, and the root file system is read-only.
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
    }
    resources = owner.classifier.spec.training.resources or settings.trainer_resources
    return {
        "name": CONTAINER_NAME,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "ocelli_training"],
        "env": [
            *({"name": str(name), "value": value} for name, value in values.items() if value),
            {"name": str(Environment.CPU_LIMIT), "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
        ],
        "resources": {kind: dict(quantities) for kind, quantities in resources.items()},
        "securityContext": build_container_security_context(),
        "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH_PATH}],
    }
