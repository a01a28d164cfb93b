"""Objects that the view finds by their index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Manifest
from ocelli_cluster.client import Page
from ocelli_cluster.resource_cache import WatchTimeouts
from ocelli_cluster.resources import CLASSIFIERS, JOBS, SERVICES, ObjectKey, Resource
from ocelli_operator.cluster_view import ClusterView, ViewScope
from ocelli_operator.observed import ChildKind
from tests.unit.operator.factories import make_spec

pytestmark = pytest.mark.anyio


def make(name: str, version: int, *, label: str | None = None, status_id: str | None = None) -> Manifest:
    return {
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {} if label is None else {CLASSIFIER_ID_LABEL: label},
        },
        "spec": make_spec(),
        "status": {} if status_id is None else {"classifierID": status_id},
    }


def make_child(name: str, version: int, classifier: str) -> Manifest:
    metadata = {"namespace": "team-a", "name": name, "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": {"ocelli.dev/classifier": classifier}}, "spec": {}}


class StaticCluster:
    """Lists some Classifiers, which never change."""

    def __init__(self, *classifiers: Manifest) -> None:
        self._classifiers = classifiers

    async def list_pages(self, resource: Resource, *_: object) -> AsyncIterator[Page]:
        yield Page(items=self._classifiers if resource == CLASSIFIERS else (), resource_version="50", first=True)

    @asynccontextmanager
    async def watch(self, *_: object, **__: object) -> AsyncIterator[AsyncIterator[Any]]:
        async def nothing() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield nothing()


@contextmanager
def viewing(*classifiers: Manifest) -> Iterator[ClusterView]:
    scope = ViewScope(namespaces=(), timeouts=WatchTimeouts(), gpu_resource=None)
    client: Any = StaticCluster(*classifiers)
    view = ClusterView(client, scope, lambda _: None, lambda *_: None)
    task = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        task.cancel()


def names(view: ClusterView, classifier_id: str) -> list[str]:
    return [item.name for item in view.classifiers_with_id("team-a", classifier_id)]


async def test_classifiers_are_found_by_the_id_in_label_or_status() -> None:
    with viewing(make("a", 1, label="a_1"), make("b", 2, status_id="b_2"), make("c", 3)) as view:
        await view.wait_until_synced()
        assert (names(view, "a_1"), names(view, "b_2"), names(view, "c_3")) == (["a"], ["b"], [])


async def test_two_classifiers_with_one_id_are_both_found() -> None:
    with viewing(make("a", 1, label="x_1"), make("b", 2, label="x_1")) as view:
        await view.wait_until_synced()
        assert sorted(names(view, "x_1")) == ["a", "b"]


async def test_an_id_that_this_operator_has_just_written_is_found_immediately() -> None:
    with viewing(make("a", 1, label="x_1"), make("b", 2, label="x_1")) as view:
        await view.wait_until_synced()
        view.take(CLASSIFIERS, make("b", 60, label="x_1", status_id="b_7"))
        assert (names(view, "x_1"), names(view, "b_7")) == (["a"], ["b"])


async def test_the_same_id_in_another_namespace_is_not_found() -> None:
    with viewing(make("a", 1, label="x_1")) as view:
        await view.wait_until_synced()
        assert view.classifiers_with_id("team-b", "x_1") == ()


def make_job(version: int, owner_uid: str) -> Manifest:
    job = make_child(f"dogs-{version}", version, "dogs")
    job["metadata"]["ownerReferences"] = [{"uid": owner_uid, "controller": True}]
    return job


async def test_a_job_with_the_label_but_another_owner_does_not_count_as_a_workload() -> None:
    with viewing(make("dogs", 1)) as view:
        await view.wait_until_synced()
        view.take(JOBS, make_job(60, "uid-dogs"))
        view.take(JOBS, make_job(61, "uid-of-another"))
        workloads = view.workloads(ObjectKey("team-a", "dogs"))
        assert [job.identity.name for job in workloads.jobs] == ["dogs-60"]


async def test_children_are_found_in_the_order_of_their_names() -> None:
    with viewing(make("dogs", 1)) as view:
        await view.wait_until_synced()
        for version, name in enumerate(("dogs-b", "dogs-a"), start=60):
            view.take(SERVICES, make_child(name, version, "dogs"))
        found = view.children(ChildKind.SERVICE, ObjectKey("team-a", "dogs"))
        assert [child.identity.name for child in found] == ["dogs-a", "dogs-b"]
