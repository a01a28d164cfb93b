"""The list-and-watch cache, with a client that plays back the answers of a test."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ocelli_api.classifier import parse_classifier
from ocelli_cluster.client import (
    ApiError,
    ClusterError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    Page,
    UnreachableError,
    WatchEvent,
)
from ocelli_cluster.resource_cache import Change, ResourceCache
from ocelli_cluster.resources import CLASSIFIERS, NODES

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def make(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}}


@dataclass
class PlaybackClient:
    """Answers lists and watches from queues. The last watch stays open after its events."""

    lists: list[Page | list[Page | ClusterError] | ClusterError]
    watches: list[list[WatchEvent | ClusterError]]
    watched_from: list[str] = field(default_factory=list)
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_pages(self, *_: object) -> AsyncIterator[Page]:
        answer = self.lists.pop(0)
        pages = answer if isinstance(answer, list) else [answer]
        while pages:
            page = pages.pop(0)
            if isinstance(page, ClusterError):
                raise page
            yield page
            del page

    @asynccontextmanager
    async def watch(self, _resource: object, *, resource_version: str, **_: object) -> AsyncIterator[Any]:
        self.watched_from.append(resource_version)
        yield self._play(self.watches.pop(0) if self.watches else [])

    async def _play(self, events: list[WatchEvent | ClusterError]) -> AsyncIterator[WatchEvent]:
        for event in events:
            if isinstance(event, ClusterError):
                raise event
            yield event
        if not self.watches:
            self.drained.set()
            await asyncio.Event().wait()


@dataclass
class Run:
    cache: ResourceCache[str]
    client: PlaybackClient
    changes: list[Change[str]]

    def versions(self) -> dict[str, str]:
        return {name: value for name in "abc" if (value := self.cache.get("ns", name)) is not None}


async def play(lists: list[Any], *watches: list[Any]) -> Run:
    """Run a cache until the last watch has no more events."""
    client = PlaybackClient(lists=list(lists), watches=list(watches))
    changes: list[Change[str]] = []
    cache: ResourceCache[str] = ResourceCache(
        client,  # type: ignore[arg-type]
        CLASSIFIERS,
        project=lambda manifest: str(manifest["metadata"]["resourceVersion"]),
        on_change=changes.append,
    )
    task = asyncio.create_task(cache.run())
    try:
        await asyncio.wait_for(client.drained.wait(), 10)
        return Run(cache=cache, client=client, changes=changes)
    finally:
        task.cancel()


def listing(version: int, *items: dict[str, Any], first: bool = True) -> Page:
    return Page(items=items, resource_version=str(version), first=first)


def event(kind: str, manifest: dict[str, Any]) -> WatchEvent:
    return WatchEvent(type=kind, object=manifest)


async def test_the_cache_contains_a_list_and_later_events() -> None:
    run = await play(
        [listing(5, make("a", 1), make("b", 2))], [event("MODIFIED", make("a", 6)), event("DELETED", make("b", 7))]
    )
    assert run.versions() == {"a": "6"}
    assert run.client.watched_from == ["5"]


class Tracked(dict[str, Any]):
    """A manifest that can be weakly referenced."""


async def test_no_page_is_in_memory_while_the_next_one_is_read() -> None:
    still_held: list[int] = []

    class PagingClient(PlaybackClient):
        async def list_pages(self, *_: object) -> AsyncIterator[Page]:
            seen = []
            for number in range(3):
                manifest = Tracked(make(f"{number}", number + 1))
                seen.append(weakref.ref(manifest))
                page = listing(5, manifest, first=number == 0)
                del manifest
                yield page
                del page
                still_held.append(sum(item() is not None for item in seen))

    client = PagingClient(lists=[], watches=[])
    cache: ResourceCache[str] = ResourceCache(client, CLASSIFIERS, project=lambda _: "kept")  # type: ignore[arg-type]
    task = asyncio.create_task(cache.run())
    await asyncio.wait_for(client.drained.wait(), 10)
    task.cancel()
    assert still_held == [0, 0, 0]
    assert len(cache.values()) == 3


async def test_only_the_second_attempt_of_a_restarted_list_counts() -> None:
    pages = [listing(5, make("a", 1), make("b", 2)), listing(9, make("b", 2), make("c", 8))]
    run = await play([pages], [])
    assert run.versions() == {"b": "2", "c": "8"}
    assert run.client.watched_from == ["9"]


async def test_an_interrupted_list_is_repeated_before_any_object_counts_as_vanished() -> None:
    broken = [listing(5, make("a", 1)), UnreachableError("reset")]
    run = await play([broken, [listing(6, make("a", 1)), listing(6, make("b", 2), first=False)]], [])
    assert run.versions() == {"a": "1", "b": "2"}
    assert [change.key.name for change in run.changes] == ["a", "b"]


async def test_every_change_is_reported_with_the_previous_value() -> None:
    run = await play([listing(5, make("a", 1))], [event("MODIFIED", make("a", 6)), event("DELETED", make("a", 7))])
    assert [(change.before, change.after) for change in run.changes] == [(None, "1"), ("1", "6"), ("6", None)]


async def test_an_object_that_is_missing_from_a_later_list_has_vanished() -> None:
    gone = [GoneError(410, "too old")]
    run = await play([listing(5, make("a", 1), make("b", 2)), listing(9, make("b", 2))], gone, [])
    assert run.versions() == {"b": "2"}
    assert [(change.key.name, change.after) for change in run.changes][-1] == ("a", None)
    assert len(run.changes) == 3


async def test_a_broken_watch_continues_at_its_resource_version() -> None:
    run = await play([listing(5)], [event("ADDED", make("a", 6)), UnreachableError("reset")], [])
    assert run.client.watched_from == ["5", "6"]


async def test_a_bookmark_advances_the_resource_version() -> None:
    mark = event("BOOKMARK", {"metadata": {"resourceVersion": "40"}})
    run = await play([listing(5)], [mark, UnreachableError("reset")], [])
    assert run.client.watched_from == ["5", "40"]
    assert run.changes == []


async def test_a_restored_server_with_lower_resource_versions_is_listed_again() -> None:
    lost = [ApiError(504, "Too large resource version", "Timeout")]
    run = await play([listing(50, make("a", 50)), listing(9, make("a", 8))], lost, [])
    assert run.versions() == {"a": "8"}


async def test_a_failed_list_is_retried() -> None:
    run = await play([UnreachableError("refused"), listing(5, make("a", 1))], [])
    assert run.versions() == {"a": "1"}


async def test_a_kind_that_the_api_server_does_not_know_is_missing_until_it_is_listed() -> None:
    seen: list[bool] = []
    unknown = NotFoundError(404, "the server could not find the requested resource", "NotFound")

    class Looking(PlaybackClient):
        async def list_pages(self, *_: object) -> AsyncIterator[Page]:
            seen.append(cache.missing)
            async for page in super().list_pages():
                yield page

    client = Looking(lists=[unknown, listing(5)], watches=[])
    cache: ResourceCache[str] = ResourceCache(client, CLASSIFIERS, project=str)  # type: ignore[arg-type]
    running = asyncio.create_task(cache.run())
    await asyncio.wait_for(client.drained.wait(), 10)
    running.cancel()
    assert [*seen, cache.missing] == [False, True, False]


async def test_it_is_fresh_while_it_watches() -> None:
    run = await play([listing(5)], [])
    assert run.cache.is_fresh()


async def test_it_is_not_fresh_before_the_first_list() -> None:
    cache: ResourceCache[str] = ResourceCache(
        PlaybackClient(lists=[], watches=[]),  # type: ignore[arg-type]
        CLASSIFIERS,
        project=str,
    )
    assert not cache.is_fresh()


async def test_the_answer_to_a_write_is_stored_before_the_watch_delivers_it() -> None:
    run = await play([listing(5, make("a", 1))], [])
    run.cache.take(make("a", 6))
    assert run.versions() == {"a": "6"}


async def test_an_older_answer_does_not_overwrite_what_the_watch_delivered() -> None:
    run = await play([listing(5, make("a", 1))], [event("MODIFIED", make("a", 9))])
    run.cache.take(make("a", 6))
    assert run.versions() == {"a": "9"}


async def test_an_answer_does_not_restore_an_object_that_was_deleted_since() -> None:
    run = await play([listing(5, make("a", 1))], [event("DELETED", make("a", 9))])
    run.cache.take(make("a", 6))
    assert run.versions() == {}


async def play_indexed(*watches: list[Any]) -> ResourceCache[str]:
    """As `play`, with the objects `a` and `b` of owner `x`, found by the owner that they have."""
    client = PlaybackClient(lists=[listing(5, make_owned("a", 1, "x"), make_owned("b", 2, "x"))], watches=list(watches))
    cache: ResourceCache[str] = ResourceCache(
        client,  # type: ignore[arg-type]
        CLASSIFIERS,
        project=lambda manifest: f"{manifest['metadata']['name']} of {manifest['metadata']['owner']}",
        index_by=lambda value: value.partition(" of ")[2] or None,
    )
    task = asyncio.create_task(cache.run())
    await asyncio.wait_for(client.drained.wait(), 10)
    task.cancel()
    return cache


def make_owned(name: str, version: int, owner: str) -> dict[str, Any]:
    manifest = make(name, version)
    manifest["metadata"]["owner"] = owner
    return manifest


async def test_objects_are_found_by_their_index_sorted_by_key() -> None:
    cache = await play_indexed([])
    assert cache.find("x") == ["a of x", "b of x"]
    assert cache.find("y") == []


async def test_the_index_follows_changes_deletions_and_own_writes() -> None:
    cache = await play_indexed([event("MODIFIED", make_owned("a", 6, "y")), event("DELETED", make_owned("b", 7, "x"))])
    cache.take(make_owned("c", 8, "x"))
    assert (cache.find("x"), cache.find("y")) == (["c of x"], ["a of y"])


async def test_an_object_without_an_indexed_value_is_not_found() -> None:
    cache = await play_indexed([event("MODIFIED", make_owned("a", 6, ""))])
    assert cache.find("") == []
    assert cache.get("ns", "a") == "a of "


async def play_strict(lists: list[Any], *watches: list[Any]) -> Run:
    """Like `play`, with a cache that cannot parse objects that are marked as later."""

    def project(manifest: dict[str, Any]) -> str:
        if manifest["metadata"].get("later"):
            raise ValueError("no such form")
        return str(manifest["metadata"]["resourceVersion"])

    client = PlaybackClient(lists=list(lists), watches=list(watches))
    changes: list[Change[str]] = []
    cache: ResourceCache[str] = ResourceCache(client, CLASSIFIERS, project=project, on_change=changes.append)  # type: ignore[arg-type]
    task = asyncio.create_task(cache.run())
    try:
        await asyncio.wait_for(client.drained.wait(), 10)
        return Run(cache=cache, client=client, changes=changes)
    finally:
        task.cancel()


def make_later(name: str, version: int) -> dict[str, Any]:
    manifest = make(name, version)
    manifest["metadata"]["later"] = True
    return manifest


async def test_the_last_value_of_an_object_that_became_unreadable_is_kept() -> None:
    run = await play_strict([listing(5, make("a", 1))], [event("MODIFIED", make_later("a", 6))])
    assert run.versions() == {"a": "1"}
    assert all(change.after is not None for change in run.changes)


async def test_an_unreadable_object_is_recorded_with_its_problem() -> None:
    run = await play_strict([listing(5, make_later("a", 1), make("b", 2))], [])
    assert [(key.name, item.problem) for key, item in run.cache.unreadable.items()] == [("a", "a field has an unexpected type")]
    assert run.versions() == {"b": "2"}


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({"classes": [], "dataRetention": "Archive"}, 'dataRetention: has the unknown value "Archive"'),
        ({"classes": [{}]}, "classes[0].name: is missing"),
        ({"classes": 7}, "classes: is not a list"),
    ],
)
async def test_the_problem_is_described_without_the_words_of_a_programming_language(
    manifest: dict[str, Any], problem: str
) -> None:
    client = PlaybackClient(lists=[listing(5, {**make("a", 1), "spec": manifest})], watches=[])
    cache = ResourceCache(client, CLASSIFIERS, project=parse_classifier)  # type: ignore[arg-type]
    running = asyncio.create_task(cache.run())
    await asyncio.wait_for(client.drained.wait(), 10)
    running.cancel()
    assert [item.problem for item in cache.unreadable.values()] == [problem]


async def test_an_object_that_becomes_readable_is_parsed() -> None:
    run = await play_strict([listing(5, make_later("a", 1))], [event("MODIFIED", make("a", 6))])
    assert run.versions() == {"a": "6"}
    assert run.cache.unreadable == {}


async def test_an_unreadable_object_in_a_later_list_does_not_count_as_vanished() -> None:
    gone = [GoneError(410, "too old")]
    run = await play_strict([listing(5, make("a", 1)), listing(9, make_later("a", 8))], gone, [])
    assert run.versions() == {"a": "1"}


@pytest.mark.parametrize("deletion", ["event", "list"])
async def test_an_unreadable_object_is_removed_when_it_is_deleted(deletion: str) -> None:
    first = listing(5, make("a", 1), make_later("b", 2))
    if deletion == "event":
        run = await play_strict([first], [event("DELETED", make("a", 6)), event("DELETED", make_later("b", 7))])
    else:
        run = await play_strict([first, listing(9)], [GoneError(410, "too old")], [])
    assert run.versions() == {}
    assert run.cache.unreadable == {}


async def test_a_seen_deletion_is_distinguished_from_an_object_missing_from_a_later_list() -> None:
    lost = [event("DELETED", make("a", 6)), GoneError(410, "too old")]
    run = await play([listing(5, make("a", 1), make("b", 2)), listing(9)], lost, [])
    vanished = {change.key.name: change.deletion_seen for change in run.changes if change.after is None}
    assert vanished == {"a": True, "b": False}


async def test_a_forbidden_list_is_recorded_and_retried() -> None:
    client = PlaybackClient(lists=[ForbiddenError(403, "nodes is forbidden"), listing(5, make("a", 1))], watches=[])
    cache: ResourceCache[str] = ResourceCache(client, NODES, project=lambda _: "node")  # type: ignore[arg-type]
    task = asyncio.create_task(cache.run())
    await asyncio.wait_for(cache.answered.wait(), 10)
    assert cache.forbidden
    assert not cache.synced.is_set()
    await asyncio.wait_for(client.drained.wait(), 10)
    task.cancel()
    assert not cache.forbidden
    assert cache.values() == ["node"]


async def test_cluster_scoped_objects_are_found_by_their_name() -> None:
    run = await play([listing(5, {"metadata": {"name": "node-1", "resourceVersion": "1"}})], [])
    assert run.cache.get("", "node-1") == "1"
