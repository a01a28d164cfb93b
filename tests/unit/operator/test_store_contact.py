"""While the store does not answer, requests fail immediately."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from ocelli_operator import store_contact
from ocelli_operator.store_contact import StoreContact, StoreOutageError
from ocelli_storage.object_store import ObjectNotFoundError, StoreUnreachableError


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_contact, "PAUSE_FIRST_SECONDS", 0.05)


class Requests:
    """Counts the requests that are sent. `answer` answers them."""

    def __init__(self, answer: Callable[[], Awaitable[str]]) -> None:
        self.answer = answer
        self.sent = 0

    async def send(self) -> str:
        self.sent += 1
        return await self.answer()


async def refuse() -> str:
    raise StoreUnreachableError("connection refused")


async def hang() -> str:
    await asyncio.sleep(60)
    return ""


async def succeed() -> str:
    return "bytes"


async def find_nothing() -> str:
    raise ObjectNotFoundError("key")


async def fail(contact: StoreContact, requests: Requests) -> StoreOutageError:
    with pytest.raises(StoreOutageError) as caught:
        await contact.ask(requests.send)
    return caught.value


def test_a_request_without_an_answer_fails_at_its_deadline() -> None:
    async def scenario() -> float:
        started_at = time.monotonic()
        await fail(StoreContact("http://store", deadline_seconds=0.1), Requests(hang))
        return time.monotonic() - started_at

    assert asyncio.run(scenario()) < 1


def test_after_a_failure_nothing_is_sent_for_a_while() -> None:
    async def scenario() -> int:
        contact, requests = StoreContact("http://store", deadline_seconds=1), Requests(refuse)
        for _ in range(5):
            await fail(contact, requests)
        return requests.sent

    assert asyncio.run(scenario()) == 1


def test_after_the_pause_one_request_is_sent_and_the_others_fail_immediately() -> None:
    async def scenario() -> int:
        contact, requests = StoreContact("http://store", deadline_seconds=0.2), Requests(refuse)
        error = await fail(contact, requests)
        await asyncio.sleep(error.retry_after_seconds)
        requests.answer, requests.sent = hang, 0
        await asyncio.gather(*(fail(contact, requests) for _ in range(8)))
        return requests.sent

    assert asyncio.run(scenario()) == 1


def test_an_answer_ends_the_outage() -> None:
    async def scenario() -> list[str]:
        contact, requests = StoreContact("http://store", deadline_seconds=1), Requests(refuse)
        error = await fail(contact, requests)
        requests.answer = succeed
        await asyncio.sleep(error.retry_after_seconds)
        return [await contact.ask(requests.send) for _ in range(3)]

    assert asyncio.run(scenario()) == ["bytes"] * 3


def test_not_found_is_an_answer() -> None:
    async def scenario() -> bool:
        contact = StoreContact("http://store", deadline_seconds=1)
        for _ in range(2):
            with pytest.raises(ObjectNotFoundError):
                await contact.ask(find_nothing)
        return contact.is_down

    assert not asyncio.run(scenario())


def test_the_message_stays_the_same_and_the_retry_times_differ() -> None:
    async def scenario() -> list[StoreOutageError]:
        contact, requests = StoreContact("http://store", deadline_seconds=1), Requests(refuse)
        return [await fail(contact, requests) for _ in range(5)]

    errors = asyncio.run(scenario())
    assert {str(error) for error in errors} == {"the object store http://store is not reachable"}
    assert len({error.retry_after_seconds for error in errors}) == len(errors)


def test_pauses_get_longer_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_contact, "PAUSE_LIMIT_SECONDS", 0.1)
    sent_at: list[float] = []

    async def refuse_and_note() -> str:
        sent_at.append(time.monotonic())
        return await refuse()

    async def scenario() -> float:
        contact, requests = StoreContact("http://store", deadline_seconds=1), Requests(refuse_and_note)
        longest = 0.0
        while len(sent_at) < 4:
            longest = max(longest, (await fail(contact, requests)).retry_after_seconds)
            await asyncio.sleep(0.005)
        return longest

    longest = asyncio.run(scenario())
    assert sent_at[2] - sent_at[1] > 0.09
    # The rest of the pause, plus at most the same time again, so that callers do not return together.
    assert longest <= 0.2


async def ask_long(contact: StoreContact, answer: Callable[[], Awaitable[str]], ping: Callable[[], Awaitable[str]]) -> str:
    """The error of a request that may take long."""
    with pytest.raises(StoreOutageError) as caught:
        await contact.ask_long(answer, ping)
    return str(caught.value)


def test_a_listing_that_times_out_does_not_count_as_an_outage_while_the_store_answers() -> None:
    async def scenario() -> tuple[str, str]:
        contact = StoreContact("http://store", deadline_seconds=0.1)
        message = await ask_long(contact, hang, succeed)
        return message, await contact.ask(succeed)

    message, answer = asyncio.run(scenario())
    assert message == "the object store http://store did not answer a request within 0.1 s"
    assert answer == "bytes"


def test_a_store_that_answered_other_requests_meanwhile_is_not_pinged() -> None:
    async def scenario() -> int:
        contact, pings = StoreContact("http://store", deadline_seconds=0.1), Requests(succeed)
        listing = asyncio.create_task(ask_long(contact, hang, pings.send))
        await asyncio.sleep(0)
        await contact.ask(succeed)
        await listing
        return pings.sent

    assert asyncio.run(scenario()) == 0


@pytest.mark.parametrize(("answer", "ping"), [(hang, hang), (refuse, succeed)], ids=["silence", "refused connection"])
def test_a_listing_detects_that_the_store_is_down(
    answer: Callable[[], Awaitable[str]], ping: Callable[[], Awaitable[str]]
) -> None:
    async def scenario() -> int:
        contact, requests = StoreContact("http://store", deadline_seconds=0.1), Requests(succeed)
        assert await ask_long(contact, answer, ping) == "the object store http://store is not reachable"
        await fail(contact, requests)
        return requests.sent

    assert asyncio.run(scenario()) == 0


def test_a_listing_that_times_out_does_not_prolong_an_outage() -> None:
    async def scenario() -> str:
        contact, requests = StoreContact("http://store", deadline_seconds=0.1), Requests(refuse)
        error = await fail(contact, requests)
        await asyncio.sleep(error.retry_after_seconds)
        await ask_long(contact, hang, succeed)
        return await contact.ask(succeed)

    assert asyncio.run(scenario()) == "bytes"
