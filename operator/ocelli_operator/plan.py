"""What to do about one Classifier: from everything observed to actions and the status to write. Pure.

Level-triggered: nothing rests on what happened before this moment except what status, the children and the store hold, so that
an operator killed at any step ends in the same state. Three questions in turn: is the current revision learned, which
Deployments should there be, and who answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, ClassifierStatus, HistoryEntry, Manifest, Progress
from ocelli_api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    DataValidReason,
    ReadyReason,
    ReconcilingReason,
    StalledReason,
    TrainedReason,
)
from ocelli_api.names import is_classifier_id
from ocelli_api.outcome import Outcome, OutcomeReason
from ocelli_api.revision import current_revision, definition, spec_revision, training_hash
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.autoscaler import build_autoscaler
from ocelli_operator.manifests.disruption_budget import build_disruption_budget, needs_disruption_budget
from ocelli_operator.manifests.inference_deployment import build_inference_deployment
from ocelli_operator.manifests.metadata import (
    MANIFEST_HASH_ANNOTATION,
    ChildOwner,
    deployment_name,
    endpoint,
    job_name,
    manifest_hash,
)
from ocelli_operator.manifests.service import build_service
from ocelli_operator.manifests.training_job import KILLED_EXIT_CODE, build_training_job
from ocelli_operator.observed import (
    ChildIdentity,
    ChildKind,
    Observed,
    ObservedChild,
    ObservedDeployment,
    ObservedJob,
    ObservedPod,
    StoredArtifact,
)
from ocelli_operator.status import (
    DATA_CHECKED,
    NOT_CHECKED,
    READY_REASON_OF,
    Failure,
    Judgement,
    Verdict,
    build_conditions,
    extend_history,
    failed_data,
    failed_training,
    false,
    format_time,
    judge_available,
    learned,
    missing_revision,
    true,
)

PROGRESS_WRITE_INTERVAL = timedelta(seconds=10)
PROGRESS_POLL_SECONDS = 2.0

_TRAINING_FAILURES = frozenset({StalledReason.INVALID_DATA, StalledReason.TRAINING_FAILED})


@dataclass(frozen=True, kw_only=True)
class RestoreLabel:
    """Set the label that holds the classifier's id."""

    classifier_id: str


@dataclass(frozen=True, kw_only=True)
class StartTraining:
    """Store the definition, then create the Job that learns it."""

    revision: str
    attempt: int
    definition: dict[str, Any]
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class ApplyChild:
    """Apply a manifest; its hash is among its annotations."""

    kind: ChildKind
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class DeleteChild:
    """Delete this very object."""

    kind: ChildKind
    identity: ChildIdentity
    why: str


Action = RestoreLabel | StartTraining | ApplyChild | DeleteChild


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do: the actions in their order, then the status, if it differs from the observed one."""

    status: ClassifierStatus
    actions: tuple[Action, ...] = ()
    requeue_after_seconds: float | None = None
    """When to look again though nothing changes; None: never."""


@dataclass(frozen=True, kw_only=True)
class _Learning:
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
    attempt: int = 0
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Rollout:
    """Which revision serves, and what stands between it and being settled."""

    served_revision: str | None
    failure: Failure | None = None
    failed_hash: str | None = None
    obstacle: str = ""
    """Why the rollout is not complete; empty where it is."""
    unschedulable: bool = False
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What every step needs."""

    observed: Observed
    settings: ChildSettings
    owner: ChildOwner
    current: str

    @property
    def classifier(self) -> Classifier:
        return self.observed.classifier

    @property
    def status(self) -> ClassifierStatus:
        return self.observed.classifier.status

    @property
    def nonce_observed(self) -> bool:
        return self.status.observed_retrain_nonce == self.classifier.spec.retrain_nonce

    def is_stalled_by(self, reasons: frozenset[StalledReason]) -> bool:
        """Whether status says that the current revision failed, with this nonce, for one of these reasons."""
        stalled = self.status.condition(ConditionType.STALLED)
        return (
            stalled is not None
            and stalled.status is ConditionStatus.TRUE
            and stalled.reason in {str(reason) for reason in reasons}
            and self.status.failed_revision == self.current
            and self.nonce_observed
        )


