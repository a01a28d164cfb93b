"""Learning: how far the current revision is from having an artifact, and what brings it there. Pure.

It knows nothing of what serves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocelli_api.classifier import Accelerator, ClassifierStatus
from ocelli_api.conditions import Condition, ConditionType, DataValidReason, StalledReason, TrainedReason
from ocelli_api.outcome import Outcome, OutcomeReason
from ocelli_api.revision import definition, spec_revision, training_hash
from ocelli_operator.actions import Action, StartTraining, delete_child
from ocelli_operator.case import Case
from ocelli_operator.manifests.metadata import job_name, manifest_hash
from ocelli_operator.manifests.placement import GpuOffer, resolve_accelerator
from ocelli_operator.manifests.training_job import FINAL_EXIT_CODES, KILLED_EXIT_CODE, Attempt, build_training_job
from ocelli_operator.observed import (
    DEADLINE_EXCEEDED,
    EVICTED,
    POD_PATIENCE_SECONDS,
    ChildKind,
    ObservedJob,
    ObservedPod,
    StartKind,
    StoredArtifact,
)
from ocelli_operator.status import (
    NOT_CHECKED,
    Failure,
    Verdict,
    data_checked,
    failed_data,
    failed_for_want_of_gpu,
    failed_source,
    failed_training,
    false,
    learned,
    missing_revision,
    tell_gpu_not_offered,
    tell_refusal,
    waits_for_turn,
)

REFUSED_POLL_SECONDS = 30.0

TRAINING_FAILURES = frozenset({StalledReason.INVALID_DATA, StalledReason.SOURCE_UNREADABLE, StalledReason.TRAINING_FAILED})


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How far the current revision is from being learned."""

    artifact: StoredArtifact | None = None
    failure: Failure | None = None
    data_valid: Verdict = NOT_CHECKED
    trained: Verdict | None = None
    unschedulable: bool = False
    training: bool = False
    """An attempt is under way, or starts now."""
    running: bool = False
    """Its trainer runs, and reports progress."""
    look_again_seconds: float | None = None
    """When to look again though nothing changes: of a Pod that Kubernetes refuses only Events tell."""
    attempt: int = 0
    waits: frozenset[StartKind] = frozenset()
    """What has to wait until it is its turn."""
    actions: tuple[Action, ...] = ()


def next_attempt(status: ClassifierStatus, current: str) -> int:
    """The attempt that the current revision is in, or would begin with.

    It follows from status alone, so that a Job created before its status write was lost is found again by its name.
    """
    return status.attempt if status.training_revision == current else status.attempt + 1


def plan_learning(case: Case) -> Learning:
    """How far the current revision is from being learned, and what to do about that."""
    observed, status, spec = case.observed, case.status, case.classifier.spec
    under_way = status.training_revision == case.current
    attempt = next_attempt(status, case.current)
    if observed.artifact is not None:
        artifact = observed.artifact
        return Learning(
            artifact=artifact,
            data_valid=data_checked(spec),
            trained=learned(spec, artifact.revision, artifact),
            # A Job may have ended before a status write told of it.
            attempt=max([status.attempt, *(job.attempt for job in observed.jobs)]),
            actions=(*_delete_jobs(case, keep_revision=case.current, keep_attempt=None), *_delete_held_open(case)),
        )
    if spec.pinned_revision is not None and case.current != spec_revision(spec):
        if observed.store_trouble:
            return _wait_for_store(case, status.attempt, f"the artifact of revision {case.current} cannot be looked up")
        return _failed(case, missing_revision(case.classifier, case.current), status.attempt)
    if case.is_stalled_by(TRAINING_FAILURES) and status.failed_training_hash == training_hash(spec.training):
        # Its Job may still be there, where the attempt was given up before Kubernetes saw its end.
        given_up = _delete_jobs(case, keep_revision="", keep_attempt=None)
        return _failed(case, _remember_failure(status), status.attempt, given_up)

    name = job_name(case.owner.name, case.current, attempt)
    job = next((job for job in observed.jobs if job.identity.name == name), None)
    superseded = _delete_jobs(case, keep_revision=case.current, keep_attempt=attempt)
    learning = Learning(training=True, attempt=attempt, actions=superseded, data_valid=_judge_running_data(case, under_way))
    if (ChildKind.JOB, name) in observed.in_the_way:
        return replace(learning, trained=false(TrainedReason.QUEUED, observed.in_the_way[ChildKind.JOB, name]))
    if job is None:
        return _plan_start(case, learning, under_way)
    if job.identity.deleting:
        message = f"Job {job.identity.name} is being deleted; another one will take its place"
        return replace(learning, trained=false(TrainedReason.QUEUED, message))
    trainers = tuple(pod for pod in observed.trainers if pod.identity.owner_uid == job.identity.uid)
    if job.finished or any(pod.held_open or pod.end_reason == DEADLINE_EXCEEDED for pod in trainers):
        if observed.store_trouble and _find_told_failure(case, job, trainers) is None:
            message = f"training Job {job.identity.name} has ended, but what it stored cannot be read: {observed.store_trouble}"
            return replace(learning, trained=false(TrainedReason.TRAINING, message))
        failure = _find_failure(case, job, trainers)
        if failure.data_valid == NOT_CHECKED:
            failure = replace(failure, data_valid=learning.data_valid)
        return _failed(case, failure, attempt, superseded)
    return _plan_running(case, learning, job, trainers)


