"""Polls of sources: when they happen, what they ask, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ocelli_api.classifier import Classifier
from ocelli_api.classifier_status import ObservedSources
from ocelli_api.conditions import ConditionType
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.polled_sources import find_polled_urls, hash_addresses
from ocelli_api.revision import current_revision, spec_revision
from ocelli_cluster.resources import ObjectKey
from ocelli_http.guarded_client import ConnectionRules
from ocelli_operator.actions import StartTraining
from ocelli_operator.observed import SourcePoll
from ocelli_operator.source_changes import find_source_occurrences
from ocelli_operator.source_polls import HeaderReader, PollError, SourcePolls
from tests.unit.operator.factories import NOW, StandInReader, World, make_classifier, make_job, message_of

KEY = ObjectKey("team-a", "dogs")
CAT, DOG = "https://data.test/cat.zip", "https://data.test/dog.zip"
CLASSES: list[dict[str, Any]] = [
    {"name": name, "examples": [{"url": f"https://data.test/{name}.zip"}]} for name in ("cat", "dog")
]
ADDRESSES = hash_addresses((CAT, DOG))


def make_polled(seen: ObservedSources | None = None, interval: str = "1h", **spec: Any) -> Classifier:
    classifier = make_classifier(**{"classes": CLASSES, "pollInterval": interval, **spec})
    return replace(classifier, status=replace(classifier.status, observed_sources=seen))


class Stage:
    """Polls with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reader = StandInReader()
        self.woken: list[ObjectKey] = []
        self.polls = SourcePolls(reader=self.reader, wake=self.woken.append, clock=lambda: self.now)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - of several calls
                await asyncio.sleep(0.001)

    def run(self, test: Callable[[], Any]) -> None:
        async def both() -> None:
            running = asyncio.create_task(self.polls.run())
            try:
                await test()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

        asyncio.run(both())

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.polls._changed.set()
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_new_sources_are_polled_at_once_and_wake_their_classifier(stage: Stage) -> None:
    async def test() -> None:
        assert stage.polls.observe(KEY, make_polled()) is None
        await stage.until(lambda: bool(stage.woken))
        poll = stage.polls.observe(KEY, make_polled())
        assert poll is not None
        assert (poll.addresses, poll.fault) == (ADDRESSES, None)
        assert poll.digest is not None

    stage.run(test)
    assert sorted(stage.reader.asked) == [CAT, DOG]


def test_sources_are_polled_once_in_each_interval(stage: Stage) -> None:
    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: bool(stage.woken))
        await stage.pass_time(3599)
        assert len(stage.reader.asked) == 2
        await stage.pass_time(2)
        await stage.until(lambda: len(stage.reader.asked) == 4)

    stage.run(test)


def test_a_poll_that_sees_the_same_wakes_nobody(stage: Stage) -> None:
    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: bool(stage.woken))
        await stage.pass_time(3601)
        await stage.until(lambda: len(stage.reader.asked) == 4)
        await stage.pass_time(0)

    stage.run(test)
    assert len(stage.woken) == 1


def test_a_change_makes_another_digest(stage: Stage) -> None:
    digests = []

    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: len(stage.woken) == 1)
        digests.append(stage.polls.observe(KEY, make_polled()))
        stage.reader.validators[DOG] = "changed"
        await stage.pass_time(3601)
        await stage.until(lambda: len(stage.woken) == 2)
        digests.append(stage.polls.observe(KEY, make_polled()))

    stage.run(test)
    assert len({poll.digest for poll in digests if poll is not None}) == 2


def test_an_address_that_does_not_answer_leaves_no_digest(stage: Stage) -> None:
    stage.reader.validators[DOG] = PollError("the server answered 404; restore the file")

    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: bool(stage.woken))
        poll = stage.polls.observe(KEY, make_polled())
        assert poll == SourcePoll(addresses=ADDRESSES, fault=f"{DOG}: the server answered 404; restore the file")

    stage.run(test)


def test_sources_that_a_predecessor_polled_are_not_polled_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    seen = ObservedSources(addresses=ADDRESSES, digest="a" * 10)

    async def test() -> None:
        stage.polls.observe(KEY, make_polled(seen))
        await stage.pass_time(299)
        assert stage.reader.asked == []
        await stage.pass_time(2)
        await stage.until(lambda: len(stage.reader.asked) == 2)

    stage.run(test)


def test_a_classifier_without_an_interval_is_not_polled_any_more(stage: Stage) -> None:
    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: bool(stage.woken))
        assert stage.polls.observe(KEY, make_classifier(classes=CLASSES)) is None
        await stage.pass_time(10_000)
        assert len(stage.reader.asked) == 2

    stage.run(test)


