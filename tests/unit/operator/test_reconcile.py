"""One reconcile, with stand-ins for the API server and the store that refuse: what is remembered, reported and counted."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest

from ocelli_api import outcome
from ocelli_api.classifier import Classifier, Manifest
from ocelli_api.classifier_status import ClassifierStatus, parse_status
from ocelli_api.outcome import ProgressReport
from ocelli_api.pods import Component
from ocelli_api.revision import current_revision
from ocelli_cluster.client import AdmissionError, ApiError, ConflictError, InvalidError, NotFoundError, QuotaError
from ocelli_cluster.resources import CLASSIFIERS, DEPLOYMENTS, EVENTS, ObjectKey, Resource
from ocelli_operator.actions import StartTraining
from ocelli_operator.events import EventRecorder
from ocelli_operator.manifests.metadata import MANIFEST_HASH_ANNOTATION
from ocelli_operator.memory import Memory
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import ChildKind, Observed
from ocelli_operator.plan import LABEL_DELAY_SECONDS, plan_classifier
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.starts import Workloads
from tests.unit.operator.factories import (
    CLASSIFIER_ID,
    NO_WORKLOADS,
    NOW,
    make_artifact,
    make_classifier,
    make_job,
    make_pod,
    make_polls,
    make_settings,
    make_starts,
)

KEY = ObjectKey("team-a", "dogs")
QUOTA = QuotaError(403, 'jobs.batch "dogs" is forbidden: exceeded quota: team, requested: count/jobs.batch=1', "Forbidden")


class StandInClient:
    """Answers as configured, and records the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.refuse: dict[str, ApiError] = {}
        """By plural: raised by every create."""
        self.existing: dict[str, Manifest] = {}
        """By plural: what is there already."""
        self.rewrite: Callable[[Manifest], None] = lambda manifest: None
        """What a webhook does."""
        self.version = 100
        self.statuses: list[Manifest] = []
        """Those that were written."""

    def answer(self, manifest: Manifest) -> Manifest:
        self.version += 1
        stored = copy.deepcopy(manifest)
        metadata = stored["metadata"]
        metadata.update(uid=metadata.get("uid", "uid-1"), resourceVersion=str(self.version), namespace="team-a")
        if "spec" in stored:
            self.rewrite(stored)
        return stored

    async def create(self, resource: Resource, namespace: str, body: Manifest, **_: Any) -> Manifest:
        if resource == EVENTS:
            return body
        self.requests.append(("create", resource.plural))
        if resource.plural in self.refuse:
            raise self.refuse[resource.plural]
        if resource.plural in self.existing:
            raise ConflictError(409, "already exists", "AlreadyExists")
        self.existing[resource.plural] = self.answer(body)
        return self.existing[resource.plural]

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        if resource.plural not in self.existing:
            raise NotFoundError(404, "not found")
        return self.existing[resource.plural]

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Manifest, **_: Any) -> Manifest:
        self.requests.append(("patch", resource.plural))
        stored = copy.deepcopy(self.existing[resource.plural])
        stored["metadata"]["annotations"].update(patch["metadata"].get("annotations", {}))
        self.existing[resource.plural] = self.answer(stored)
        return self.existing[resource.plural]

    async def apply(self, resource: Resource, namespace: str, name: str, body: Manifest, **options: Any) -> Manifest:
        self.requests.append(("apply", options.get("subresource") or resource.plural))
        if options.get("subresource") == "status":
            self.statuses.append(body["status"])
        return self.answer(body)