def plan_classifier(observed: Observed, settings: ChildSettings) -> Plan:
    """Decide about one Classifier."""
    classifier = observed.classifier
    if classifier.deleted:
        # Whatever was made for it goes by its ownerReferences.
        return Plan(status=classifier.status)
    if classifier.status.classifier_id is None:
        return _plan_adoption(observed)
    case = _Case(
        observed=observed,
        settings=settings,
        owner=ChildOwner(classifier=classifier, classifier_id=classifier.status.classifier_id),
        current=current_revision(classifier.spec),
    )
    learning = _plan_learning(case)
    rollout = _plan_rollout(case, learning)
    actions: tuple[Action, ...] = (*learning.actions, *rollout.actions)
    if classifier.labels.get(CLASSIFIER_ID_LABEL) != classifier.status.classifier_id:
        actions = (RestoreLabel(classifier_id=classifier.status.classifier_id), *actions)
    return Plan(
        status=_plan_status(case, learning, rollout),
        actions=actions,
        requeue_after_seconds=PROGRESS_POLL_SECONDS if learning.running else None,
    )


def _plan_adoption(observed: Observed) -> Plan:
    """The first write settles the id: everything stored lies under it, and a crash must not draw another one."""
    classifier = observed.classifier
    label = classifier.labels.get(CLASSIFIER_ID_LABEL, "")
    keeps_label = is_classifier_id(label) and not observed.id_taken
    classifier_id = label if keeps_label else observed.fresh_classifier_id
    message = "the operator has seen the object and starts its training"
    judgement = Judgement(
        data_valid=NOT_CHECKED,
        trained=false(TrainedReason.QUEUED, message),
        available=judge_available(None, 0),
        ready=false(ReadyReason.TRAINING, message),
        reconciling=true(ReconcilingReason.TRAINING, message),
        stalled=None,
    )
    return Plan(
        status=replace(
            classifier.status,
            observed_generation=classifier.generation,
            classifier_id=classifier_id,
            conditions=build_conditions(judgement, classifier.status.conditions, classifier.generation, observed.now),
        ),
        requeue_after_seconds=0.0,
    )


# --- Is the current revision learned?


def next_attempt(status: ClassifierStatus, current: str) -> int:
    """The attempt that the current revision is in, or would begin with.

    It follows from status alone, so that a Job created before its status write was lost is found again by its name.
    """
    return status.attempt if status.training_revision == current else status.attempt + 1


def _plan_learning(case: _Case) -> _Learning:
    observed, status, spec = case.observed, case.status, case.classifier.spec
    under_way = status.training_revision == case.current
    attempt = next_attempt(status, case.current)
    if observed.artifact is not None:
        artifact = observed.artifact
        return _Learning(
            artifact=artifact,
            data_valid=DATA_CHECKED,
            trained=learned(artifact.revision, artifact.accuracy),
            # A Job may have ended before a status write told of it.
            attempt=max([status.attempt, *(job.attempt for job in observed.jobs)]),
            actions=_delete_jobs(case, keep_revision=case.current, keep_attempt=None),
        )
    if spec.pinned_revision is not None and case.current != spec_revision(spec):
        return _failed(case, missing_revision(case.classifier, case.current), status.attempt)
    if case.is_stalled_by(_TRAINING_FAILURES) and status.failed_training_hash == training_hash(spec.training):
        return _failed(case, _remember_failure(status), status.attempt)

    job = next((job for job in observed.jobs if job.identity.name == job_name(case.owner.name, case.current, attempt)), None)
    superseded = _delete_jobs(case, keep_revision=case.current, keep_attempt=attempt)
    learning = _Learning(training=True, attempt=attempt, actions=superseded, data_valid=_judge_running_data(case, under_way))
    if job is None:
        return _plan_start(case, learning, under_way)
    if job.identity.owner_uid != case.classifier.uid:
        message = f"Job {job.identity.name} belongs to an earlier object of this name and has to go first"
        return replace(
            learning,
            trained=false(TrainedReason.QUEUED, message),
            actions=(*superseded, *_delete(ChildKind.JOB, job.identity, message)),
        )
    if job.identity.deleting:
        message = f"Job {job.identity.name} is being deleted; another one will take its place"
        return replace(learning, trained=false(TrainedReason.QUEUED, message))
    trainers = tuple(pod for pod in observed.trainers if pod.identity.revision == case.current and pod.attempt == attempt)
    if job.finished:
        failure = _find_failure(case, job, trainers)
        if failure.data_valid == NOT_CHECKED:
            failure = replace(failure, data_valid=learning.data_valid)
        return _failed(case, failure, attempt, superseded)
    return _plan_running(case, learning, job, trainers)