def test_other_addresses_are_polled_at_once(stage: Stage) -> None:
    async def test() -> None:
        stage.polls.observe(KEY, make_polled())
        await stage.until(lambda: len(stage.woken) == 1)
        other = make_polled(classes=[CLASSES[0], {"name": "dog", "examples": [{"url": "https://data.test/new.zip"}]}])
        assert stage.polls.observe(KEY, other) is None
        await stage.until(lambda: len(stage.woken) == 2)

    stage.run(test)
    assert stage.reader.asked[2:] != [CAT, DOG]


def test_too_many_addresses_are_not_polled(stage: Stage) -> None:
    examples = [{"url": f"https://data.test/{number}.zip"} for number in range(101)]
    classifier = make_polled(classes=[CLASSES[0], {"name": "dog", "examples": examples}])

    async def test() -> None:
        stage.polls.observe(KEY, classifier)
        await stage.until(lambda: bool(stage.woken))
        poll = stage.polls.observe(KEY, classifier)
        assert poll is not None
        assert poll.digest is None
        assert "102 addresses are too many to poll; merge them into at most 100" in (poll.fault or "")

    stage.run(test)
    assert stage.reader.asked == []


# --- what follows


def make_world(seen: ObservedSources | None = None) -> World:
    world = World(classes=CLASSES, pollInterval="1h")
    classifier = world.observed.classifier
    world.see(classifier=replace(classifier, status=replace(classifier.status, observed_sources=seen)))
    return world


def test_the_first_training_waits_for_the_first_poll() -> None:
    plan = make_world().plan()
    assert not [action for action in plan.actions if isinstance(action, StartTraining)]
    assert "starts after the first poll of its sources" in message_of(plan, ConditionType.TRAINED)


def test_what_a_poll_saw_is_written_before_anything_else_is_decided() -> None:
    world = make_world()
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, digest="a" * 10))
    plan = world.plan()
    assert plan.actions == ()
    assert plan.status.observed_sources == ObservedSources(
        addresses=ADDRESSES, digest="a" * 10, changed_at=NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    )


def test_a_training_starts_after_the_poll_with_what_it_saw_in_its_revision() -> None:
    world = make_world()
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, digest="a" * 10))
    world.step()
    (start,) = [action for action in world.plan().actions if isinstance(action, StartTraining)]
    assert start.revision == current_revision(world.observed.classifier)
    assert start.revision != spec_revision(world.observed.classifier.spec)


def test_a_training_starts_although_the_poll_failed() -> None:
    world = make_world()
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, fault="the server answered 404"))
    world.step()
    (start,) = [action for action in world.plan().actions if isinstance(action, StartTraining)]
    assert start.revision == spec_revision(world.observed.classifier.spec)


def test_a_failed_poll_keeps_what_was_seen_before() -> None:
    seen = ObservedSources(addresses=ADDRESSES, digest="a" * 10, changed_at="2026-05-04T11:00:00Z")
    world = make_world(seen)
    before = world.revision
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, fault="the server answered 503"))
    world.step()
    assert world.status.observed_sources == replace(seen, fault="the server answered 503")
    assert world.revision == before


def test_a_change_retrains_and_says_why() -> None:
    seen = ObservedSources(addresses=ADDRESSES, digest="a" * 10, changed_at="2026-05-04T11:00:00Z")
    world = make_world(seen)
    before = world.observed.classifier
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, digest="b" * 10))
    world.step()
    assert world.revision != current_revision(before)
    (occurrence,) = find_source_occurrences(before.status, world.status)
    assert (occurrence.type, occurrence.reason) == ("Normal", "SourcesChanged")
    assert "they are trained again" in occurrence.note


def test_a_fault_is_reported_once() -> None:
    world = make_world()
    before = world.status
    world.see(source_poll=SourcePoll(addresses=ADDRESSES, fault="the server answered 404"))
    world.step()
    assert [item.reason for item in find_source_occurrences(before, world.status)] == ["SourcesNotPolled"]
    assert find_source_occurrences(world.status, world.status) == ()


def world_in_training() -> World:
    """Its sources have changed since its training started."""
    world = make_world(ObservedSources(addresses=ADDRESSES, digest="a" * 10, changed_at="2026-05-04T11:00:00Z"))
    world.step()
    world.see(jobs=(make_job(world.observed.classifier),), source_poll=SourcePoll(addresses=ADDRESSES, digest="b" * 10))
    return world