def _failed(case: Case, failure: Failure, attempt: int, superseded: tuple[Action, ...] | None = None) -> Learning:
    actions = _delete_jobs(case, keep_revision=case.current, keep_attempt=attempt) if superseded is None else superseded
    return Learning(failure=failure, data_valid=failure.data_valid, trained=failure.trained, attempt=attempt, actions=actions)


def _wait_for_store(case: Case, attempt: int, fact: str) -> Learning:
    """It is unknown whether the current revision is trained. What stalled before the outage stays stalled."""
    status = case.status
    if case.is_stalled_by(frozenset({StalledReason.REVISION_NOT_FOUND, StalledReason.GPU_NOT_OFFERED})):
        return _failed(case, _remember_failure(status), status.attempt)
    under_way = status.training_revision == case.current
    message = f"{fact}: {case.observed.store_trouble}; it is tried again until the store answers"
    return Learning(
        training=under_way,
        attempt=attempt if under_way else status.attempt,
        data_valid=_judge_running_data(case, under_way),
        trained=false(TrainedReason.QUEUED, message),
        actions=_delete_jobs(case, keep_revision=case.current, keep_attempt=attempt),
    )


def _plan_start(case: Case, learning: Learning, under_way: bool) -> Learning:
    """No Job of the attempt is there: it ended and went, it was deleted, or it never was."""
    attempt = learning.attempt
    if case.observed.store_trouble:
        return _wait_for_store(case, attempt, f"the training of revision {case.current} cannot start")
    outcome = case.observed.outcome if under_way else None
    if outcome is not None and not outcome.succeeded:
        return _failed(case, _failure_of_outcome(case, outcome), attempt, learning.actions)
    if outcome is not None:
        # It succeeded, and its artifact is lost: only another attempt brings it back.
        attempt += 1
    lingering = next((pod for pod in case.observed.trainers if pod.identity.revision == case.current and not pod.ended), None)
    if lingering is not None:
        # Two trainers of one revision would write to the same keys of the store.
        message = f"Pod {lingering.identity.name} of an earlier attempt has to end first"
        return replace(learning, attempt=attempt, trained=false(TrainedReason.QUEUED, message))
    accelerator = _resolve_accelerator(case)
    if accelerator is Accelerator.GPU and not case.settings.trainer_gpu_image:
        message = f"{case.classifier}: {tell_gpu_not_offered('spec.training', 'OCELLI_TRAINER_GPU_IMAGE')}"
        return _failed(case, failed_for_want_of_gpu(message), case.status.attempt, learning.actions)
    chosen = Attempt(revision=case.current, number=attempt, accelerator=accelerator)
    manifest = build_training_job(case.owner, case.settings, chosen)
    job = f"training Job {manifest['metadata']['name']}"
    refusal = case.observed.refusals.get(manifest_hash(manifest))
    if refusal is not None:
        failure = failed_training(f"{job}: the API server refuses it: {refusal}; correct spec.training")
        return _failed(case, failure, attempt, learning.actions)
    if StartKind.TRAINING not in case.observed.allowed_starts:
        message = waits_for_turn(job, f"{case.settings.trainings_starting_limit} trainings start")
        return replace(
            learning, attempt=attempt, waits=frozenset({StartKind.TRAINING}), trained=false(TrainedReason.QUEUED, message)
        )
    start = StartTraining(
        revision=case.current, attempt=attempt, definition=definition(case.classifier.spec), manifest=manifest
    )
    hindrance = case.observed.hindrances.get(start.manifest_hash)
    because = f", because an earlier one left nothing usable: {case.observed.store_fault}" if case.observed.store_fault else ""
    return replace(
        learning,
        attempt=attempt,
        trained=false(TrainedReason.QUEUED, f"{job} was created{because}" if hindrance is None else f"{job} {hindrance}"),
        actions=(*learning.actions, start),
    )


def _resolve_accelerator(case: Case) -> Accelerator:
    """GPU or CPU for a Job that is about to be made; a Job that is there keeps what it has, because Jobs are immutable."""
    # Where nothing is learned there is nothing for a GPU to do.
    nodes = case.observed.gpu_nodes if case.classifier.spec.pretrained is None else ()
    offer = GpuOffer(image=case.settings.trainer_gpu_image, gpu=case.settings.gpu, nodes=nodes)
    return resolve_accelerator(case.classifier.spec.training, offer)