class StandInView:
    """One Classifier, without children."""

    def __init__(self, classifier: Classifier) -> None:
        self.known: Classifier | None = classifier
        self.jobs_seen: tuple[Any, ...] = ()
        self.pods_seen: tuple[Any, ...] = ()
        self.taken: list[tuple[Resource, Manifest]] = []

    def classifier(self, key: ObjectKey) -> Classifier | None:
        return self.known

    def classifiers(self) -> list[Classifier]:
        return [] if self.known is None else [self.known]

    def jobs(self, key: ObjectKey) -> tuple[Any, ...]:
        return self.jobs_seen

    def none(self, key: ObjectKey) -> tuple[()]:
        return ()

    def pods(self, key: ObjectKey) -> tuple[Any, ...]:
        return self.pods_seen

    deployments = none

    def children(self, kind: ChildKind, key: ObjectKey) -> tuple[()]:
        return ()

    def gpu_nodes(self) -> tuple[()]:
        return ()

    def workloads(self, _key: ObjectKey) -> Workloads:
        return NO_WORKLOADS

    def take(self, resource: Resource, manifest: Manifest) -> None:
        if resource != CLASSIFIERS:
            self.taken.append((resource, manifest))


class StandInStore:
    """Holds the artifact, or nothing."""

    def __init__(self) -> None:
        self.artifact: Any = None
        self.progress: ProgressReport | None = None

    async def load_artifact(self, *_: Any) -> Any:
        return self.artifact

    async def holds_artifact(self, *_: Any) -> bool:
        return self.artifact is not None

    async def load_outcome(self, *_: Any) -> None:
        return None

    async def load_check(self, *_: Any) -> None:
        return None

    async def load_progress(self, *_: Any) -> ProgressReport | None:
        return self.progress

    def find_fault(self, *_: Any) -> str:
        return ""

    async def save_definition(self, *_: Any) -> None:
        return None


class Stage:
    def __init__(self, classifier: Classifier | None = None) -> None:
        self.client, self.store, self.metrics = StandInClient(), StandInStore(), OperatorMetrics()
        self.view = StandInView(make_classifier() if classifier is None else classifier)
        self.now = NOW
        client = cast(Any, self.client)
        self.reconciler = Reconciler(
            ReconcilerParts(
                client=client,
                view=cast(Any, self.view),
                store=cast(Any, self.store),
                events=EventRecorder(client, "test"),
                metrics=self.metrics,
                settings=make_settings(),
                starts=make_starts(),
                source_polls=make_polls(),
                clock=lambda: self.now,
            )
        )

    @property
    def memories(self) -> dict[str, Memory]:
        return self.reconciler._memories

    def act(self) -> float | None:
        return asyncio.run(self.reconciler.reconcile(KEY))

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("ocelli_reconciles_total", {"result": result}) or 0.0

    def start(self) -> StartTraining:
        assert self.view.known is not None
        plan = plan_classifier(Observed(classifier=self.view.known, now=NOW), make_settings())
        (start,) = [action for action in plan.actions if isinstance(action, StartTraining)]
        return start


def learned_stage() -> Stage:
    stage = Stage()
    assert stage.view.known is not None
    stage.store.artifact = make_artifact(stage.view.known)
    return stage


@pytest.mark.parametrize(
    "refusal",
    [
        QUOTA,
        AdmissionError(403, 'admission webhook "no.test" denied the request: not today', "Forbidden"),
    ],
)
def test_waiting_for_a_tenants_quota_or_webhook_is_not_an_error(refusal: ApiError) -> None:
    stage = Stage()
    stage.client.refuse["jobs"] = refusal
    assert stage.act() == 0.0, "the plan has to learn of it first"
    assert stage.act() == 1.0
    assert stage.act() == 2.0, "ever less often"
    assert (stage.count("waiting"), stage.count("error")) == (2.0, 0.0)


def test_a_foreign_job_is_waited_for_and_reported() -> None:
    stage = Stage()
    stage.client.existing["jobs"] = {"metadata": {"name": stage.start().manifest["metadata"]["name"], "namespace": "team-a"}}
    stage.act()
    assert stage.act() == 1.0
    assert stage.count("waiting") == 1.0
    assert ("apply", "status") in stage.client.requests


