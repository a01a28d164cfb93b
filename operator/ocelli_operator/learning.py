"""Learning: how far the current revision is from having an artifact, and the actions that bring it there. Pure.

It knows nothing about serving.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocelli_api.classifier import Accelerator
from ocelli_api.classifier_status import ClassifierStatus, HistoryEntry
from ocelli_api.conditions import ConditionStatus, ConditionType, DataValidReason, StalledReason, TrainedReason
from ocelli_api.outcome import Outcome
from ocelli_api.pods import TrainingStep
from ocelli_api.polled_sources import needs_poll
from ocelli_api.revision import definition, own_revision, training_hash
from ocelli_operator.actions import Action, StartTraining, delete_child
from ocelli_operator.failure import (
    TRAINING_FAILURES,
    Failure,
    failed_learning,
    failed_outcome,
    revision_not_found,
)
from ocelli_operator.job_endings import describe_failed_pods, describe_failure, find_outcome
from ocelli_operator.job_workers import count_failures, count_running, ends_attempt, name_pod
from ocelli_operator.kueue import describe_admission
from ocelli_operator.manifests.metadata import job_names
from ocelli_operator.manifests.placement import GpuOffer, resolve_accelerator
from ocelli_operator.manifests.training_job import Attempt, build_training_job
from ocelli_operator.observed import (
    DEADLINE_EXCEEDED,
    POD_PATIENCE_SECONDS,
    ChildKind,
    ObservedJob,
    ObservedPod,
    StartKind,
)
from ocelli_operator.snapshot import Snapshot
from ocelli_operator.status import (
    NOT_CHECKED,
    Verdict,
    data_checked,
    false,
    gpu_not_offered_message,
    refusal_message,
    trained,
    training_turn_message,
    true,
)
from ocelli_operator.workers_policy import plan_workers_policy

PROGRESS_POLL_SECONDS = 2.0
REFUSED_POLL_SECONDS = 30.0
QUEUE_FIRST_POLL_SECONDS = 2.0
QUEUE_PATIENCE_SECONDS = 30.0
"""Kueue says why a Job waits some seconds after it was created. Later its message is read every `REFUSED_POLL_SECONDS`."""

_BEFORE_TRAINING = frozenset({StalledReason.REVISION_NOT_FOUND, StalledReason.GPU_NOT_OFFERED})


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How far the current revision is from being trained."""

    trained: Verdict
    data_valid: Verdict = NOT_CHECKED
    artifact: HistoryEntry | None = None
    failure: Failure | None = None
    training: bool = False
    """An attempt is in progress, or starts now."""
    attempt: int = 0
    suspended: bool = False
    """It is not trained, because `spec.suspend` is true, and nothing is left to be checked."""
    waits: frozenset[StartKind] = frozenset()
    """What has to wait for its turn."""
    requeue_after_seconds: float | None = None
    """When to reconcile again although nothing changes: progress is polled, and only Events report a refused Pod."""
    actions: tuple[Action, ...] = ()

    def because(self, message: str, reason: TrainedReason = TrainedReason.QUEUED) -> Learning:
        """The same, with the reason why it is not trained yet."""
        return replace(self, trained=false(reason, message))


def next_attempt(status: ClassifierStatus, current: str) -> int:
    """The attempt that the current revision is in, or would start with.

    It follows from status alone, so that a Job created before its status write was lost is found again by its name.
    """
    return status.attempt if status.training_revision == current else status.attempt + 1


