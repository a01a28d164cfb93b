"""Verdicts: what is true for each condition, and the status to write, from how far learning and rollout are. Pure.

`learning` and `rollout` find the facts, `status` holds the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from ocelli_api.classifier_status import ClassifierStatus, FineTuningProgress, HistoryEntry, Progress
from ocelli_api.conditions import (
    AvailableReason,
    Condition,
    ConditionType,
    ReadyReason,
    ReconcilingReason,
    TrainedReason,
    merge_conditions,
)
from ocelli_api.outcome import TuningProgress
from ocelli_api.revision import own_revision, training_hash
from ocelli_api.times import format_time
from ocelli_operator.failure import LastFailure, record_last_failure
from ocelli_operator.gates import Judgement, find_promotion
from ocelli_operator.learning import Learning
from ocelli_operator.manifests.metadata import endpoint
from ocelli_operator.rollout import Rollout, RolloutState, find_pod_problem
from ocelli_operator.snapshot import Snapshot
from ocelli_operator.status import Verdict, extend_history, false, true

MESSAGE_LIMIT = 4096
PROGRESS_WRITE_INTERVAL = timedelta(seconds=10)


def plan_status(snapshot: Snapshot, learning: Learning, judgement: Judgement, rollout: Rollout) -> ClassifierStatus:
    """The status to write."""
    observed, status, spec = snapshot.observed, snapshot.status, snapshot.classifier.spec
    served = rollout.served_revision
    failure = learning.failure or judgement.failure or rollout.failure
    ready_servers = sum(pod.takes_requests and pod.identity.revision == served for pod in observed.inference_servers)
    updated = replace(
        status,
        observed_generation=snapshot.classifier.generation,
        served_revision=served,
        training_revision=snapshot.current if learning.training else None,
        attempt=learning.attempt,
        progress=_plan_progress(snapshot, learning),
    )
    if learning.artifact is not None:
        updated = _record_artifact(snapshot, updated, learning.artifact)
    updated = _record_promotions(status, updated, format_time(observed.now))
    if served is not None:
        updated = _describe_served(snapshot, updated, served)
    last: LastFailure | None = None
    if failure is not None:
        last = LastFailure(
            failure=failure,
            revision=snapshot.current,
            retrain_nonce=spec.retrain_nonce,
            training_hash=training_hash(spec.training),
        )
    updated = record_last_failure(updated, last)
    is_served = learning.artifact is not None and served == snapshot.current
    if is_served and rollout.state is RolloutState.COMPLETE and ready_servers:
        updated = _settle(snapshot, updated)
    verdicts = _judge(snapshot, learning, judgement, rollout, ready_servers)
    conditions = build_conditions(verdicts, status.conditions, snapshot.classifier.generation, observed.now)
    return replace(updated, conditions=conditions)


def judge_available(served_revision: str | None, ready_servers: int) -> Verdict:
    """`Available`: whether some revision answers predictions now."""
    if served_revision is None:
        return false(AvailableReason.NEVER_SERVED, "no revision has been served yet")
    if ready_servers == 0:
        message = f"revision {served_revision} should be served, but none of its inference servers is ready"
        return false(AvailableReason.NO_SERVER_READY, message)
    servers = "1 inference server is ready" if ready_servers == 1 else f"{ready_servers} inference servers are ready"
    return true(AvailableReason.SERVING, f"revision {served_revision} is served: {servers}")


def build_conditions(
    verdicts: Mapping[ConditionType, Verdict], before: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The list of conditions; `lastTransitionTime` changes only with the condition's status."""
    conditions = [
        Condition(
            type=str(condition_type),
            status=verdict.status,
            reason=str(verdict.reason),
            message=verdict.message[:MESSAGE_LIMIT],
            observed_generation=generation,
        )
        for condition_type, verdict in verdicts.items()
    ]
    return merge_conditions(before, conditions, format_time(now))


