"""The judgement: from how far learning and rollout are, what is the case for each condition and what status is to say. Pure.

`learning` and `rollout` find the facts, `status` holds the words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from ocelli_api.classifier import ClassifierStatus, HistoryEntry, Progress
from ocelli_api.conditions import (
    AvailableReason,
    Condition,
    ConditionType,
    ReadyReason,
    ReconcilingReason,
    StalledReason,
    merge_conditions,
)
from ocelli_api.revision import spec_revision, training_hash
from ocelli_api.times import format_time
from ocelli_operator.case import Case
from ocelli_operator.learning import Learning
from ocelli_operator.manifests.metadata import endpoint
from ocelli_operator.observed import StoredArtifact
from ocelli_operator.rollout import Rollout, find_trouble
from ocelli_operator.status import Verdict, extend_history, false, true

MESSAGE_LIMIT = 4096
PROGRESS_WRITE_INTERVAL = timedelta(seconds=10)

READY_REASON_OF: dict[StrEnum, ReadyReason] = {
    StalledReason.INVALID_DATA: ReadyReason.INVALID_DATA,
    StalledReason.SOURCE_UNREADABLE: ReadyReason.SOURCE_UNREADABLE,
    StalledReason.TRAINING_FAILED: ReadyReason.TRAINING_FAILED,
    StalledReason.ROLLOUT_FAILED: ReadyReason.ROLLOUT_FAILED,
    StalledReason.GPU_NOT_OFFERED: ReadyReason.GPU_NOT_OFFERED,
    StalledReason.REVISION_NOT_FOUND: ReadyReason.REVISION_NOT_FOUND,
    ReconcilingReason.TRAINING: ReadyReason.TRAINING,
    ReconcilingReason.RETRAINING: ReadyReason.RETRAINING,
    ReconcilingReason.ROLLING_OUT: ReadyReason.ROLLING_OUT,
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is the case, for every condition. `reconciling` and `stalled` are None where they are absent."""

    data_valid: Verdict
    trained: Verdict
    available: Verdict
    ready: Verdict
    reconciling: Verdict | None
    stalled: Verdict | None


def plan_status(case: Case, learning: Learning, rollout: Rollout) -> ClassifierStatus:
    """The status to write."""
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


def judge_available(served_revision: str | None, ready_servers: int) -> Verdict:
    """`Available`: whether some revision answers predictions now."""
    if served_revision is None:
        return false(AvailableReason.NEVER_SERVED, "no revision was served yet")
    if ready_servers == 0:
        return false(
            AvailableReason.NO_SERVER_READY,
            f"revision {served_revision} is to be served, but no inference server of it is ready now",
        )
    servers = "1 inference server answers" if ready_servers == 1 else f"{ready_servers} inference servers answer"
    return true(AvailableReason.SERVING, f"{servers} with revision {served_revision}")


def build_conditions(
    judgement: Judgement, before: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The list of conditions; `lastTransitionTime` moves only where the status does."""
    verdicts = {
        ConditionType.READY: judgement.ready,
        ConditionType.AVAILABLE: judgement.available,
        ConditionType.TRAINED: judgement.trained,
        ConditionType.DATA_VALID: judgement.data_valid,
        ConditionType.RECONCILING: judgement.reconciling,
        ConditionType.STALLED: judgement.stalled,
    }
    conditions = [
        Condition(
            type=str(condition_type),
            status=verdict.status,
            reason=str(verdict.reason),
            message=verdict.message[:MESSAGE_LIMIT],
            observed_generation=generation,
        )
        for condition_type, verdict in verdicts.items()
        if verdict is not None
    ]
    return merge_conditions(before, conditions, format_time(now))


def _judge(case: Case, learning: Learning, rollout: Rollout, ready_servers: int) -> Judgement:
    served, spec = rollout.served_revision, case.classifier.spec
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
        trouble, _ = find_trouble(case, case.current)
        message = f"no inference server of revision {case.current} is ready now" + (f": {trouble}" if trouble else "")
        reconciling = true(ReconcilingReason.ROLLING_OUT, message)
        ready = false(ReadyReason.NO_SERVER_READY, message)
    else:
        own = spec_revision(spec)
        pinned = "" if case.current == own else f" (pinned by spec.pinnedRevision; spec's own revision {own} is not followed)"
        notes = "".join(f"; {note}" for note in rollout.notes)
        ready = true(ReadyReason.SERVED, f"revision {case.current} answers every request{pinned}{notes}")
    if case.observed.artifact_lost and served == case.status.served_revision:
        if failure is not None:
            remedy = f"; {failure.message}"
        elif served != case.current or learning.artifact is None:
            remedy = f"; {ready.message}"
        elif case.current != spec_revision(spec):
            remedy = ", or pin another revision"
        else:
            remedy = ", or raise spec.retrainNonce to train it again"
        ready = false(
            ReadyReason.ARTIFACT_LOST,
            f"the artifact of revision {served} is not in the object store any more: inference servers that run answer "
            f"from memory, and no other can start; put it back from a backup{remedy}",
        )
    return Judgement(
        data_valid=learning.data_valid,
        trained=trained,
        available=judge_available(served, ready_servers),
        ready=ready,
        reconciling=reconciling,
        stalled=None if failure is None else true(failure.reason, failure.message),
    )


def _plan_progress(case: Case, learning: Learning) -> Progress | None:
    observed, before = case.observed, case.status.progress
    if not learning.training or case.status.training_revision != case.current:
        return None
    report = observed.progress
    if report is None:
        return before
    if case.classifier.spec.pretrained is not None and report.percent <= 0:
        # Nobody knows how long a fetch takes: a number that stands still would look like one that hangs.
        return None
    progress = Progress(
        percent=min(max(report.percent, 0), 100), stage=str(report.stage), estimated_completion=report.estimated_completion
    )
    if before is None or before.stage != progress.stage:
        return progress
    written = observed.progress_written_at
    due = written is None or observed.now - written >= PROGRESS_WRITE_INTERVAL
    return progress if due else before


def _record_artifact(case: Case, status: ClassifierStatus, artifact: StoredArtifact) -> ClassifierStatus:
    """History gets a revision as soon as its artifact is seen, hence before it serves."""
    entry = HistoryEntry(
        revision=artifact.revision,
        trained_at=artifact.finished_at or format_time(case.observed.now),
        accuracy=artifact.accuracy,
        accuracy_interval=artifact.accuracy_interval,
        judged_images=artifact.judged_images,
        artifact_digest=artifact.digest,
        backbone=artifact.backbone,
    )
    keep = frozenset({case.current, status.served_revision, case.status.served_revision, case.classifier.spec.pinned_revision})
    return replace(status, history=extend_history(status.history, entry, keep))


def _describe_served(case: Case, status: ClassifierStatus, served: str) -> ClassifierStatus:
    entry = next((item for item in status.history if item.revision == served), None)
    status = replace(status, endpoint=endpoint(case.classifier))
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


def _settle(case: Case, status: ClassifierStatus) -> ClassifierStatus:
    """The work for this revision and nonce has ended well. It was a retraining where something had been settled before."""
    before, spec = case.status, case.classifier.spec
    news = before.settled_revision != case.current or before.observed_retrain_nonce != spec.retrain_nonce
    if not news:
        return status
    status = replace(status, settled_revision=case.current, observed_retrain_nonce=spec.retrain_nonce)
    if before.settled_revision is None:
        return status
    return replace(status, retrained_at=format_time(case.observed.now))
