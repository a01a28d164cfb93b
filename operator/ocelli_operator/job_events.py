"""Why a training Job has no Pod. The status of a Job does not say so: its controller only sends an Event, and tries again."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ClusterClient, ForbiddenError
from ocelli_cluster.resources import EVENTS
from ocelli_operator.observed import POD_PATIENCE_SECONDS, ObservedJob, ObservedPod

logger = logging.getLogger(__name__)

_BEFORE = datetime.min.replace(tzinfo=UTC)


async def find_pod_refusal(client: ClusterClient, job: ObservedJob, pods: Iterable[ObservedPod], now: datetime) -> str:
    """Kubernetes' message on why it recently created no Pod for the Job; empty if it created one, or is about to.

    Reads Events only for Jobs that have had too few Pods for some seconds.

    Raises:
        ClusterError: Events cannot be read.
    """
    trainers = [pod for pod in pods if pod.identity.owner_uid == job.identity.uid]
    present = {pod.worker for pod in trainers if not pod.ended or pod.phase == "Succeeded"}
    if job.finished or job.identity.deleting or len(present) >= job.workers:
        return ""
    if job.age_seconds(now) < POD_PATIENCE_SECONDS:
        return ""
    try:
        listing = await client.list_objects(
            EVENTS, job.identity.namespace, field_selector=f"regarding.uid={job.identity.uid},reason=FailedCreate"
        )
    except ForbiddenError as error:
        # The chart of an earlier release did not grant this right.
        logger.warning("events of a Job cannot be read", extra={"job": job.identity.name, "error": str(error)})
        return ""
    last = max(listing.items, key=_seen_at, default=None)
    created_at = max((datetime.fromisoformat(pod.created_at) for pod in trainers if pod.created_at), default=_BEFORE)
    return "" if last is None or _seen_at(last) < created_at else str(last.get("note", ""))


def _seen_at(event: Manifest) -> datetime:
    times = ((event.get("series") or {}).get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return max((datetime.fromisoformat(time) for time in times if time), default=_BEFORE)