def plan_learning(snapshot: Snapshot) -> Learning:
    """How far the current revision is from being trained, and what to do about that."""
    observed, status, spec = snapshot.observed, snapshot.status, snapshot.classifier.spec
    artifact, last = observed.artifact, snapshot.last_failure
    if artifact is not None:
        return Learning(
            artifact=artifact,
            data_valid=data_checked(spec),
            trained=trained(spec, artifact.revision, artifact),
            # A Job may have ended before a status write recorded it.
            attempt=max([status.attempt, *(job.attempt for job in observed.jobs)]),
            actions=(*_delete_jobs(snapshot), *_delete_held_open(snapshot)),
        )
    if spec.pinned_revision is not None and snapshot.current != own_revision(snapshot.classifier):
        if observed.store_error:
            return _wait_for_store(snapshot, status.attempt, f"the artifact of revision {snapshot.current} cannot be looked up")
        return _failed(
            revision_not_found(snapshot.classifier, snapshot.current),
            status.attempt,
            _delete_jobs(snapshot, keep_attempt=status.attempt),
        )
    if last is not None and last.failure.reason in TRAINING_FAILURES and last.training_hash == training_hash(spec.training):
        # Its Job may still exist, if the operator gave up the attempt before Kubernetes ended it.
        return _failed(last.failure, status.attempt, _delete_jobs(snapshot, keep_revision=""))

    attempt = next_attempt(status, snapshot.current)
    learning = Learning(
        training=True,
        attempt=attempt,
        actions=_delete_jobs(snapshot, keep_attempt=attempt),
        data_valid=_judge_running_data(snapshot),
        trained=false(TrainedReason.QUEUED, ""),
    )
    jobs = {step: job_names(snapshot.owner.name, snapshot.current, attempt, step) for step in TrainingStep}
    found = {step: next((job for job in observed.jobs if job.identity.name in names), None) for step, names in jobs.items()}
    train, check = found[TrainingStep.TRAIN], found[TrainingStep.CHECK]
    if spec.suspend and train is not None and not train.finished and not train.identity.deleting:
        message = f"training Job {train.identity.name} is stopped, because spec.suspend is true"
        actions = (*learning.actions, *delete_child(ChildKind.JOB, train.identity, "spec.suspend is true"))
        return replace(learning.because(message), actions=actions)
    if train is not None:
        return _plan_job(snapshot, learning, train)
    if check is not None and not (check.finished and observed.check is not None):
        return _plan_job(snapshot, learning, check)
    return _plan_next_step(snapshot, learning)


def _plan_job(snapshot: Snapshot, learning: Learning, job: ObservedJob) -> Learning:
    """A Job of the attempt exists."""
    observed, spec, name = snapshot.observed, snapshot.classifier.spec, job.identity.name
    conflict = snapshot.name_conflicts.get((ChildKind.JOB, name))
    if conflict is not None:
        return learning.because(conflict)
    if job.identity.deleting:
        follows = "the check of its data follows" if spec.suspend else "it is recreated after that"
        return learning.because(f"{_describe_job(job.step, name)} is being deleted; {follows}")
    trainers = tuple(pod for pod in observed.trainers if pod.identity.owner_uid == job.identity.uid)
    gave_up = any((pod.held_open and ends_attempt(pod)) or pod.end_reason == DEADLINE_EXCEEDED for pod in trainers)
    if not (job.finished or gave_up):
        return _plan_running(snapshot, learning, job, trainers)
    reported = find_outcome(snapshot, job, trainers)
    if job.step is TrainingStep.CHECK and reported is not None and reported.succeeded:
        return _plan_next_step(snapshot, learning, reported)
    if observed.store_error and (reported is None or reported.succeeded):
        message = f"{_describe_job(job.step, name)} has ended, but its stored result cannot be read: {observed.store_error}"
        return learning.because(message, _running_reason(job.step))
    if job.finished and job.suspended and not job.succeeded and reported is None:
        # Its Pod was ended by the suspension, for example by Kueue in favour of another Job.
        message = f"{_describe_job(job.step, name)} ended while it was suspended; another attempt follows"
        return replace(learning.because(message), attempt=learning.attempt + 1, requeue_after_seconds=0.0)
    if reported is not None and not reported.succeeded:
        failure = failed_outcome(spec, reported)
    else:
        message = f"{_describe_job(job.step, name)}: {describe_failure(snapshot, job, trainers, reported)}"
        failure = failed_learning(StalledReason.TRAINING_FAILED, message)
    if failure.data_valid == NOT_CHECKED:
        failure = replace(failure, data_valid=learning.data_valid)
    return _failed(failure, learning.attempt, learning.actions)


def _describe_job(step: TrainingStep, name: str) -> str:
    return f"{'check' if step is TrainingStep.CHECK else 'training'} Job {name}"


def _running_reason(step: TrainingStep) -> TrainedReason:
    return TrainedReason.CHECKING_DATA if step is TrainingStep.CHECK else TrainedReason.TRAINING