def _failed(case: _Case, failure: Failure, attempt: int, superseded: tuple[Action, ...] | None = None) -> _Learning:
    actions = _delete_jobs(case, keep_revision=case.current, keep_attempt=attempt) if superseded is None else superseded
    return _Learning(failure=failure, data_valid=failure.data_valid, trained=failure.trained, attempt=attempt, actions=actions)


def _plan_start(case: _Case, learning: _Learning, under_way: bool) -> _Learning:
    """No Job of the attempt is there: it ended and went, it was deleted, or it never was."""
    attempt = learning.attempt
    outcome = case.observed.outcome if under_way else None
    if outcome is not None and not outcome.succeeded:
        return _failed(case, _failure_of_outcome(case, outcome), attempt, learning.actions)
    if outcome is not None:
        # It succeeded, and its artifact is lost: only another attempt brings it back.
        attempt += 1
    lingering = next(
        (pod for pod in case.observed.trainers if pod.identity.revision == case.current and not pod.terminal), None
    )
    if lingering is not None:
        # Two trainers of one revision would write to the same keys of the store.
        message = f"Pod {lingering.identity.name} of an earlier attempt has to end first"
        return replace(learning, attempt=attempt, trained=false(TrainedReason.QUEUED, message))
    manifest = build_training_job(case.owner, case.settings, case.current, attempt)
    refusal = case.observed.refusals.get(manifest_hash(manifest))
    if refusal is not None:
        failure = failed_training(
            f"training Job {manifest['metadata']['name']}: the API server refuses it: {refusal}; correct spec.training"
        )
        return _failed(case, failure, attempt, learning.actions)
    start = StartTraining(
        revision=case.current, attempt=attempt, definition=definition(case.classifier.spec), manifest=manifest
    )
    return replace(
        learning,
        attempt=attempt,
        trained=false(TrainedReason.QUEUED, f"training Job {manifest['metadata']['name']} was created"),
        actions=(*learning.actions, start),
    )


def _plan_running(case: _Case, learning: _Learning, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> _Learning:
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
            actions=(*learning.actions, *_delete(ChildKind.JOB, job.identity, message)),
        )
    unschedulable = next((pod.unschedulable for pod in alive if pod.unschedulable), "")
    if unschedulable:
        message = (
            f"training Job {name}: no node can take its Pod: {unschedulable.rstrip('.')}; "
            "lower spec.training.resources, change its nodeSelector or tolerations, or add a node"
        )
        return replace(learning, unschedulable=True, trained=false(TrainedReason.UNSCHEDULABLE, message))
    if running:
        retries = sum(pod.phase == "Failed" for pod in trainers)
        again = f", after {retries} that ended unexpectedly" if retries else ""
        return replace(learning, running=True, trained=false(TrainedReason.TRAINING, f"training Job {name} runs{again}"))
    waiting = next((pod.waiting for pod in alive if pod.waiting), "")
    reason = f"its container waits: {waiting}" if waiting else "its Pod has not started yet"
    return replace(learning, trained=false(TrainedReason.QUEUED, f"training Job {name}: {reason}"))


def _judge_running_data(case: _Case, under_way: bool) -> Verdict:
    if not under_way:
        return NOT_CHECKED
    if case.observed.progress is not None:
        return DATA_CHECKED if case.observed.progress.data_valid else NOT_CHECKED
    # Between two Pods of one attempt there may be no progress to read.
    return DATA_CHECKED if case.status.is_true(ConditionType.DATA_VALID) else NOT_CHECKED


def _delete_jobs(case: _Case, *, keep_revision: str, keep_attempt: int | None) -> tuple[Action, ...]:
    """Superseded Jobs go: of several quick retrains the last one takes effect."""
    return tuple(
        action
        for job in case.observed.jobs
        if job.identity.revision != keep_revision or (keep_attempt is not None and job.attempt != keep_attempt)
        for action in _delete(ChildKind.JOB, job.identity, "another revision or attempt is wanted")
    )


def _delete(kind: ChildKind, identity: ChildIdentity, why: str) -> tuple[Action, ...]:
    return () if identity.deleting else (DeleteChild(kind=kind, identity=identity, why=why),)


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


