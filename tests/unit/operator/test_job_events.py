"""Why a Job has no Pod is read from its Events, and only if it should have one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from ocelli_api.classifier import Manifest
from ocelli_api.pods import Component
from ocelli_cluster.client import ForbiddenError, Listing
from ocelli_operator.job_events import find_pod_refusal
from ocelli_operator.observed import ObservedJob, ObservedPod
from tests.unit.operator.factories import NOW, make_classifier, make_job, make_pod

REVISION = make_job(make_classifier()).identity.revision


class StandInClient:
    def __init__(self, *events: Manifest, error: Exception | None = None) -> None:
        self.events, self.error = events, error
        self.selectors: list[str] = []

    async def list_objects(self, *_: Any, field_selector: str) -> Listing:
        self.selectors.append(field_selector)
        if self.error is not None:
            raise self.error
        return Listing(items=self.events, resource_version="1")


def make_event(note: str, age_seconds: int, place: str = "deprecatedLastTimestamp") -> Manifest:
    time = (NOW - timedelta(seconds=age_seconds)).isoformat()
    return {"note": note, "series": {"lastObservedTime": time}} if place == "series" else {"note": note, place: time}


def job_of_age(seconds: int, **fields: Any) -> ObservedJob:
    return make_job(make_classifier(), created_at=(NOW - timedelta(seconds=seconds)).isoformat(), **fields)


def find(client: StandInClient, job: ObservedJob, *pods: ObservedPod) -> str:
    return asyncio.run(find_pod_refusal(cast(Any, client), job, pods, NOW))


@pytest.mark.parametrize("place", ["deprecatedLastTimestamp", "eventTime", "series"])
def test_the_latest_event_is_returned(place: str) -> None:
    client = StandInClient(make_event("exceeded quota: now", 10, place), make_event("exceeded quota: before", 40, place))
    assert find(client, job_of_age(60)) == "exceeded quota: now"


def test_events_are_selected_by_the_api_server() -> None:
    client = StandInClient()
    job = job_of_age(60)
    find(client, job)
    assert client.selectors == [f"regarding.uid={job.identity.uid},reason=FailedCreate"]


@pytest.mark.parametrize(
    ("job", "pods"),
    [
        (job_of_age(2), ()),
        (job_of_age(60, finished=True), ()),
        (job_of_age(60), (make_pod(Component.TRAINING, REVISION),)),
    ],
)
def test_events_are_not_read_for_a_job_that_needs_no_pod(job: ObservedJob, pods: tuple[ObservedPod, ...]) -> None:
    client = StandInClient(make_event("old", 10))
    assert find(client, job, *pods) == ""
    assert client.selectors == []


def test_a_refusal_before_the_last_pod_is_ignored() -> None:
    made_at = (NOW - timedelta(seconds=20)).isoformat()
    pod = make_pod(Component.TRAINING, REVISION, phase="Failed", created_at=made_at)
    assert find(StandInClient(make_event("exceeded quota", 40)), job_of_age(60), pod) == ""
    assert find(StandInClient(make_event("exceeded quota", 10)), job_of_age(60), pod) == "exceeded quota"


def test_without_the_right_to_read_events_the_reason_is_empty() -> None:
    assert find(StandInClient(error=ForbiddenError(403, "no")), job_of_age(60)) == ""