def _failed(failure: Failure, attempt: int, actions: tuple[Action, ...]) -> Learning:
    return Learning(failure=failure, data_valid=failure.data_valid, trained=failure.trained, attempt=attempt, actions=actions)


def _wait_for_store(snapshot: Snapshot, attempt: int, fact: str) -> Learning:
    """Whether the current revision is trained is unknown. A failure recorded before the outage stays."""
    status, last = snapshot.status, snapshot.last_failure
    if last is not None and last.failure.reason in _BEFORE_TRAINING:
        return _failed(last.failure, status.attempt, _delete_jobs(snapshot, keep_attempt=status.attempt))
    training = status.training_revision == snapshot.current
    message = f"{fact}: {snapshot.observed.store_error}; the operator retries until the store responds"
    return Learning(
        training=training,
        attempt=attempt if training else status.attempt,
        data_valid=_judge_running_data(snapshot),
        trained=false(TrainedReason.QUEUED, message),
        actions=_delete_jobs(snapshot, keep_attempt=attempt),
    )


def _plan_next_step(snapshot: Snapshot, learning: Learning, checked: Outcome | None = None) -> Learning:
    """The attempt has no Job to wait for: it ended and was removed, it was deleted, or it was never created. `checked` is the
    outcome of its check where a Pod of its check left it.
    """
    observed, spec = snapshot.observed, snapshot.classifier.spec
    if observed.store_error:
        if spec.suspend and _was_suspended(snapshot):
            return _suspended(snapshot, learning)
        return _wait_for_store(snapshot, learning.attempt, f"the training of revision {snapshot.current} cannot start")
    if needs_poll(snapshot.classifier) and snapshot.current == own_revision(snapshot.classifier):
        # What the poll sees is part of the revision: a training that started now would be replaced at once.
        begins = "check of its data" if spec.suspend else "training"
        return learning.because(f"the {begins} starts after the first poll of its sources (spec.pollInterval)")
    is_known = snapshot.status.training_revision == snapshot.current
    outcome = observed.outcome if is_known else None
    if outcome is not None and not outcome.succeeded:
        return _failed(failed_outcome(spec, outcome), learning.attempt, learning.actions)
    if outcome is not None:
        # It succeeded, and its artifact is lost: only another attempt restores it.
        learning = replace(learning, attempt=learning.attempt + 1)
        checked = None
    elif is_known:
        checked = checked or observed.check
    if checked is not None and (checked.attempt, checked.revision) != (learning.attempt, snapshot.current):
        checked = None
    if checked is not None and not checked.succeeded:
        return _failed(failed_outcome(spec, checked), learning.attempt, learning.actions)
    if checked is not None:
        # A sidecar may keep the Pod of the check running.
        actions = (*learning.actions, *_delete_held_open(snapshot))
        learning = replace(learning, data_valid=true(DataValidReason.CHECKED, checked.message), actions=actions)
    if spec.suspend and (checked is not None or spec.pretrained is not None):
        return _suspended(snapshot, learning)
    lingering = next((pod for pod in observed.trainers if pod.identity.revision == snapshot.current and not pod.ended), None)
    if lingering is not None:
        # Two trainers of one revision would write to the same keys of the store.
        message = f"the training waits until Pod {lingering.identity.name} of an earlier attempt ends"
        return learning.because(message)
    return _plan_start(snapshot, learning, is_checked=checked is not None)


def _suspended(snapshot: Snapshot, learning: Learning) -> Learning:
    revision, resume = snapshot.current, "set spec.suspend to false to train it"
    if snapshot.classifier.spec.pretrained is not None:
        message = f"spec.suspend is true, so revision {revision} is not prepared; {resume}"
    else:
        message = f"spec.suspend is true, so revision {revision} is not trained; its data was checked, see DataValid; {resume}"
    return replace(learning.because(message, TrainedReason.SUSPENDED), suspended=True)


def _was_suspended(snapshot: Snapshot) -> bool:
    """Whether status says that nothing is left to be checked, so that the store need not be asked."""
    known = snapshot.status.condition(ConditionType.TRAINED)
    is_suspended = known is not None and known.reason == TrainedReason.SUSPENDED
    return is_suspended and snapshot.status.training_revision == snapshot.current