def _find_failure(case: _Case, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Failure:
    """Why a finished Job left no artifact."""
    name = job.identity.name
    last = max(trainers, key=lambda pod: pod.created_at, default=None)
    told = last.outcome if last is not None else None
    outcome = told or case.observed.outcome
    if outcome is not None and outcome.attempt == job.attempt and outcome.revision == case.current:
        if not outcome.succeeded:
            return _failure_of_outcome(case, outcome)
        if job.succeeded:
            return failed_training(
                f"training Job {name}: it succeeded, but the store holds no artifact of revision {case.current}; "
                "raise spec.retrainNonce to train again"
            )
    training = case.classifier.spec.training
    killed = next((pod for pod in trainers if pod.exit_reason == "OOMKilled"), None)
    if killed is not None:
        limit = f" of {killed.memory_limit}" if killed.memory_limit else ""
        return failed_training(
            f"training Job {name}: the trainer was killed for want of memory at its limit{limit}; "
            "raise spec.training.resources.limits.memory"
        )
    if job.failure_reason == "DeadlineExceeded":
        trained = case.status.condition(ConditionType.TRAINED)
        if trained is not None and trained.reason == TrainedReason.UNSCHEDULABLE:
            return failed_training(f"{trained.message}. It waited {training.active_deadline_seconds} seconds in vain")
        return failed_training(
            f"training Job {name}: it did not end within {training.active_deadline_seconds} seconds; "
            "raise spec.training.activeDeadlineSeconds, or give it more in spec.training.resources"
        )
    if last is not None and last.exit_code == KILLED_EXIT_CODE:
        return failed_training(
            f"training Job {name}: the trainer was killed (exit code {KILLED_EXIT_CODE}), which is seldom anything but want of "
            "memory on its node; raise spec.training.resources, then spec.retrainNonce"
        )
    if last is not None and last.exit_code is not None:
        ended = f"the trainer ended with exit code {last.exit_code}"
        said = f" and said: {last.termination_message.strip()}" if last.termination_message.strip() else ""
        return failed_training(
            f"training Job {name}: {ended}{said}; read `kubectl logs job/{name}`, then raise spec.retrainNonce to try again"
        )
    told_by_job = job.failure_message or job.failure_reason or "it failed without a word"
    return failed_training(f"training Job {name}: {told_by_job}; raise spec.retrainNonce to try again")


def _failure_of_outcome(case: _Case, outcome: Outcome) -> Failure:
    if outcome.reason is OutcomeReason.INVALID_DATA:
        return failed_data(outcome.message)
    if outcome.reason is OutcomeReason.SOURCE_UNREADABLE:
        return failed_data(outcome.message, DataValidReason.SOURCE_UNREADABLE)
    return failed_training(outcome.message)


# --- Which Deployments should there be, and who answers?


def _plan_rollout(case: _Case, learning: _Learning) -> _Rollout:
    served = case.status.served_revision
    if learning.artifact is None or case.current == served:
        rollout = _Rollout(served_revision=served)
    else:
        rollout = _plan_switch(case, served)
    wanted = {revision for revision in (served, rollout.served_revision) if revision is not None}
    if learning.artifact is not None and rollout.failure is None:
        wanted.add(case.current)
    actions: list[Action] = []
    for revision in sorted(wanted):
        actions += _apply(case, ChildKind.DEPLOYMENT, _build_deployment(case, revision), _find_deployment(case, revision))
    # The address follows status: status says who serves first, and nothing old goes before everybody was sent on.
    actions += _plan_address(case, served)
    for deployment in case.observed.deployments:
        if deployment.identity.revision not in wanted:
            why = f"revision {deployment.identity.revision} is neither served nor about to be"
            actions += _delete(ChildKind.DEPLOYMENT, deployment.identity, why)
    refusal = next((text for action in actions if (text := _refusal(case, action))), "")
    sendable = tuple(action for action in actions if not _refusal(case, action))
    rollout = replace(rollout, actions=(*rollout.actions, *sendable))
    if rollout.obstacle or rollout.failure is not None:
        return rollout
    return _judge_rollout(case, rollout, refusal)


def _plan_switch(case: _Case, served: str | None) -> _Rollout:
    """A revision that was learned is to serve: is its Deployment ready for that, on its way, or past its deadline?"""
    desired = _build_deployment(case, case.current)
    desired_hash = desired["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]
    if case.is_stalled_by(frozenset({StalledReason.ROLLOUT_FAILED})) and case.status.failed_rollout_hash == desired_hash:
        stalled = case.status.condition(ConditionType.STALLED)
        assert stalled is not None
        return _Rollout(served_revision=served, failure=_failed_rollout(case, stalled.message), failed_hash=desired_hash)
    refusal = case.observed.refusals.get(desired_hash)
    if refusal is not None:
        message = f"Deployment {desired['metadata']['name']}: the API server refuses it: {refusal}; correct spec.serving"
        return _Rollout(served_revision=served, failure=_failed_rollout(case, message), failed_hash=desired_hash)
    deployment = _find_deployment(case, case.current)
    name = desired["metadata"]["name"]
    if deployment is None:
        return _Rollout(served_revision=served, obstacle=f"Deployment {name} is made")
    if deployment.child.manifest_hash != desired_hash or deployment.identity.deleting:
        return _Rollout(served_revision=served, obstacle=f"Deployment {name} is brought up to date")
    if deployment.available:
        return _Rollout(
            served_revision=case.current, obstacle=f"requests are sent on to the inference servers of revision {case.current}"
        )
    trouble, unschedulable = _find_trouble(case, case.current)
    if deployment.up_to_date and deployment.deadline_exceeded and case.status.failed_revision == case.current:
        # It failed before and is to be tried again: a Deployment past its deadline gets no other one.
        return _Rollout(
            served_revision=served,
            obstacle=f"Deployment {name} is made anew",
            actions=_delete(ChildKind.DEPLOYMENT, deployment.identity, "its rollout is tried again"),
        )
    if deployment.up_to_date and deployment.deadline_exceeded:
        told = trouble or "its inference servers did not become ready"
        seconds = case.settings.rollout_deadline_seconds
        message = (
            f"Deployment {name}: not available within {seconds} seconds: {told}; "
            "change spec.serving, pin an earlier revision, or raise spec.retrainNonce to try again"
        )
        return _Rollout(served_revision=served, failure=_failed_rollout(case, message), failed_hash=desired_hash)
    ready = f"{deployment.replicas_available} of {deployment.replicas_wanted}"
    counts = f"{ready} inference servers of revision {case.current} are ready"
    return _Rollout(served_revision=served, obstacle=f"{counts}: {trouble}" if trouble else counts, unschedulable=unschedulable)


def _judge_rollout(case: _Case, rollout: _Rollout, refusal: str) -> _Rollout:
    """The served revision is the right one, or nothing newer is ready: is everything about it as it should be?"""
    served = rollout.served_revision
    if served is None:
        return rollout
    deployment = _find_deployment(case, served)
    trouble, unschedulable = _find_trouble(case, served)
    old = [pod for pod in case.observed.inference_servers if pod.identity.revision != served and pod.takes_requests]
    if refusal:
        obstacle = f"the API server refuses a change: {refusal}; correct spec.serving"
    elif deployment is None or rollout.actions:
        obstacle = f"what serves revision {served} is brought up to date"
    elif not (deployment.up_to_date and deployment.complete):
        counts = f"{deployment.replicas_available} of {deployment.replicas_wanted} inference servers are ready"
        obstacle = f"{counts}: {trouble}" if trouble else counts
    elif old:
        obstacle = f"{len(old)} inference servers of earlier revisions are still to go"
    else:
        return rollout
    return replace(rollout, obstacle=obstacle, unschedulable=unschedulable)


def _failed_rollout(case: _Case, message: str) -> Failure:
    return Failure(
        reason=StalledReason.ROLLOUT_FAILED,
        message=message,
        data_valid=DATA_CHECKED,
        trained=learned(case.current, case.observed.artifact.accuracy if case.observed.artifact else None),
    )


def _find_deployment(case: _Case, revision: str) -> ObservedDeployment | None:
    name = deployment_name(case.owner.name, revision)
    return next((item for item in case.observed.deployments if item.identity.name == name), None)


def _find_trouble(case: _Case, revision: str) -> tuple[str, bool]:
    """What keeps an inference server of the revision from being ready, in its own words, and whether that is want of a node."""
    pods = [
        pod
        for pod in case.observed.inference_servers
        if pod.identity.revision == revision and not pod.ready and not pod.identity.deleting
    ]
    for pod in pods:
        if pod.unschedulable:
            return f"no node can take Pod {pod.identity.name}: {pod.unschedulable.rstrip('.')}", True
    for pod in pods:
        if pod.waiting or pod.exit_code:
            parts = [pod.waiting]
            if pod.exit_reason == "OOMKilled":
                limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
                parts.append(f"it was killed for want of memory at its limit{limit}; raise spec.serving.resources")
            elif pod.exit_code:
                parts.append(f"it ended with exit code {pod.exit_code}")
            if pod.termination_message.strip():
                parts.append(pod.termination_message.strip())
            return f"Pod {pod.identity.name}: " + "; ".join(part for part in parts if part), False
    return "", False


def _build_deployment(case: _Case, revision: str) -> Manifest:
    serving = case.classifier.spec.serving
    if serving.autoscaling is None:
        replicas = serving.replicas
    else:
        # The autoscaler decides; a new Deployment starts at what the old one has come to.
        like = _find_deployment(case, revision) or _find_deployment(case, case.status.served_revision or "")
        at_hand = like.replicas_wanted if like is not None else serving.autoscaling.min_replicas
        replicas = min(max(at_hand, serving.autoscaling.min_replicas), serving.autoscaling.max_replicas)
    manifest = build_inference_deployment(case.owner, case.settings, revision, replicas)
    hashed = manifest
    if serving.autoscaling is not None:
        hashed = {**manifest, "spec": {key: value for key, value in manifest["spec"].items() if key != "replicas"}}
    return _with_hash(manifest, hashed)


def _with_hash(manifest: Manifest, hashed: Manifest) -> Manifest:
    metadata = {**manifest["metadata"], "annotations": {MANIFEST_HASH_ANNOTATION: manifest_hash(hashed)}}
    return {**manifest, "metadata": metadata}


def _plan_address(case: _Case, served: str | None) -> list[Action]:
    """Service, autoscaler and disruption budget of the revision that status calls served."""
    observed, serving = case.observed, case.classifier.spec.serving
    if served is None:
        return []
    service = build_service(case.owner, served)
    autoscaler = None if serving.autoscaling is None else build_autoscaler(case.owner, serving.autoscaling, served)
    budget = build_disruption_budget(case.owner, served) if needs_disruption_budget(serving) else None
    actions: list[Action] = []
    for kind, manifest, found in (
        (ChildKind.SERVICE, service, observed.services),
        (ChildKind.AUTOSCALER, autoscaler, observed.autoscalers),
        (ChildKind.DISRUPTION_BUDGET, budget, observed.disruption_budgets),
    ):
        child = next((item for item in found), None)
        if manifest is not None:
            actions += _apply(case, kind, _with_hash(manifest, manifest), child)
        elif child is not None:
            actions += _delete(kind, child.identity, "spec.serving asks for none")
    return actions


def _apply(
    case: _Case, kind: ChildKind, manifest: Manifest, found: ObservedChild | ObservedDeployment | None
) -> tuple[Action, ...]:
    child = found.child if isinstance(found, ObservedDeployment) else found
    if child is not None and child.identity.owner_uid != case.classifier.uid:
        return _delete(kind, child.identity, "it belongs to an earlier object of this name")
    if child is not None and child.identity.deleting:
        # What is on its way out can't be brought back; its end wakes this Classifier again.
        return ()
    if child is not None and child.manifest_hash == manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]:
        as_applied = bool(child.generation) and case.observed.applied_generations.get(child.identity.uid) == child.generation
        if as_applied or child.matches(manifest):
            return ()
    return (ApplyChild(kind=kind, manifest=manifest),)


def _refusal(case: _Case, action: Action) -> str:
    if not isinstance(action, ApplyChild):
        return ""
    return case.observed.refusals.get(action.manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION], "")


