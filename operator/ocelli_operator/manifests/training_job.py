"""The Jobs of a training: one that checks its data without a GPU, where that comes first, and one that trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ocelli_api.classifier import Accelerator, Manifest
from ocelli_api.outcome import ExitCode
from ocelli_api.pods import (
    ACCELERATOR_LABEL,
    STEP_LABEL,
    STORE_AUDIENCE,
    TRAINER_CONTAINER,
    Component,
    Environment,
    TrainingStep,
)
from ocelli_api.revision import training_hash
from ocelli_api.source_secrets import SOURCE_SECRET_KEYS, SOURCE_SECRETS_FOLDER, find_secret_names
from ocelli_operator.manifests.metadata import (
    ATTEMPT_LABEL,
    QUEUE_LABEL,
    TRAINING_HASH_ANNOTATION,
    ChildOwner,
    build_labels,
    build_metadata,
    job_name,
)
from ocelli_operator.manifests.placement import build_placement
from ocelli_operator.manifests.pod import (
    SCRATCH_PATH,
    PodNeeds,
    build_cpu_limit,
    build_environment,
    build_pod_spec,
    build_program,
    build_resources,
    build_signing_key,
    without_gpus,
)
from ocelli_operator.manifests.workers import build_completions, build_worker_environment, build_worker_rules
from ocelli_operator.settings import ChildSettings

KILLED_EXIT_CODE = 137
"""128 + SIGKILL: with a memory limit nearly always out of memory, which another try would be as well."""
FINAL_EXIT_CODES = (int(ExitCode.INVALID_DATA), int(ExitCode.MISCONFIGURED), KILLED_EXIT_CODE)
"""The Job does not retry after one of these."""
_SIGTERM_EXIT_CODE = 143
"""128 + SIGTERM. A Job that Kueue suspends loses its Pod without the condition `DisruptionTarget`."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Which attempt at which revision, and whether it runs on a GPU."""

    revision: str
    number: int
    step: TrainingStep = TrainingStep.TRAIN
    accelerator: Accelerator = Accelerator.CPU
    """Not `Auto`; `CPU` for a check."""
    baseline_revision: str = ""
    """The revision that serves, which the new one is compared with; empty: there is none."""


def build_training_job(owner: ChildOwner, settings: ChildSettings, attempt: Attempt) -> Manifest:
    """The Job of an attempt at a revision.

    Kubernetes does not retry after invalid data, a missing backbone or a kill (exit codes 64, 65, 137). Retries after a
    disruption do not count. The first matching rule applies, so that a Pod killed by a node drain counts as disrupted.

    Several workers are the Pods of an Indexed Job. Those that end because another one was lost do not count as retries either.

    A training Job for a queue of Kueue is created suspended: Kueue's webhook would do the same, and where there is no webhook,
    Kueue would suspend it after its Pod has started. Retries after Kueue has suspended a running Job do not count either.

    A check has one worker. It needs no place in a queue: it uses no GPU, and what it finds should be known before the training
    waits.
    """
    training = owner.classifier.spec.training
    labels = {
        **build_labels(owner, Component.TRAINING, attempt.revision),
        ATTEMPT_LABEL: str(attempt.number),
        ACCELERATOR_LABEL: str(attempt.accelerator),
    }
    if attempt.step is TrainingStep.CHECK:
        labels[STEP_LABEL] = str(attempt.step)
    workers = _count_workers(owner, attempt)
    name = job_name(owner.name, attempt.revision, attempt.number, attempt.step, workers=workers)
    metadata = build_metadata(owner, name, labels)
    metadata["annotations"] = {TRAINING_HASH_ANNOTATION: training_hash(training)}
    container = _build_container(owner, settings, attempt)
    placement = build_placement(training, settings.gpu, attempt.accelerator)
    needs = PodNeeds(store_audience=STORE_AUDIENCE, scratch_size=settings.trainer_scratch_size)
    pod_spec = build_pod_spec(container, placement, settings, needs)
    secret_names = find_secret_names(owner.classifier.spec.sources)
    if secret_names:
        _mount_secrets(pod_spec, secret_names)
    pod_spec["restartPolicy"] = "Never"
    # On the Pod, not on the Job: it starts when a node has accepted the Pod, so waiting for a GPU or a quota does not count.
    pod_spec["activeDeadlineSeconds"] = training.active_deadline_seconds
    if training.priority_class_name:
        pod_spec["priorityClassName"] = training.priority_class_name
    queued: Manifest = {}
    ignored = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    if training.queue_name is not None and attempt.step is TrainingStep.TRAIN:
        metadata["labels"] = {**labels, QUEUE_LABEL: training.queue_name}
        queued = {"suspend": True}
        ignored.append(_build_exit_code_rule("Ignore", [_SIGTERM_EXIT_CODE]))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            **build_completions(workers),
            **queued,
            "backoffLimit": training.backoff_limit,
            "ttlSecondsAfterFinished": settings.job_ttl_seconds,
            # Two trainers of one attempt would write to the same keys of the store.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [*ignored, *build_worker_rules(workers), _build_exit_code_rule("FailJob", FINAL_EXIT_CODES)]
            },
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec},
        },
    }