def _plan_start(snapshot: Snapshot, learning: Learning, *, is_checked: bool) -> Learning:
    """Start the next step: the check if there is to be one, then the training."""
    observed, spec = snapshot.observed, snapshot.classifier.spec
    accelerator = _resolve_accelerator(snapshot)
    if accelerator is Accelerator.GPU and not snapshot.settings.trainer_gpu_image and not spec.suspend:
        message = f"{snapshot.classifier}: {gpu_not_offered_message('spec.training', 'OCELLI_TRAINER_GPU_IMAGE')}"
        return _failed(failed_learning(StalledReason.GPU_NOT_OFFERED, message), snapshot.status.attempt, learning.actions)
    # Without a GPU, one Job does both: a second one would only take longer to start.
    checks = not is_checked and (spec.suspend or (accelerator is Accelerator.GPU and spec.pretrained is None))
    if not checks:
        policy = plan_workers_policy(snapshot)
        learning = replace(learning, actions=(*learning.actions, *policy.actions))
        if policy.message:
            return learning.because(policy.message)
    served = snapshot.status.served_revision
    chosen = Attempt(
        revision=snapshot.current,
        number=learning.attempt,
        step=TrainingStep.CHECK if checks else TrainingStep.TRAIN,
        accelerator=Accelerator.CPU if checks else accelerator,
        baseline_revision="" if served is None or served == snapshot.current or checks else served,
    )
    start = StartTraining(
        revision=snapshot.current,
        attempt=learning.attempt,
        step=chosen.step,
        definition=definition(spec),
        manifest=build_training_job(snapshot.owner, snapshot.settings, chosen),
    )
    name = start.manifest["metadata"]["name"]
    conflict = snapshot.name_conflicts.get((ChildKind.JOB, name))
    if conflict is not None:
        return learning.because(conflict)
    job = _describe_job(chosen.step, name)
    refusal = observed.memory.refusals.get(start.manifest_hash)
    if refusal is not None and refusal.invalid:
        message = f"{job}: the API server rejects it as invalid: {refusal.message}; correct spec.training"
        return _failed(failed_learning(StalledReason.TRAINING_FAILED, message), learning.attempt, learning.actions)
    # A training Job for Kueue starts nothing: it is created suspended.
    is_queued = spec.training.queue_name is not None and not checks
    if not is_queued and StartKind.TRAINING not in observed.allowed_starts:
        message = training_turn_message(job, observed.training_limit, snapshot.owner.namespace, snapshot.settings)
        return replace(learning.because(message), waits=frozenset({StartKind.TRAINING}))
    because = f", because an earlier attempt left nothing usable: {observed.store_fault}" if observed.store_fault else ""
    message = f"{job} was created{because}" if refusal is None else f"{job} {refusal.message}"
    return replace(learning.because(message), actions=(*learning.actions, start))


def _resolve_accelerator(snapshot: Snapshot) -> Accelerator:
    """GPU or CPU for a new Job; an existing Job keeps what it has, because Jobs are immutable."""
    # A pretrained classifier is not trained, so it has no use for a GPU.
    nodes = snapshot.observed.gpu_nodes if snapshot.classifier.spec.pretrained is None else ()
    offer = GpuOffer(image=snapshot.settings.trainer_gpu_image, gpu=snapshot.settings.gpu, nodes=nodes)
    return resolve_accelerator(snapshot.classifier.spec.training, offer)