# --- Status


def _plan_status(case: _Case, learning: _Learning, rollout: _Rollout) -> ClassifierStatus:
    observed, status, spec = case.observed, case.status, case.classifier.spec
    served = rollout.served_revision
    failure = learning.failure or rollout.failure
    ready_servers = sum(pod.takes_requests and pod.identity.revision == served for pod in observed.inference_servers)
    settled = failure is None and learning.artifact is not None and served == case.current and not rollout.obstacle
    updated = replace(
        status,
        observed_generation=case.classifier.generation,
        served_revision=served,
        training_revision=case.current if learning.training else None,
        attempt=learning.attempt,
        progress=_plan_progress(case, learning),
    )
    if learning.artifact is not None:
        updated = _record_artifact(case, updated, learning.artifact)
    if served is not None:
        updated = _describe_served(case, updated, served)
    if failure is not None:
        updated = replace(
            updated,
            failed_revision=case.current,
            failed_training_hash=training_hash(spec.training),
            failed_rollout_hash=rollout.failed_hash,
            observed_retrain_nonce=spec.retrain_nonce,
        )
    else:
        updated = replace(updated, failed_revision=None, failed_training_hash=None, failed_rollout_hash=None)
    if settled and ready_servers:
        updated = _settle(case, updated)
    judgement = _judge(case, learning, rollout, ready_servers)
    conditions = build_conditions(judgement, status.conditions, case.classifier.generation, observed.now)
    return replace(updated, conditions=conditions)