def test_a_foreign_deployment_is_not_changed() -> None:
    stage = learned_stage()
    stage.client.existing["deployments"] = {"metadata": {"name": "any", "namespace": "team-a", "uid": "theirs"}}
    stage.act()
    assert stage.act() == 1.0
    assert ("apply", "deployments") not in stage.client.requests
    assert ("patch", "deployments") not in stage.client.requests


def test_its_own_deployment_from_a_lost_response_is_updated() -> None:
    stage = learned_stage()
    owner = {"controller": True, "kind": "Classifier", "name": "dogs", "uid": "uid-dogs"}
    metadata = {"name": "any", "namespace": "team-a", "uid": "ours", "resourceVersion": "1", "ownerReferences": [owner]}
    stage.client.existing["deployments"] = {"metadata": metadata}
    stage.act()
    assert [item for item in stage.client.requests if item[1] == "deployments"] == [
        ("create", "deployments"),
        ("apply", "deployments"),
    ]


def test_a_child_rewritten_by_a_webhook_is_annotated() -> None:
    stage = learned_stage()
    stage.client.rewrite = lambda manifest: manifest["spec"].update(revisionHistoryLimit=7)
    stage.act()
    resource, manifest = stage.view.taken[-1]
    assert resource == DEPLOYMENTS
    assert len(manifest["metadata"]["annotations"]["ocelli.dev/applied-as"]) == 16
    assert manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]


def test_a_child_that_no_webhook_rewrites_is_written_once() -> None:
    stage = learned_stage()
    stage.act()
    assert [item for item in stage.client.requests if item[1] == "deployments"] == [("create", "deployments")]


def test_a_restored_label_and_the_status_are_written_by_separate_reconciles() -> None:
    status = ClassifierStatus(classifier_id=CLASSIFIER_ID, observed_generation=1)
    stage = Stage(make_classifier(status, labels={}))
    assert stage.act() == LABEL_DELAY_SECONDS
    assert stage.client.requests == [("apply", "classifiers")]


def test_a_deleted_classifier_is_forgotten() -> None:
    stage = Stage()
    stage.client.refuse["jobs"] = QUOTA
    stage.act()
    assert stage.view.known is not None
    assert len(stage.memories) == 1
    stage.reconciler.forget(stage.view.known)
    assert stage.memories == {}


def test_the_memory_of_one_classifier_is_bounded() -> None:
    stage = Stage()
    stage.client.refuse["jobs"] = InvalidError(422, "no", "Invalid")
    known = stage.view.known
    assert known is not None
    for seed in range(120):
        changed = replace(make_classifier(model={"seed": seed}), status=known.status)
        stage.view.known = changed
        stage.act()
    (memory,) = stage.memories.values()
    assert len(memory.refusals) == 50


def test_events_of_a_new_job_are_not_read() -> None:
    stage = Stage()
    assert stage.view.known is not None
    # The stand-in has no list: reading Events would fail.
    stage.view.jobs_seen = (make_job(stage.view.known, created_at=NOW.isoformat()),)
    assert stage.act() == 5.0


def test_progress_is_written_at_most_once_in_ten_seconds_whatever_the_stage() -> None:
    stage = Stage()
    stage.act()
    known = stage.view.known
    assert known is not None
    stage.view.jobs_seen = (make_job(known),)
    stage.view.pods_seen = (make_pod(Component.TRAINING, current_revision(known)),)
    written_at: list[int] = []
    for second in range(0, 120, 2):
        stage.now = NOW + timedelta(seconds=second)
        stages = list(outcome.Stage)
        stage.store.progress = ProgressReport(stage=stages[second * len(stages) // 120], percent=second // 2, data_valid=True)
        before = known.status.progress
        stage.act()
        known = replace(known, status=parse_status(stage.client.statuses[-1]))
        stage.view.known = known
        if known.status.progress != before:
            written_at.append(second)
    assert len(written_at) == 12
    assert {later - earlier for earlier, later in pairwise(written_at)} == {10}