def _judge(
    snapshot: Snapshot, learning: Learning, judgement: Judgement, rollout: Rollout, ready_servers: int
) -> dict[ConditionType, Verdict]:
    """`Promoted`, `Reconciling` and `Stalled` are left out where they do not apply."""
    served, current = rollout.served_revision, snapshot.current
    failure = learning.failure or judgement.failure or rollout.failure
    reconciling: Verdict | None = None
    if failure is not None:
        ready = false(ReadyReason(failure.reason), failure.message)
    elif learning.suspended:
        # Nothing has failed, and the operator has nothing to do.
        ready = false(ReadyReason.SUSPENDED, learning.trained.message)
    elif learning.artifact is None:
        work = ReconcilingReason.TRAINING if served is None else ReconcilingReason.RETRAINING
        if snapshot.classifier.spec.suspend:
            work = ReconcilingReason.CHECKING_DATA
        reconciling = true(work, learning.trained.message)
        unschedulable = learning.trained.reason == TrainedReason.UNSCHEDULABLE
        ready = false(ReadyReason.UNSCHEDULABLE if unschedulable else ReadyReason(work), learning.trained.message)
    elif judgement.promoted is not None and not judgement.may_serve:
        # Neither `Stalled`, because nothing has failed, nor `Reconciling`, because the operator has nothing to do.
        ready = false(ReadyReason(judgement.promoted.reason), judgement.promoted.message)
    elif rollout.state is not RolloutState.COMPLETE:
        reconciling = true(ReconcilingReason.ROLLING_OUT, rollout.message)
        unschedulable = rollout.state is RolloutState.UNSCHEDULABLE
        ready = false(ReadyReason.UNSCHEDULABLE if unschedulable else ReadyReason.ROLLING_OUT, rollout.message)
    elif ready_servers == 0:
        _, problem = find_pod_problem(snapshot, current)
        message = f"no inference server of revision {current} is ready" + (f": {problem}" if problem else "")
        reconciling = true(ReconcilingReason.ROLLING_OUT, message)
        ready = false(ReadyReason.NO_SERVER_READY, message)
    else:
        own = own_revision(snapshot.classifier)
        pinned = "" if current == own else f" (pinned by spec.pinnedRevision; the spec itself describes revision {own})"
        notes = "".join(f"; {note}" for note in rollout.notes)
        ready = true(ReadyReason.SERVED, f"revision {current} serves all requests{pinned}{notes}")
    if snapshot.observed.artifact_lost and served == snapshot.status.served_revision:
        if failure is not None:
            remedy = f"; {failure.message}"
        elif served != current or learning.artifact is None:
            remedy = f"; {ready.message}"
        elif current != own_revision(snapshot.classifier):
            remedy = ", or pin another revision"
        else:
            remedy = ", or raise spec.retrainNonce to train it again"
        ready = false(
            ReadyReason.ARTIFACT_LOST,
            f"the artifact of revision {served} is missing from the object store: running inference servers still serve it "
            f"from memory, but no other can start; restore it from a backup{remedy}",
        )
    verdicts = {
        ConditionType.READY: ready,
        ConditionType.AVAILABLE: judge_available(served, ready_servers),
        ConditionType.TRAINED: learning.trained,
        ConditionType.DATA_VALID: learning.data_valid,
    }
    if judgement.promoted is not None:
        verdicts[ConditionType.PROMOTED] = judgement.promoted
    if reconciling is not None:
        verdicts[ConditionType.RECONCILING] = reconciling
    if failure is not None:
        verdicts[ConditionType.STALLED] = true(failure.reason, failure.message)
    return verdicts


def _plan_progress(snapshot: Snapshot, learning: Learning) -> Progress | None:
    observed, before = snapshot.observed, snapshot.status.progress
    if not learning.training or snapshot.status.training_revision != snapshot.current:
        return None
    if learning.trained.reason not in (TrainedReason.CHECKING_DATA, TrainedReason.TRAINING):
        # What an earlier Job has done is not the progress of one that waits.
        return None
    report = observed.progress
    if report is None:
        return before
    if snapshot.classifier.spec.pretrained is not None and report.percent <= 0:
        # How long a download takes is unknown, and a percentage that stands still would look stuck.
        return None
    progress = Progress(
        percent=min(max(report.percent, 0), 100),
        stage=str(report.stage),
        estimated_completion=report.estimated_completion,
        images=report.images,
        images_total=report.images_total,
        device=report.device,
        accuracy=None if report.accuracy is None else f"{report.accuracy:.3f}",
        fine_tuning=None if report.fine_tuning is None else _describe_tuning(report.fine_tuning),
    )
    if before is None:
        return progress
    written = observed.memory.progress_written_at
    due = written is None or observed.now - written >= PROGRESS_WRITE_INTERVAL
    return progress if due else before


def _describe_tuning(tuning: TuningProgress) -> FineTuningProgress:
    return FineTuningProgress(
        network=tuning.network,
        networks=tuning.networks,
        epoch=tuning.epoch,
        epochs=tuning.epochs,
        loss=f"{tuning.loss:.4f}",
    )


def _record_artifact(snapshot: Snapshot, status: ClassifierStatus, artifact: HistoryEntry) -> ClassifierStatus:
    """History gets a revision as soon as its artifact is seen, which is before it serves."""
    entry = replace(artifact, trained_at=artifact.trained_at or format_time(snapshot.observed.now))
    pinned = snapshot.classifier.spec.pinned_revision
    keep = frozenset({snapshot.current, status.served_revision, snapshot.status.served_revision, pinned})
    return replace(status, history=extend_history(status.history, entry, keep))


def _record_promotions(before: ClassifierStatus, status: ClassifierStatus, now: str) -> ClassifierStatus:
    """History with the time at which each revision first served."""
    if (status.history, status.served_revision) == (before.history, before.served_revision):
        # What an earlier release recorded stays as it is until something changes: an upgrade rewrites no status.
        return status

    def find_time(entry: HistoryEntry) -> str | None:
        return find_promotion(before, entry.revision) or (now if entry.revision == status.served_revision else None)

    return replace(status, history=tuple(replace(entry, promoted_at=find_time(entry)) for entry in status.history))


def _describe_served(snapshot: Snapshot, status: ClassifierStatus, served: str) -> ClassifierStatus:
    entry = next((item for item in status.history if item.revision == served), None)
    status = replace(status, endpoint=endpoint(snapshot.classifier))
    if entry is None:
        return status
    return replace(
        status,
        accuracy=entry.accuracy,
        accuracy_interval=entry.accuracy_interval,
        judged_images=entry.judged_images,
        backbone=entry.backbone,
        trained_at=entry.trained_at,
    )


def _settle(snapshot: Snapshot, status: ClassifierStatus) -> ClassifierStatus:
    """The work for this revision and nonce has succeeded. It was a retraining if another one had settled before."""
    before, spec = snapshot.status, snapshot.classifier.spec
    if before.settled_revision == snapshot.current and before.observed_retrain_nonce == spec.retrain_nonce:
        return status
    status = replace(status, settled_revision=snapshot.current, observed_retrain_nonce=spec.retrain_nonce)
    if before.settled_revision is None:
        return status
    return replace(status, retrained_at=format_time(snapshot.observed.now))