def _judge(case: _Case, learning: _Learning, rollout: _Rollout, ready_servers: int) -> Judgement:
    served = rollout.served_revision
    failure = learning.failure or rollout.failure
    trained = learning.trained
    assert trained is not None
    reconciling: Verdict | None = None
    if failure is not None:
        ready = false(READY_REASON_OF[failure.reason], failure.message)
    elif learning.artifact is None:
        work = ReconcilingReason.TRAINING if served is None else ReconcilingReason.RETRAINING
        reconciling = true(work, trained.message)
        ready = false(ReadyReason.UNSCHEDULABLE if learning.unschedulable else READY_REASON_OF[work], trained.message)
    elif rollout.obstacle:
        reconciling = true(ReconcilingReason.ROLLING_OUT, rollout.obstacle)
        ready = false(ReadyReason.UNSCHEDULABLE if rollout.unschedulable else ReadyReason.ROLLING_OUT, rollout.obstacle)
    elif ready_servers == 0:
        trouble, _ = _find_trouble(case, case.current)
        message = f"no inference server of revision {case.current} is ready now" + (f": {trouble}" if trouble else "")
        reconciling = true(ReconcilingReason.ROLLING_OUT, message)
        ready = false(ReadyReason.NO_SERVER_READY, message)
    else:
        ready = true(ReadyReason.SERVED, f"revision {case.current} answers every request")
    return Judgement(
        data_valid=learning.data_valid,
        trained=trained,
        available=judge_available(served, ready_servers),
        ready=ready,
        reconciling=reconciling,
        stalled=None if failure is None else true(failure.reason, failure.message),
    )


