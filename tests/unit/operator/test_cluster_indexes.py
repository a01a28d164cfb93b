"""What the view finds by its indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from ocelli_cluster.client import Page
from ocelli_cluster.resource_cache import WatchTimeouts
from ocelli_cluster.resources import CLASSIFIERS, ObjectKey, Resource

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Manifest
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


class StillCluster:
    """Lists some Classifiers; nothing ever changes."""

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
def looking(*classifiers: Manifest) -> Iterator[ClusterView]:
    scope = ViewScope(namespaces=(), timeouts=WatchTimeouts(), gpu_resource=None)
    client: Any = StillCluster(*classifiers)
    view = ClusterView(client, scope, lambda _: None, lambda *_: None)
    task = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        task.cancel()


def names(view: ClusterView, classifier_id: str) -> list[str]:
    return [item.name for item in view.classifiers_with_id("team-a", classifier_id)]


async def test_classifiers_are_found_by_the_id_of_label_or_status() -> None:
    with looking(make("a", 1, label="a_1"), make("b", 2, status_id="b_2"), make("c", 3)) as view:
        await view.wait_until_synced()
        assert (names(view, "a_1"), names(view, "b_2"), names(view, "c_3")) == (["a"], ["b"], [])


async def test_two_of_one_id_are_both_found() -> None:
    with looking(make("a", 1, label="x_1"), make("b", 2, label="x_1")) as view:
        await view.wait_until_synced()
        assert sorted(names(view, "x_1")) == ["a", "b"]


async def test_an_id_that_this_operator_has_just_written_is_found_at_once() -> None:
    with looking(make("a", 1, label="x_1"), make("b", 2, label="x_1")) as view:
        await view.wait_until_synced()
        view.take_classifier(make("b", 60, label="x_1", status_id="b_7"))
        assert (names(view, "x_1"), names(view, "b_7")) == (["a"], ["b"])


async def test_an_id_of_another_namespace_is_another_one() -> None:
    with looking(make("a", 1, label="x_1")) as view:
        await view.wait_until_synced()
        assert view.classifiers_with_id("team-b", "x_1") == ()


def make_job(version: int, owner_uid: str) -> Manifest:
    job = make_child(f"dogs-{version}", version, "dogs")
    job["metadata"]["ownerReferences"] = [{"uid": owner_uid, "controller": True}]
    return job


async def test_what_only_carries_the_label_of_a_classifier_is_none_of_its_family() -> None:
    with looking(make("dogs", 1)) as view:
        await view.wait_until_synced()
        view.take_child(ChildKind.JOB, make_job(60, "uid-dogs"))
        view.take_child(ChildKind.JOB, make_job(61, "uid-of-somebody-else"))
        family = view.family(ObjectKey("team-a", "dogs"))
        assert [job.identity.name for job in family.jobs] == ["dogs-60"]


async def test_children_are_found_in_the_order_of_their_names() -> None:
    with looking(make("dogs", 1)) as view:
        await view.wait_until_synced()
        for version, name in enumerate(("dogs-b", "dogs-a"), start=60):
            view.take_child(ChildKind.SERVICE, make_child(name, version, "dogs"))
        found = view.services(ObjectKey("team-a", "dogs"))
        assert [child.identity.name for child in found] == ["dogs-a", "dogs-b"]
