"""Which namespaces the operator can work in, and when its watches are stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ocelli_api.classifier import Classifier
from ocelli_cluster.client import ForbiddenError, Page, UnreachableError
from ocelli_cluster.resource_cache import WatchTimeouts
from ocelli_cluster.resources import CLASSIFIERS, JOBS, ObjectKey, Resource
from ocelli_operator.cluster_view import ClusterView, ViewScope
from tests.unit.operator.classifier_cluster import make_manifest

pytestmark = pytest.mark.anyio


class Namespaces:
    """An API server with a Classifier in each namespace. Some namespaces are forbidden, and some get no answers."""

    def __init__(self) -> None:
        self.forbidden: set[tuple[str | None, Resource]] = set()
        self.silent: set[str | None] = set()
        self.unreadable: set[str | None] = set()

    async def list_pages(self, resource: Resource, namespace: str | None, _selector: object = None) -> AsyncIterator[Page]:
        self._check(resource, namespace)
        items = []
        if resource == CLASSIFIERS:
            spec = {"dataRetention": "Archive"} if namespace in self.unreadable else {}
            items = [make_manifest("dogs", namespace or "team-a", spec=spec)]
        yield Page(items=items, resource_version="5", first=True)

    @asynccontextmanager
    async def watch(self, resource: Resource, *, namespace: str | None, **_: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self._check(resource, namespace)

        async def wait() -> AsyncIterator[Any]:
            await asyncio.sleep(0.01)
            return
            yield

        yield wait()

    def _check(self, resource: Resource, namespace: str | None) -> None:
        if namespace in self.silent:
            raise UnreachableError("no answer")
        if (namespace, resource) in self.forbidden:
            raise ForbiddenError(403, f"{resource.plural} is forbidden", "Forbidden")

    def forbid(self, namespace: str | None) -> None:
        self.forbidden.add((namespace, CLASSIFIERS))
        self.forbidden.add((namespace, JOBS))


@asynccontextmanager
async def watching(api: Namespaces, *namespaces: str) -> AsyncIterator[ClusterView]:
    scope = ViewScope(namespaces=namespaces, timeouts=WatchTimeouts(), gpu_resource=None)

    def deleted(_classifier: Classifier, _deletion_seen: bool) -> None:
        raise AssertionError("nothing was deleted")

    view = ClusterView(api, scope, lambda _key: None, deleted)  # type: ignore[arg-type]
    task = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(condition: Any) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110 - of many events
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 20)


async def test_a_forbidden_namespace_does_not_block_the_others() -> None:
    api = Namespaces()
    api.forbid("team-b")
    async with watching(api, "team-a", "team-b") as view:
        await asyncio.wait_for(view.wait_until_synced(), 10)
        assert view.can_reconcile(ObjectKey("team-a", "dogs"))
        assert not view.can_reconcile(ObjectKey("team-b", "dogs"))


async def test_a_forbidden_namespace_is_named_with_the_forbidden_kind() -> None:
    api = Namespaces()
    api.forbid("team-b")
    async with watching(api, "team-a", "team-b") as view:
        await asyncio.wait_for(view.wait_until_synced(), 10)
        assert view.forbidden_namespaces() == {"team-b": "classifiers"}


async def test_a_namespace_can_be_reconciled_when_every_kind_is_allowed_again() -> None:
    api = Namespaces()
    api.forbid("team-b")
    async with watching(api, "team-a", "team-b") as view:
        await asyncio.wait_for(view.wait_until_synced(), 10)
        api.forbidden.discard(("team-b", CLASSIFIERS))
        await becomes(lambda: view.classifier(ObjectKey("team-b", "dogs")) is not None)
        assert not view.can_reconcile(ObjectKey("team-b", "dogs"))
        api.forbidden.clear()
        await becomes(lambda: view.can_reconcile(ObjectKey("team-b", "dogs")))
        assert view.forbidden_namespaces() == {}


async def test_the_view_is_never_synced_if_all_namespaces_are_forbidden() -> None:
    api = Namespaces()
    api.forbid("team-a")
    async with watching(api, "team-a") as view:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(view.wait_until_synced(), 0.3)


@pytest.mark.parametrize(
    ("forbidden", "silent", "is_stale"),
    [(["team-b"], [], False), (["team-a", "team-b"], [], True), (["team-b"], ["team-a"], True), ([], ["team-b"], True)],
    ids=["one forbidden", "all forbidden", "the allowed one silent", "one silent"],
)
async def test_watches_are_stale_if_an_allowed_namespace_is_silent_or_all_are_forbidden(
    forbidden: list[str], silent: list[str], is_stale: bool
) -> None:
    api = Namespaces()
    async with watching(api, "team-a", "team-b") as view:
        await asyncio.wait_for(view.wait_until_synced(), 10)
        for namespace in forbidden:
            api.forbid(namespace)
        api.silent.update(silent)
        await becomes(lambda: view.forbidden_namespaces().keys() == set(forbidden))
        before = view.watch_age_seconds
        await asyncio.sleep(0.3)
        assert (view.watch_age_seconds > max(before, 0.25)) == is_stale


async def test_an_unreadable_classifier_is_not_reconciled_and_others_are() -> None:
    api = Namespaces()
    api.unreadable = {"team-b"}
    async with watching(api, "team-a", "team-b") as view:
        await asyncio.wait_for(view.wait_until_synced(), 10)
        assert view.can_reconcile(ObjectKey("team-a", "dogs"))
        assert not view.can_reconcile(ObjectKey("team-b", "dogs"))
        assert [item.reference.key for item in view.unreadable()] == [ObjectKey("team-b", "dogs")]
