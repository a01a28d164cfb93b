"""The caller of a token, from the API server's review."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from ocelli_cluster.client import UnreachableError
from ocelli_store.access import Caller
from ocelli_store.tokens import PENDING_LIMIT, REMEMBERED_SECONDS, TOKEN_LIMIT_BYTES, TokenReviewer, TokenReviewError

NOW = 1_800_000_000
USER = "system:serviceaccount:team-a:default"


class Reviews:
    """Stands in for the API server: answers reviews with a status, and counts them."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.count = 0
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def create(self, resource: object, namespace: None, body: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        await self.may_answer.wait()
        if self.is_away:
            raise UnreachableError("not reachable")
        return {"spec": body["spec"], "status": self.status}


def known(*audiences: str) -> dict[str, Any]:
    return {"authenticated": True, "audiences": list(audiences), "user": {"username": USER}}


def build_token(number: int = 0, **claims: Any) -> str:
    """A token with claims, without a signature."""
    payload = json.dumps({"aud": ["ocelli-store"], "exp": NOW + 600, "jti": str(number), **claims})
    return f"e30.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.AA"


def build_reviewer(reviews: Reviews, clock: Callable[[], float] = lambda: 0.0) -> TokenReviewer:
    return TokenReviewer(reviews, clock, lambda: NOW)  # type: ignore[arg-type]


def identify(
    reviews: Reviews, clock: Callable[[], float] = lambda: 0.0, times: int = 1, token: str | None = None
) -> Caller | None:
    reviewer = build_reviewer(reviews, clock)

    async def ask() -> Caller | None:
        for _ in range(times):
            caller = await reviewer.identify(build_token() if token is None else token)
        return caller

    return asyncio.run(ask())


def test_a_token_for_writing_may_write() -> None:
    assert identify(Reviews(known("ocelli-store"))) == Caller(user_name=USER, may_write=True)


def test_a_token_for_reading_may_only_read() -> None:
    assert identify(Reviews(known("ocelli-store-read"))) == Caller(user_name=USER, may_write=False)


@pytest.mark.parametrize("status", [{}, {"authenticated": False}, known(), known("https://kubernetes.default.svc")])
def test_token_that_is_not_valid_here_has_no_caller(status: dict[str, Any]) -> None:
    assert identify(Reviews(status)) is None


@pytest.mark.parametrize("status", [known("ocelli-store"), {}])
def test_answer_is_cached(status: dict[str, Any]) -> None:
    reviews = Reviews(status)
    identify(reviews, times=3)
    assert reviews.count == 1


def test_answer_is_not_cached_for_long() -> None:
    reviews = Reviews(known("ocelli-store"))
    ticks = iter([0.0, REMEMBERED_SECONDS, REMEMBERED_SECONDS])
    identify(reviews, clock=lambda: next(ticks), times=2)
    assert reviews.count == 2


def test_unreachable_api_server_is_reported() -> None:
    reviews = Reviews({})
    reviews.is_away = True
    with pytest.raises(TokenReviewError, match="not reachable"):
        identify(reviews)


def test_token_of_concurrent_requests_is_reviewed_once() -> None:
    reviews = Reviews(known("ocelli-store"))
    reviewer = build_reviewer(reviews)

    async def ask() -> list[Caller | None]:
        return await asyncio.gather(*(reviewer.identify(build_token()) for _ in range(50)))

    assert asyncio.run(ask()) == [Caller(user_name=USER, may_write=True)] * 50
    assert reviews.count == 1


def test_review_continues_when_one_of_its_callers_leaves() -> None:
    reviews = Reviews(known("ocelli-store"))
    reviewer = build_reviewer(reviews)

    async def ask() -> Caller | None:
        first, second = (asyncio.create_task(reviewer.identify(build_token())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(ask()) == Caller(user_name=USER, may_write=True)


def test_a_review_that_failed_is_tried_again() -> None:
    reviews = Reviews(known("ocelli-store"))
    reviewer = build_reviewer(reviews)

    async def ask() -> Caller | None:
        reviews.is_away = True
        with pytest.raises(TokenReviewError):
            await reviewer.identify(build_token())
        reviews.is_away = False
        return await reviewer.identify(build_token())

    assert asyncio.run(ask()) == Caller(user_name=USER, may_write=True)


@pytest.mark.slow
def test_refused_tokens_do_not_displace_accepted_ones() -> None:
    reviews = Reviews(known("ocelli-store"))
    reviewer = build_reviewer(reviews)

    async def ask() -> int:
        await reviewer.identify(build_token())
        reviews.status = {}
        for number in range(1, 10_002):
            await reviewer.identify(build_token(number))
        before = reviews.count
        await reviewer.identify(build_token())
        return reviews.count - before

    assert asyncio.run(ask()) == 0


def test_tokens_above_the_limit_are_refused_with_a_remedy() -> None:
    reviews = Reviews(known("ocelli-store"))
    reviewer = build_reviewer(reviews)

    async def ask() -> None:
        reviews.may_answer.clear()
        waiting = [asyncio.create_task(reviewer.identify(build_token(number))) for number in range(PENDING_LIMIT)]
        await asyncio.sleep(0)
        with pytest.raises(TokenReviewError, match="tokens are waiting for their review by the API server"):
            await reviewer.identify(build_token(PENDING_LIMIT))
        reviews.may_answer.set()
        await asyncio.gather(*waiting)
        await reviewer.identify(build_token(PENDING_LIMIT))

    asyncio.run(ask())


@pytest.mark.parametrize(
    "token",
    [
        "token", "a.b", "a.b.c", "..", "e30.W10.AA", "e30.\xff.AA", "a.b.c.d",
        "e30." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".AA",
        build_token(aud=["https://kubernetes.default.svc"]), build_token(aud=[]), build_token(aud=None), build_token(aud=[{}]),
        build_token(exp=NOW - 61), build_token(padding="x" * TOKEN_LIMIT_BYTES),
    ],
)  # fmt: skip
def test_token_with_other_claims_is_not_reviewed(token: str) -> None:
    reviews = Reviews(known("ocelli-store"))
    assert identify(reviews, token=token) is None
    assert reviews.count == 0


@pytest.mark.parametrize(
    "claims",
    [{"aud": "ocelli-store"}, {"aud": ["x", "ocelli-store-read"]}, {"exp": NOW - 59}, {"exp": float(NOW)}, {"exp": None}],
)
def test_token_with_claims_for_the_store_is_reviewed(claims: dict[str, Any]) -> None:
    reviews = Reviews(known("ocelli-store"))
    assert identify(reviews, token=build_token(**claims)) is not None
