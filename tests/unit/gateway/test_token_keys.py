"""The signing keys of tokens: when they are created, used and deleted."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ocelli_cluster.resources import SECRETS, ObjectKey
from ocelli_gateway import token_keys
from ocelli_gateway.refusals import UnavailableError
from ocelli_gateway.token_keys import (
    REFRESH_LIFE_SECONDS,
    ROTATION_SECONDS,
    SETTLE_SECONDS,
    TOKEN_LIFE_SECONDS,
    TokenKey,
    TokenKeys,
    TokenUse,
    parse_keys,
)
from ocelli_gateway.tokens import Tokens, TokenSubject
from tests.gateway_harness.in_memory_cluster import InMemoryCluster

PLACE = ObjectKey("ocelli-system", "ocelli-token-keys")
ANNA = TokenSubject(user="anna", fingerprint="0123456789abcdef")


ACCESS, REFRESH = TokenUse.ACCESS, TokenUse.REFRESH


def stored_keys(cluster: InMemoryCluster, use: TokenUse) -> dict[str, TokenKey]:
    keys = parse_keys(cluster.find(SECRETS, *PLACE) or {})
    return {identity: key for identity, key in keys.items() if key.use is use}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def run(test: Callable[[InMemoryCluster, Clock, Callable[[], TokenKeys]], Coroutine[Any, Any, None]]) -> None:
    async def body() -> None:
        cluster, clock = InMemoryCluster(), Clock()
        cluster.put(SECRETS, PLACE.namespace, {"metadata": {"name": PLACE.name}})
        await test(cluster, clock, lambda: TokenKeys(cluster, PLACE, clock=clock))  # type: ignore[arg-type]

    asyncio.run(body())


@pytest.fixture(autouse=True)
def reread_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_keys, "LEAST_REREAD_SECONDS", 0.0)


def test_first_replica_creates_a_key_and_the_others_use_it() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        replicas = [replica() for _ in range(5)]
        await asyncio.gather(*(keys.refresh() for keys in replicas))
        for use in TokenUse:
            assert {keys.signing_key(use).identity for keys in replicas} == set(stored_keys(cluster, use))

    run(test)


def test_rotation_does_not_log_users_out() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        first, second = replica(), replica()
        signers, readers = Tokens(first, clock=clock), Tokens(second, clock=clock)
        issued: list[tuple[float, str]] = []
        for _ in range(3 * 24 * 6):
            clock.now += 600
            await asyncio.gather(first.refresh(), second.refresh())
            issued.append((clock.now, signers.issue(ANNA)["access_token"]))
            living = [token for at, token in issued if clock.now - at < TOKEN_LIFE_SECONDS]
            assert [await readers.read(token) for token in living] == [ANNA] * len(living)
        assert len(stored_keys(cluster, ACCESS)) <= 2

    run(test)


@pytest.mark.slow
def test_rotation_does_not_invalidate_refresh_tokens_early() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        first, second = replica(), replica()
        signers, readers = Tokens(first, clock=clock), Tokens(second, clock=clock)
        issued: list[tuple[float, str]] = []
        for _ in range(20 * 8):
            clock.now += 3 * 3600
            await asyncio.gather(first.refresh(), second.refresh())
            issued.append((clock.now, signers.issue(ANNA)["refresh_token"]))
            living = [token for at, token in issued if clock.now - at < REFRESH_LIFE_SECONDS]
            assert [await readers.read_refresh(token) for token in living] == [ANNA] * len(living)
            ended = [token for at, token in issued if clock.now - at >= REFRESH_LIFE_SECONDS]
            assert not any([await readers.read_refresh(token) for token in ended])
        assert len(stored_keys(cluster, REFRESH)) <= 10
        assert len(stored_keys(cluster, ACCESS)) <= 2

    run(test)


def test_an_earlier_release_ignores_refresh_keys() -> None:
    """It reads the field `key` of every entry, and would sign bearer tokens with it."""

    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        await replica().refresh()
        data = (cluster.find(SECRETS, *PLACE) or {})["data"]
        documents = [json.loads(base64.b64decode(entry)) for entry in data.values()]
        assert sorted("key" in document for document in documents) == [False, True]

    run(test)


def test_keys_of_an_earlier_release_stay_valid() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        document = {"key": base64.b64encode(b"k" * 32).decode(), "createdAt": clock.now - 3600}
        data = {"0123456789abcdef.json": base64.b64encode(json.dumps(document).encode()).decode()}
        cluster.put(SECRETS, PLACE.namespace, {"metadata": {"name": PLACE.name}, "data": data})
        keys = replica()
        await keys.refresh()
        assert keys.signing_key(ACCESS).identity == "0123456789abcdef"
        assert keys.signing_key(REFRESH).identity != "0123456789abcdef"

    run(test)


def test_keys_are_rotated_daily() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        keys = replica()
        await keys.refresh()
        before = keys.signing_key(ACCESS).identity
        clock.now += ROTATION_SECONDS
        await keys.refresh()
        clock.now += SETTLE_SECONDS
        assert keys.signing_key(ACCESS).identity != before

    run(test)


def test_new_key_signs_only_after_others_had_time_to_read_it() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        keys = replica()
        await keys.refresh()
        before = keys.signing_key(ACCESS).identity
        clock.now += ROTATION_SECONDS
        await keys.refresh()
        clock.now += SETTLE_SECONDS - 1
        assert keys.signing_key(ACCESS).identity == before

    run(test)


def test_unknown_key_is_read_at_once() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        late = replica()
        early = replica()
        await early.refresh()
        assert await late.find(early.signing_key(ACCESS).identity, ACCESS) == early.signing_key(ACCESS)

    run(test)


def test_without_the_secret_nothing_is_signed_and_the_error_names_it() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        cluster.remove(SECRETS, *PLACE)
        keys = replica()
        await keys.refresh()
        with pytest.raises(UnavailableError, match=str(PLACE)):
            keys.signing_key(ACCESS)

    run(test)


def test_entry_that_is_not_a_key_is_ignored() -> None:
    async def test(cluster: InMemoryCluster, clock: Clock, replica: Callable[[], TokenKeys]) -> None:
        cluster.put(SECRETS, PLACE.namespace, {"metadata": {"name": PLACE.name}, "data": {"x.json": "bm9uZQ=="}})
        keys = replica()
        await keys.refresh()
        assert list(stored_keys(cluster, ACCESS)) == [keys.signing_key(ACCESS).identity]

    run(test)