def _plan_running(snapshot: Snapshot, learning: Learning, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Learning:
    name = _describe_job(job.step, job.identity.name)
    alive = [pod for pod in trainers if not pod.terminal]
    running = any(pod.phase == "Running" for pod in alive)
    if not running and job.training_hash != training_hash(snapshot.classifier.spec.training):
        # No work is lost yet, and the Job may be waiting for exactly what was changed.
        message = f"{name} is replaced, because spec.training was changed before its trainer started"
        actions = (*learning.actions, *delete_child(ChildKind.JOB, job.identity, message))
        return replace(learning.because(message), attempt=learning.attempt + 1, actions=actions)
    if job.suspended:
        return _plan_suspended(snapshot, learning, job)
    unschedulable = next((pod for pod in alive if pod.unschedulable), None)
    if unschedulable is not None:
        message = (
            f"{name}: no node can take {name_pod(unschedulable, job)}: {unschedulable.unschedulable.rstrip('.')}; "
            "lower spec.training.resources, change its nodeSelector or tolerations, or add a node"
        )
        if job.workers > 1:
            message += ", or lower spec.training.workers"
        if unschedulable.gpu:
            message += ", or set spec.training.accelerator to CPU"
        return learning.because(message, TrainedReason.UNSCHEDULABLE)
    refusal = snapshot.observed.pod_refusal
    if running:
        retries = count_failures(trainers)
        again = f", after {retries} that ended unexpectedly" if retries else ""
        run = count_running(trainers)
        if run < job.workers:
            # They start together, so those that run wait.
            again += f", with {run} of {job.workers} workers" + (f"; another one {refusal_message(refusal)}" if refusal else "")
        learning = learning.because(f"{name} runs{again}", _running_reason(job.step))
        return replace(learning, requeue_after_seconds=PROGRESS_POLL_SECONDS)
    if not alive and refusal:
        message = f"{name} {refusal_message(refusal)}"
        return replace(learning.because(message), requeue_after_seconds=REFUSED_POLL_SECONDS)
    waiting = next((pod.waiting for pod in alive if pod.waiting), "")
    facts = [describe_failed_pods(snapshot, trainers)]
    if waiting:
        facts.append(f"its container waits: {waiting}")
    elif alive or not facts[0]:
        facts.append("its Pod has not started yet")
    learning = learning.because(f"{name}: {'; '.join(fact for fact in facts if fact)}")
    if alive:
        return learning
    is_new = job.age_seconds(snapshot.observed.now) < POD_PATIENCE_SECONDS
    return replace(learning, requeue_after_seconds=POD_PATIENCE_SECONDS if is_new else REFUSED_POLL_SECONDS)


def _plan_suspended(snapshot: Snapshot, learning: Learning, job: ObservedJob) -> Learning:
    """Kueue has not admitted the Job yet, or has taken its place back. The Job changes when Kueue admits it."""
    admission = snapshot.observed.admission
    is_new = job.age_seconds(snapshot.observed.now) < QUEUE_PATIENCE_SECONDS
    silent = admission is None or not admission.message
    return replace(
        learning.because(f"{_describe_job(job.step, job.identity.name)} {describe_admission(admission, job.queue)}"),
        requeue_after_seconds=QUEUE_FIRST_POLL_SECONDS if is_new and silent else REFUSED_POLL_SECONDS,
    )


def _judge_running_data(snapshot: Snapshot) -> Verdict:
    observed, status = snapshot.observed, snapshot.status
    if status.training_revision != snapshot.current:
        return NOT_CHECKED
    known = status.condition(ConditionType.DATA_VALID)
    if known is not None and known.status is ConditionStatus.TRUE:
        # Between two Pods of one attempt there may be no progress to read, and a check has said what it found.
        return true(known.reason, known.message)
    is_valid = observed.progress is not None and observed.progress.data_valid
    return data_checked(snapshot.classifier.spec) if is_valid else NOT_CHECKED


def _delete_jobs(
    snapshot: Snapshot, *, keep_revision: str | None = None, keep_attempt: int | None = None
) -> tuple[Action, ...]:
    """Delete superseded Jobs: of several quick retrains the last one takes effect. Ended ones keep their logs for their TTL.

    The default of `keep_revision` is the current one. Without `keep_attempt`, all attempts of that revision are kept.
    """
    keep_revision = snapshot.current if keep_revision is None else keep_revision
    return tuple(
        action
        for job in snapshot.observed.jobs
        if not job.finished
        and (job.identity.revision != keep_revision or (keep_attempt is not None and job.attempt != keep_attempt))
        for action in delete_child(ChildKind.JOB, job.identity, "another revision or attempt replaces it")
    )


def _delete_held_open(snapshot: Snapshot) -> tuple[Action, ...]:
    """Delete Jobs that continue only because a sidecar keeps their Pods running."""
    held = {pod.identity.owner_uid for pod in snapshot.observed.trainers if pod.held_open}
    return tuple(
        action
        for job in snapshot.observed.jobs
        if not job.finished and job.identity.uid in held and job.identity.revision == snapshot.current
        for action in delete_child(ChildKind.JOB, job.identity, "its trainer has ended, and a sidecar keeps its Pod running")
    )
