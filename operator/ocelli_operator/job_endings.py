"""How the Jobs of trainings end, from what Job, Pods and store show: the outcome, or why there is none. Pure."""

from __future__ import annotations

from ocelli_api.outcome import Outcome
from ocelli_api.pods import TrainingStep
from ocelli_operator.job_workers import count_failures, find_decisive, name_log, name_pod, name_trainer
from ocelli_operator.manifests.training_job import FINAL_EXIT_CODES, KILLED_EXIT_CODE
from ocelli_operator.observed import DEADLINE_EXCEEDED, EVICTED, ObservedJob, ObservedPod
from ocelli_operator.snapshot import Snapshot


def find_outcome(snapshot: Snapshot, job: ObservedJob, trainers: tuple[ObservedPod, ...]) -> Outcome | None:
    """The outcome of this step of the attempt: what its last Pod left, of several workers the decisive one; otherwise what is
    stored.

    For a check the stored one comes first: it names everything that is wrong, and a termination message has only 2 KiB.
    """
    last, observed = find_decisive(trainers), snapshot.observed
    left = None if last is None else last.outcome
    outcome = (observed.check or left) if job.step is TrainingStep.CHECK else (left or observed.outcome)
    is_its = outcome is not None and (outcome.attempt, outcome.revision) == (job.attempt, snapshot.current)
    return outcome if is_its else None


def describe_failure(snapshot: Snapshot, job: ObservedJob, trainers: tuple[ObservedPod, ...], outcome: Outcome | None) -> str:
    """Why a Job left no artifact that did not report a failure: fact and remedy."""
    last, store_fault = find_decisive(trainers), snapshot.observed.store_fault
    if job.succeeded and store_fault:
        return f"it succeeded, but what it stored is unusable: {store_fault}; raise spec.retrainNonce to train again"
    if job.succeeded and job.step is TrainingStep.CHECK:
        return "it succeeded, but its result is not stored; raise spec.retrainNonce to check again"
    if job.succeeded and outcome is not None:
        return (
            f"it succeeded, but the store holds no artifact of revision {snapshot.current}; "
            "raise spec.retrainNonce to train again"
        )
    if last is not None and last.end_reason == EVICTED:
        return (
            f"{name_pod(last, job)} was evicted: {last.end_message.rstrip('. ') or 'its node was short of resources'}; "
            "reduce what it uses, or have the installation's limits raised, then raise spec.retrainNonce to train again"
        )
    killed = next((pod for pod in trainers if pod.exit_reason == "OOMKilled"), None)
    if killed is not None:
        limit = f" at its limit of {killed.memory_limit}" if killed.memory_limit else " at its limit"
        who = name_trainer(killed, trainers)
        return f"{who} ran out of memory{limit} (OOMKilled); raise spec.training.resources.limits.memory"
    # Jobs of earlier releases have a deadline of their own.
    if DEADLINE_EXCEEDED in (job.failure_reason, *(pod.end_reason for pod in trainers)):
        return (
            f"it timed out after {snapshot.classifier.spec.training.active_deadline_seconds} s; "
            "raise spec.training.activeDeadlineSeconds, or give the trainer more in spec.training.resources"
        )
    if last is not None and last.exit_code == KILLED_EXIT_CODE:
        return (
            f"{name_trainer(last, trainers)} was killed (exit code {KILLED_EXIT_CODE}), most likely because its node ran out "
            "of memory; raise spec.training.resources, then spec.retrainNonce"
        )
    if last is not None and last.exit_code is not None:
        said = f": {last.termination_message.strip()}" if last.termination_message.strip() else ""
        return (
            f"{name_trainer(last, trainers)} ended with exit code {last.exit_code}{said}; "
            f"read `kubectl logs {name_log(last, job)}`, then raise spec.retrainNonce to try again"
        )
    reported = job.failure_message or job.failure_reason or "it failed without an error message"
    return f"{reported}; raise spec.retrainNonce to try again"


def describe_failed_pods(snapshot: Snapshot, trainers: tuple[ObservedPod, ...]) -> str:
    """How the last Pod failed that the Job replaces; empty if none failed."""
    last = find_decisive([pod for pod in trainers if pod.phase == "Failed"])
    if last is None:
        return ""
    failures = max(count_failures(trainers), 1)
    said = last.outcome.message if last.outcome is not None else last.termination_message.strip()
    if not said and last.exit_code is not None:
        said = f"exit code {last.exit_code}"
    tries = snapshot.classifier.spec.training.backoff_limit + 1
    fact = f"try {failures} of {max(tries, failures)} failed" + (f" ({said})" if said else "")
    again = failures < tries and last.exit_code not in FINAL_EXIT_CODES
    return f"{fact}; Kubernetes tries again shortly" if again else fact