def test_a_change_waits_until_the_revision_in_training_serves() -> None:
    world = world_in_training()
    before = world.revision
    world.step()
    world.learn()
    world.see(jobs=(make_job(world.observed.classifier, finished=True, succeeded=True),))
    served: list[str | None] = []
    for _ in range(5):
        world.step()
        served.append(world.status.served_revision)
        if world.revision != before:
            break
    assert before in served
    assert world.revision != before


def test_a_change_takes_effect_after_a_failed_training() -> None:
    world = world_in_training()
    before = world.revision
    world.see(jobs=(make_job(world.observed.classifier, finished=True, failure_message="no memory"),))
    world.step()
    assert (world.revision, world.status.failed_revision) == (before, before)
    world.step()
    assert world.revision != before


def test_a_change_takes_effect_at_once_before_anything_was_read() -> None:
    world = world_in_training()
    before = world.revision
    world.see(jobs=())
    world.step()
    assert world.revision != before


def test_to_stop_polling_keeps_the_revision() -> None:
    seen = ObservedSources(addresses=ADDRESSES, digest="a" * 10, fault="the server answered 404")
    world = make_world(seen)
    before = world.revision
    world.edit(classes=CLASSES)
    world.step()
    assert (world.revision, world.status.observed_sources) == (before, replace(seen, fault=None))


def test_without_an_interval_nothing_stays_in_status_of_polls_of_other_addresses() -> None:
    world = make_world(ObservedSources(addresses=ADDRESSES, digest="a" * 10))
    world.edit(classes=[{**item, "examples": [{"url": f"{item['examples'][0]['url']}?2"}]} for item in CLASSES])
    world.step()
    assert world.status.observed_sources is None


def test_sources_that_are_pinned_later_leave_no_digest_in_the_revision() -> None:
    classifier = make_polled(ObservedSources(addresses=ADDRESSES, digest="a" * 10))
    pinned = [{**item, "examples": [{**item["examples"][0], "sha256": "c" * 64}]} for item in CLASSES]
    pinned_spec = make_polled(classes=pinned).spec
    assert current_revision(replace(classifier, spec=pinned_spec)) == spec_revision(pinned_spec)


def test_the_addresses_are_those_of_the_spec() -> None:
    assert find_polled_urls(make_polled().spec) == (CAT, DOG)


# --- over the network


class Server:
    """A web server with one answer by method."""

    def __init__(self, **answers: tuple[int, dict[str, str]]) -> None:
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                server.requests.append(self.command)
                status, headers = answers.get(self.command, (405, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/a.zip"

    def ask(self, allowed: str = "127.0.0.0/8") -> str:
        async def ask() -> str:
            reader = HeaderReader(ConnectionRules(networks=NetworkRules.parse(allowed=allowed, denied="")))
            try:
                return await reader.find_validator(self.url)
            finally:
                await reader.close()

        try:
            return asyncio.run(ask())
        finally:
            self._server.shutdown()
            self._server.server_close()


def test_the_etag_is_read_by_head() -> None:
    server = Server(HEAD=(200, {"ETag": '"v1"', "Last-Modified": "Mon"}))
    assert server.ask() == '"v1"'
    assert server.requests == ["HEAD"]


def test_a_weak_etag_is_the_same_as_a_strong_one() -> None:
    assert Server(HEAD=(200, {"ETag": 'W/"v1"'})).ask() == '"v1"'


def test_date_and_size_stand_for_a_missing_etag() -> None:
    assert Server(HEAD=(200, {"Last-Modified": "Mon", "Content-Length": "7"})).ask() == "Mon 7"


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_without_head_is_asked_by_get(status: int) -> None:
    server = Server(HEAD=(status, {}), GET=(200, {"ETag": '"v1"', "Content-Length": "1000000000"}))
    assert server.ask() == '"v1"'
    assert server.requests == ["HEAD", "GET"]


def test_a_server_that_says_nothing_about_the_contents_is_named() -> None:
    with pytest.raises(PollError, match="sends neither ETag nor Last-Modified"):
        Server(HEAD=(200, {})).ask()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(PollError, match="the server answered 404"):
        Server(HEAD=(404, {})).ask()


def test_a_private_address_is_not_asked() -> None:
    server = Server(HEAD=(200, {"ETag": '"v1"'}))
    with pytest.raises(PollError, match="in a private or denied network"):
        server.ask(allowed="")
    assert server.requests == []


def test_a_redirect_to_a_private_address_is_not_followed() -> None:
    server = Server(HEAD=(302, {"Location": "http://10.0.0.1/a.zip"}))
    with pytest.raises(PollError, match="in a private or denied network"):
        server.ask()
