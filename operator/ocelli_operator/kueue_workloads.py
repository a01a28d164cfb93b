"""Reads the Workload that Kueue keeps for a Job.

Only a Workload's conditions name a queue that does not exist or is stopped: Kueue sends no Events about that, and those that it
sends expire after an hour. The Job itself says only that it is suspended.
"""

from __future__ import annotations

from ocelli_cluster.client import ApiError, ClusterClient, ForbiddenError, NotFoundError
from ocelli_cluster.resources import Resource
from ocelli_operator.kueue import KueueAdmission, KueueState, parse_admission

EXCERPT_CHARACTERS = 300
"""Of an error that status shows."""
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""Kueue's label on a Workload."""
WORKLOADS = tuple(
    Resource(group="kueue.x-k8s.io", version=version, plural="workloads", kind="Workload") for version in ("v1beta2", "v1beta1")
)
"""The newest version first: releases of Kueue before 0.15 serve only the other one, with the same conditions."""


async def observe_admission(client: ClusterClient, namespace: str, job_uid: str) -> KueueAdmission:
    """What Kueue says about a Job.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    for resource in WORKLOADS:
        try:
            listing = await client.list_objects(resource, namespace, f"{JOB_UID_LABEL}={job_uid}")
        except NotFoundError:
            continue
        except ForbiddenError:
            return KueueAdmission(state=KueueState.FORBIDDEN)
        except ApiError as error:
            # What else there is to do about the Classifier, such as serving, must not wait for Kueue.
            return KueueAdmission(state=KueueState.UNREADABLE, message=error.message[:EXCERPT_CHARACTERS])
        return parse_admission(listing.items[0]) if listing.items else KueueAdmission(state=KueueState.NO_WORKLOAD)
    return KueueAdmission(state=KueueState.NOT_INSTALLED)
