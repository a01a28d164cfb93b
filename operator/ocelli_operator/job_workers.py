"""What the Pods of a training Job with several workers say together: who runs, and whose end decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocelli_api.outcome import ExitCode
from ocelli_operator.observed import ObservedJob, ObservedPod

_SIGTERM_EXIT_CODE = 143
_NOT_DECISIVE = (int(ExitCode.WORKER_LOST), _SIGTERM_EXIT_CODE)
"""How workers end because of another one: by themselves, or because Kubernetes ends the Job."""


def find_last(pods: Iterable[ObservedPod]) -> ObservedPod | None:
    """The Pod that was created last."""
    return max(pods, key=lambda pod: pod.created_at, default=None)


def find_decisive(pods: Sequence[ObservedPod]) -> ObservedPod | None:
    """The Pod whose end decided how the Job ended: the last one; of several workers, the last that failed by itself, otherwise
    the first worker, which has the outcome."""
    if not has_several_workers(pods):
        return find_last(pods)
    failed = find_last(pod for pod in pods if pod.phase == "Failed" and pod.exit_code not in _NOT_DECISIVE)
    first = find_last(pod for pod in pods if pod.worker == 0)
    if first is not None and first.outcome is not None and first.exit_code not in _NOT_DECISIVE:
        return first
    return failed or first or find_last(pods)


def ends_attempt(pod: ObservedPod) -> bool:
    """Whether this Pod, which has not failed, shows that the attempt has ended before its Job has. Another worker ends well as
    soon as the artifact is stored, before the first one has stored the outcome."""
    return (pod.phase == "Succeeded" or pod.held_open) and (pod.worker == 0 or pod.exit_code != 0)


def count_failures(pods: Iterable[ObservedPod]) -> int:
    """How many Pods failed, without workers that ended because of another one."""
    return sum(pod.phase == "Failed" and pod.exit_code != ExitCode.WORKER_LOST for pod in pods)


def count_running(pods: Iterable[ObservedPod]) -> int:
    """How many workers run, or have ended well."""
    return len({pod.worker for pod in pods if pod.phase in ("Running", "Succeeded")})


def has_several_workers(pods: Iterable[ObservedPod]) -> bool:
    """Whether there is a Pod of a worker other than the first."""
    return any(pod.worker for pod in pods)


def name_trainer(pod: ObservedPod, pods: Iterable[ObservedPod]) -> str:
    """The trainer in that Pod, for a message."""
    return f"worker {pod.worker}" if has_several_workers(pods) else "the trainer"


def name_pod(pod: ObservedPod, job: ObservedJob) -> str:
    """The Pod, for a message about its Job."""
    return f"the Pod of worker {pod.worker}" if job.workers > 1 else "its Pod"


def name_log(pod: ObservedPod, job: ObservedJob) -> str:
    """Where to read what a trainer wrote, as an argument of `kubectl logs`."""
    return pod.identity.name if job.workers > 1 else f"job/{job.identity.name}"
