"""Whom a token belongs to, by what the API server says of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ocelli_cluster.client import UnreachableError
from ocelli_store.access import Caller
from ocelli_store.tokens import REMEMBERED_SECONDS, TokenReviewer, TokenReviewError

USER = "system:serviceaccount:team-a:default"


class Reviews:
    """Stands for the API server: answers reviews with a status, and counts them."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.count = 0
        self.is_away = False

    async def create(self, resource: object, namespace: None, body: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        if self.is_away:
            raise UnreachableError("nobody there")
        return {"spec": body["spec"], "status": self.status}


def known(*audiences: str) -> dict[str, Any]:
    return {"authenticated": True, "audiences": list(audiences), "user": {"username": USER}}


def identify(reviews: Reviews, clock: Callable[[], float] = lambda: 0.0, times: int = 1) -> Caller | None:
    reviewer = TokenReviewer(reviews, clock)  # type: ignore[arg-type]

    async def ask() -> Caller | None:
        for _ in range(times):
            caller = await reviewer.identify("token")
        return caller

    return asyncio.run(ask())


def test_a_token_for_writing_may_write() -> None:
    assert identify(Reviews(known("ocelli-store"))) == Caller(user_name=USER, may_write=True)


def test_a_token_for_reading_may_only_read() -> None:
    assert identify(Reviews(known("ocelli-store-read"))) == Caller(user_name=USER, may_write=False)


@pytest.mark.parametrize("status", [{}, {"authenticated": False}, known(), known("https://kubernetes.default.svc")])
def test_a_token_that_is_nothing_here_is_nobodys(status: dict[str, Any]) -> None:
    assert identify(Reviews(status)) is None


@pytest.mark.parametrize("status", [known("ocelli-store"), {}])
def test_an_answer_is_remembered(status: dict[str, Any]) -> None:
    reviews = Reviews(status)
    identify(reviews, times=3)
    assert reviews.count == 1


def test_an_answer_is_not_remembered_for_long() -> None:
    reviews = Reviews(known("ocelli-store"))
    ticks = iter([0.0, REMEMBERED_SECONDS, REMEMBERED_SECONDS])
    identify(reviews, clock=lambda: next(ticks), times=2)
    assert reviews.count == 2


def test_an_api_server_that_is_away_is_said() -> None:
    reviews = Reviews({})
    reviews.is_away = True
    with pytest.raises(TokenReviewError, match="nobody there"):
        identify(reviews)
