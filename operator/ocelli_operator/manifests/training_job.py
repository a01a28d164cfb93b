"""The Job that learns one revision, in one attempt."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.outcome import ExitCode
from ocelli_api.pods import STORE_AUDIENCE, Component, Environment
from ocelli_api.revision import training_hash
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.metadata import (
    ATTEMPT_LABEL,
    TRAINING_HASH_ANNOTATION,
    ChildOwner,
    build_labels,
    build_metadata,
    job_name,
)
from ocelli_operator.manifests.pod import SCRATCH_PATH, build_cpu_limit, build_environment, build_pod_spec, build_program

CONTAINER_NAME = "trainer"
KILLED_EXIT_CODE = 137
"""128 + SIGKILL: with a memory limit nearly always want of memory, which another attempt would meet again."""
FINAL_EXIT_CODES = (int(ExitCode.INVALID_DATA), int(ExitCode.MISCONFIGURED), KILLED_EXIT_CODE)
"""The Job does not try again after one of these."""


def build_training_job(owner: ChildOwner, settings: ChildSettings, revision: str, attempt: int) -> Manifest:
    """The Job of an attempt at a revision.

    Its Pods are not tried again after bad data, a missing backbone or a kill (exit codes 64, 65, 137), and for free after a
    disruption: the rules are read in their order, so that a Pod killed by a drain counts as disrupted.
    """
    training = owner.classifier.spec.training
    labels = {**build_labels(owner, Component.TRAINING, revision), ATTEMPT_LABEL: str(attempt)}
    metadata = build_metadata(owner, job_name(owner.name, revision, attempt), labels)
    metadata["annotations"] = {TRAINING_HASH_ANNOTATION: training_hash(training)}
    container = _build_container(owner, settings, revision, attempt)
    pod_spec = build_pod_spec(container, training, settings, store_audience=STORE_AUDIENCE)
    pod_spec["restartPolicy"] = "Never"
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
                            "values": list(FINAL_EXIT_CODES),
                        },
                    },
                ]
            },
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec},
        },
    }


def _build_container(owner: ChildOwner, settings: ChildSettings, revision: str, attempt: int) -> Manifest:
    own: dict[str, str] = {
        Environment.ATTEMPT: str(attempt),
        Environment.BACKBONES: settings.backbones,
        Environment.FILE_SOURCES_FOLDER: settings.file_sources_folder,
        Environment.SCRATCH_FOLDER: SCRATCH_PATH,
    }
    resources = owner.classifier.spec.training.resources or settings.trainer_resources
    return {
        **build_program(CONTAINER_NAME, "ocelli_training", settings.trainer_image, settings),
        "env": [*build_environment(owner, settings, revision, own), build_cpu_limit()],
        "resources": {kind: dict(quantities) for kind, quantities in resources.items()},
    }