def _plan_running(case: Case, learning: Learning, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Learning:
    name = job.identity.name
    alive = [pod for pod in trainers if not pod.terminal]
    running = [pod for pod in alive if pod.phase == "Running"]
    if not running and job.training_hash != training_hash(case.classifier.spec.training):
        # Nothing is lost yet, and what was changed may be what it waits for.
        message = f"training Job {name} is replaced, because spec.training was changed before it began"
        return replace(
            learning,
            attempt=learning.attempt + 1,
            trained=false(TrainedReason.QUEUED, message),
            actions=(*learning.actions, *delete_child(ChildKind.JOB, job.identity, message)),
        )
    homeless = next((pod for pod in alive if pod.unschedulable), None)
    if homeless is not None:
        message = (
            f"training Job {name}: no node can take its Pod: {homeless.unschedulable.rstrip('.')}; "
            "lower spec.training.resources, change its nodeSelector or tolerations, or add a node"
        )
        if homeless.gpu:
            message += ", or set spec.training.accelerator to CPU"
        return replace(learning, unschedulable=True, trained=false(TrainedReason.UNSCHEDULABLE, message))
    if running:
        retries = sum(pod.phase == "Failed" for pod in trainers)
        again = f", after {retries} that ended unexpectedly" if retries else ""
        return replace(learning, running=True, trained=false(TrainedReason.TRAINING, f"training Job {name} runs{again}"))
    if not alive and case.observed.pod_refusal:
        message = f"training Job {name} {tell_refusal(case.observed.pod_refusal)}"
        return replace(learning, trained=false(TrainedReason.QUEUED, message), look_again_seconds=REFUSED_POLL_SECONDS)
    waiting = next((pod.waiting for pod in alive if pod.waiting), "")
    facts = [_tell_ended(case, trainers)]
    if waiting:
        facts.append(f"its container waits: {waiting}")
    elif alive or not facts[0]:
        facts.append("its Pod has not started yet")
    message = f"training Job {name}: {'; '.join(fact for fact in facts if fact)}"
    if alive:
        return replace(learning, trained=false(TrainedReason.QUEUED, message))
    is_new = job.age_seconds(case.observed.now) < POD_PATIENCE_SECONDS
    return replace(
        learning,
        trained=false(TrainedReason.QUEUED, message),
        look_again_seconds=POD_PATIENCE_SECONDS if is_new else REFUSED_POLL_SECONDS,
    )


def _tell_ended(case: Case, trainers: tuple[ObservedPod, ...]) -> str:
    """How the last Pod ended that the Job replaces; empty where none ended."""
    ended = [pod for pod in trainers if pod.phase == "Failed"]
    if not ended:
        return ""
    last = max(ended, key=lambda pod: pod.created_at)
    said = last.outcome.message if last.outcome is not None else last.termination_message.strip()
    if not said and last.exit_code is not None:
        said = f"exit code {last.exit_code}"
    tries = case.classifier.spec.training.backoff_limit + 1
    fact = f"try {len(ended)} of {max(tries, len(ended))} ended unexpectedly" + (f" ({said})" if said else "")
    again = len(ended) < tries and last.exit_code not in FINAL_EXIT_CODES
    return f"{fact}; it is tried again shortly" if again else fact


def _judge_running_data(case: Case, under_way: bool) -> Verdict:
    if not under_way:
        return NOT_CHECKED
    if case.observed.progress is not None:
        return data_checked(case.classifier.spec) if case.observed.progress.data_valid else NOT_CHECKED
    # Between two Pods of one attempt there may be no progress to read.
    return data_checked(case.classifier.spec) if case.status.is_true(ConditionType.DATA_VALID) else NOT_CHECKED


def _delete_jobs(case: Case, *, keep_revision: str, keep_attempt: int | None) -> tuple[Action, ...]:
    """Superseded Jobs go: of several quick retrains the last one takes effect. Ended ones keep their logs for their TTL."""
    return tuple(
        action
        for job in case.observed.jobs
        if not job.finished
        and (job.identity.revision != keep_revision or (keep_attempt is not None and job.attempt != keep_attempt))
        for action in delete_child(ChildKind.JOB, job.identity, "another revision or attempt is wanted")
    )


def _delete_held_open(case: Case) -> tuple[Action, ...]:
    """Jobs that go on for no other reason than that a sidecar keeps their Pods running."""
    held = {pod.identity.owner_uid for pod in case.observed.trainers if pod.held_open}
    return tuple(
        action
        for job in case.observed.jobs
        if not job.finished and job.identity.uid in held and job.identity.revision == case.current
        for action in delete_child(ChildKind.JOB, job.identity, "its trainer has ended, and a sidecar keeps its Pod running")
    )


def _remember_failure(status: ClassifierStatus) -> Failure:
    """The failure that status tells of, in its own words."""

    def verdict(condition: Condition | None, otherwise: Verdict) -> Verdict:
        if condition is None:
            return otherwise
        reasons = DataValidReason if condition.type == ConditionType.DATA_VALID else TrainedReason
        return Verdict(status=condition.status, reason=reasons(condition.reason), message=condition.message)

    stalled = status.condition(ConditionType.STALLED)
    assert stalled is not None
    failure = failed_training(stalled.message)
    return Failure(
        reason=StalledReason(stalled.reason),
        message=stalled.message,
        data_valid=verdict(status.condition(ConditionType.DATA_VALID), failure.data_valid),
        trained=verdict(status.condition(ConditionType.TRAINED), failure.trained),
    )


def _find_told_failure(case: Case, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Outcome | None:
    """The outcome that the last Pod of a failed Job left behind; None where it left none."""
    last = max(trainers, key=lambda pod: pod.created_at, default=None)
    told = last.outcome if last is not None else None
    if told is None or told.succeeded or (told.attempt, told.revision) != (job.attempt, case.current):
        return None
    return told


def _find_failure(case: Case, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Failure:
    """Why a finished Job left no artifact."""
    name = job.identity.name
    last = max(trainers, key=lambda pod: pod.created_at, default=None)
    told = last.outcome if last is not None else None
    outcome = told or case.observed.outcome
    if outcome is not None and outcome.attempt == job.attempt and outcome.revision == case.current:
        if not outcome.succeeded:
            return _failure_of_outcome(case, outcome)
        if job.succeeded and not case.observed.store_fault:
            return failed_training(
                f"training Job {name}: it succeeded, but the store holds no artifact of revision {case.current}; "
                "raise spec.retrainNonce to train again"
            )
    if job.succeeded and case.observed.store_fault:
        return failed_training(
            f"training Job {name}: it succeeded, but what it stored cannot be used: {case.observed.store_fault}; "
            "raise spec.retrainNonce to train again"
        )
    training = case.classifier.spec.training
    if last is not None and last.end_reason == EVICTED:
        return failed_training(
            f"training Job {name}: its Pod was evicted: {last.end_message.rstrip('. ') or 'its node was short of resources'}; "
            "use less, or have the installation's limits raised, then raise spec.retrainNonce to train again"
        )
    killed = next((pod for pod in trainers if pod.exit_reason == "OOMKilled"), None)
    if killed is not None:
        limit = f" of {killed.memory_limit}" if killed.memory_limit else ""
        return failed_training(
            f"training Job {name}: the trainer ran out of memory at its limit{limit}; "
            "raise spec.training.resources.limits.memory"
        )
    # Jobs of earlier releases have a deadline of their own.
    if DEADLINE_EXCEEDED in (job.failure_reason, *(pod.end_reason for pod in trainers)):
        return failed_training(
            f"training Job {name}: it did not end within {training.active_deadline_seconds} seconds; "
            "raise spec.training.activeDeadlineSeconds, or give it more in spec.training.resources"
        )
    if last is not None and last.exit_code == KILLED_EXIT_CODE:
        return failed_training(
            f"training Job {name}: the trainer was killed (exit code {KILLED_EXIT_CODE}), most likely because its node ran "
            "out of memory; raise spec.training.resources, then spec.retrainNonce"
        )
    if last is not None and last.exit_code is not None:
        ended = f"the trainer ended with exit code {last.exit_code}"
        said = f" and said: {last.termination_message.strip()}" if last.termination_message.strip() else ""
        return failed_training(
            f"training Job {name}: {ended}{said}; read `kubectl logs job/{name}`, then raise spec.retrainNonce to try again"
        )
    told_by_job = job.failure_message or job.failure_reason or "it failed without a message"
    return failed_training(f"training Job {name}: {told_by_job}; raise spec.retrainNonce to try again")


def _failure_of_outcome(case: Case, outcome: Outcome) -> Failure:
    failures = {OutcomeReason.INVALID_DATA: failed_data, OutcomeReason.SOURCE_UNREADABLE: failed_source}
    failed = failures.get(outcome.reason)
    if failed is None:
        return failed_training(outcome.message)
    spec = case.classifier.spec
    # Files can be put where they were missed, without any change of the spec.
    if spec.pretrained is not None:
        return failed(f"{outcome.message.rstrip('.')}; then raise spec.retrainNonce to have it tried again")
    # An upload can only be replaced by another one, which is another spec; behind an address the file itself can be mended.
    if any(source.url for source in spec.sources):
        return failed(f"{outcome.message.rstrip('.')}; then raise spec.retrainNonce to read the sources again")
    return failed(outcome.message)