def _plan_progress(case: _Case, learning: _Learning) -> Progress | None:
    observed, before = case.observed, case.status.progress
    if not learning.training or case.status.training_revision != case.current:
        return None
    report = observed.progress
    if report is None:
        return before
    progress = Progress(
        percent=min(max(report.percent, 0), 100), stage=str(report.stage), estimated_completion=report.estimated_completion
    )
    if before is None or before.stage != progress.stage:
        return progress
    written = observed.progress_written_at
    due = written is None or observed.now - written >= PROGRESS_WRITE_INTERVAL
    return progress if due else before


def _record_artifact(case: _Case, status: ClassifierStatus, artifact: StoredArtifact) -> ClassifierStatus:
    """History gets a revision as soon as its artifact is seen, hence before it serves."""
    entry = HistoryEntry(
        revision=artifact.revision,
        trained_at=artifact.finished_at or format_time(case.observed.now),
        accuracy=artifact.accuracy,
        artifact_digest=artifact.digest,
        backbone=artifact.backbone,
    )
    keep = frozenset({case.current, status.served_revision, case.status.served_revision, case.classifier.spec.pinned_revision})
    return replace(status, history=extend_history(status.history, entry, keep))


def _describe_served(case: _Case, status: ClassifierStatus, served: str) -> ClassifierStatus:
    entry = next((item for item in status.history if item.revision == served), None)
    status = replace(status, endpoint=endpoint(case.classifier))
    if entry is None:
        return status
    return replace(status, accuracy=entry.accuracy, backbone=entry.backbone, trained_at=entry.trained_at)


def _settle(case: _Case, status: ClassifierStatus) -> ClassifierStatus:
    """The work for this revision and nonce has ended well. It was a retraining where something had been settled before."""
    before, spec = case.status, case.classifier.spec
    news = before.settled_revision != case.current or before.observed_retrain_nonce != spec.retrain_nonce
    if not news:
        return status
    status = replace(status, settled_revision=case.current, observed_retrain_nonce=spec.retrain_nonce)
    if before.settled_revision is None:
        return status
    return replace(status, retrained_at=format_time(case.observed.now))