def _count_workers(owner: ChildOwner, attempt: Attempt) -> int:
    return 1 if attempt.step is TrainingStep.CHECK else owner.classifier.spec.training.workers


def _build_exit_code_rule(action: str, exit_codes: Iterable[int]) -> Manifest:
    on_exit_codes = {"containerName": TRAINER_CONTAINER, "operator": "In", "values": list(exit_codes)}
    return {"action": action, "onExitCodes": on_exit_codes}


def _build_container(owner: ChildOwner, settings: ChildSettings, attempt: Attempt) -> Manifest:
    training = owner.classifier.spec.training
    own: dict[str, str] = {
        Environment.ATTEMPT: str(attempt.number),
        # Left out where it is the default, as in Jobs of earlier releases.
        Environment.STEP: str(attempt.step) if attempt.step is TrainingStep.CHECK else "",
        Environment.ACCELERATOR: str(_requested_accelerator(training.accelerator, attempt.accelerator)),
        Environment.BASELINE_REVISION: attempt.baseline_revision,
        Environment.BACKBONES: settings.backbones,
        Environment.FILE_SOURCES_FOLDER: settings.file_sources_folder,
        Environment.SCRATCH_FOLDER: SCRATCH_PATH,
        Environment.SOURCES_ALLOWED_NETWORKS: settings.sources_allowed_networks,
        Environment.SOURCES_DENIED_NETWORKS: settings.sources_denied_networks,
        Environment.SOURCES_PROXY: settings.sources_proxy,
        Environment.SOURCES_CERTIFICATES: settings.sources_certificates,
        Environment.SOURCES_CACHE: "true" if settings.sources_cache else "",
        Environment.SOURCES_IDENTITY_BUCKETS: ",".join(sorted(settings.sources_identity_buckets)),
        Environment.SOURCE_SECRETS_FOLDER: SOURCE_SECRETS_FOLDER if find_secret_names(owner.classifier.spec.sources) else "",
    }
    image = settings.trainer_gpu_image if attempt.accelerator is Accelerator.GPU else settings.trainer_image
    resources, signing_key = training.resources or settings.trainer_resources, build_signing_key(settings)
    if attempt.step is TrainingStep.CHECK:
        # It signs nothing.
        resources, signing_key = without_gpus(resources, settings.gpu), []
    return {
        **build_program(TRAINER_CONTAINER, "ocelli_training", image, settings),
        "env": [
            *build_environment(owner, settings, attempt.revision, own),
            *signing_key,
            build_cpu_limit(),
            *build_worker_environment(_count_workers(owner, attempt)),
        ],
        "resources": build_resources(resources, settings.gpu, attempt.accelerator),
    }


def _mount_secrets(pod_spec: Manifest, names: Sequence[str]) -> None:
    """Mount the Secrets of sources, each in a folder of its own.

    Only the keys for sources are mounted, so that a Secret of another purpose stays unknown to the trainer. A Secret that is
    missing must not keep the Pod from starting: the trainer then says which one.
    """
    sources = [
        {
            "secret": {
                "name": name,
                "optional": True,
                "items": [{"key": key, "path": f"{name}/{key}"} for key in SOURCE_SECRET_KEYS],
            }
        }
        for name in names
    ]
    pod_spec["volumes"].append({"name": "source-secrets", "projected": {"sources": sources}})
    mount = {"name": "source-secrets", "mountPath": SOURCE_SECRETS_FOLDER, "readOnly": True}
    pod_spec["containers"][0]["volumeMounts"].append(mount)


def _requested_accelerator(asked: Accelerator, accelerator: Accelerator) -> Accelerator:
    """What the trainer has to use. `Auto` allows it to continue without its GPU; `CPU` keeps it from a GPU of another Pod."""
    return asked if asked is Accelerator.AUTO and accelerator is Accelerator.GPU else accelerator
