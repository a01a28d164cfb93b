"""Whom a ServiceAccount token belongs to: the API server is asked by TokenReview, and its answer remembered for a minute."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import TOKEN_REVIEWS

from ocelli_api.pods import STORE_AUDIENCE, STORE_READ_AUDIENCE
from ocelli_store.access import Caller

_T = TypeVar("_T")

REMEMBERED_SECONDS = 60.0
"""For so long a token works on after its Pod is gone."""
TOKEN_LIMIT_BYTES = 8 * 1024
_ACCEPTED_LIMIT = 10_000
_REFUSED_LIMIT = 1_000
_MAX_CONCURRENT_REVIEWS = 8
PENDING_LIMIT = 256
"""Tokens that are being reviewed, or wait for it."""
_LEEWAY_SECONDS = 60.0
"""Clocks differ: the API server grants as much."""
_AUDIENCES = frozenset({STORE_AUDIENCE, STORE_READ_AUDIENCE})


class TokenReviewError(Exception):
    """The API server could not be asked."""


class TokenReviewer:
    """Knows callers by their tokens.

    Anybody may show tokens, and each that is unknown costs the API server a review: what is none of ours by its own words is
    not asked about, no token is asked about twice at a time, and what is refused drives nothing from memory that was accepted.
    """

    def __init__(
        self, client: ClusterClient, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._wall_clock = wall_clock
        self._accepted: _Memory[Caller] = _Memory(_ACCEPTED_LIMIT, clock)
        self._refused: _Memory[None] = _Memory(_REFUSED_LIMIT, clock)
        self._pending: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._reviews = asyncio.Semaphore(_MAX_CONCURRENT_REVIEWS)

    async def identify(self, token: str) -> Caller | None:
        """The caller, None where the token is worth nothing here. Raises TokenReviewError."""
        if not _may_be_ours(token, self._wall_clock()):
            return None
        digest = hashlib.sha256(token.encode()).digest()
        for memory in (self._accepted, self._refused):
            if (found := memory.find(digest)) is not None:
                return found.value
        review = self._pending.get(digest)
        if review is None:
            if len(self._pending) >= PENDING_LIMIT:
                raise TokenReviewError(f"{PENDING_LIMIT} tokens wait for the API server to review them; try again in a moment")
            review = self._pending[digest] = asyncio.create_task(self._review_and_remember(digest, token))
            # Whoever waits for it may be gone by then, and with them whoever would look at its error.
            review.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Others may wait for the same.
        return await asyncio.shield(review)

    async def _review_and_remember(self, digest: bytes, token: str) -> Caller | None:
        try:
            async with self._reviews:
                caller = await self._review(token)
            if caller is None:
                self._refused.keep(digest, None)
            else:
                self._accepted.keep(digest, caller)
            return caller
        finally:
            del self._pending[digest]

    async def _review(self, token: str) -> Caller | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": sorted(_AUDIENCES)},
        }
        try:
            status = (await self._client.create(TOKEN_REVIEWS, None, body)).get("status") or {}
        except ClusterError as error:
            raise TokenReviewError(f"the API server did not review the token: {error}") from error
        audiences = status.get("audiences") or ()
        # An API server that knows no audiences would take any token of the cluster for one of ours.
        if not status.get("authenticated") or not _AUDIENCES & set(audiences):
            return None
        return Caller(user_name=status["user"]["username"], may_write=STORE_AUDIENCE in audiences)


@dataclass(frozen=True, kw_only=True)
class _Remembered(Generic[_T]):
    value: _T
    until: float


class _Memory(Generic[_T]):
    """Answers by digest, so that no token stays in memory; the oldest go first."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._answers: OrderedDict[bytes, _Remembered[_T]] = OrderedDict()

    def find(self, digest: bytes) -> _Remembered[_T] | None:
        found = self._answers.get(digest)
        return found if found is not None and self._clock() < found.until else None

    def keep(self, digest: bytes, value: _T) -> None:
        self._answers.pop(digest, None)
        self._answers[digest] = _Remembered(value=value, until=self._clock() + REMEMBERED_SECONDS)
        while len(self._answers) > self._limit:
            self._answers.popitem(last=False)


def _may_be_ours(token: str, now_seconds: float) -> bool:
    """Whether a token says of itself that it is for the store, and still valid. Nothing of that is verified here."""
    parts = token.split(".")
    if len(token) > TOKEN_LIMIT_BYTES or len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return False
    if not isinstance(claims, dict):
        return False
    audiences, expiry = claims.get("aud"), claims.get("exp")
    if isinstance(audiences, str):
        audiences = [audiences]
    if not isinstance(audiences, list) or not any(
        audience in _AUDIENCES for audience in audiences if isinstance(audience, str)
    ):
        return False
    return not isinstance(expiry, int | float) or now_seconds < expiry + _LEEWAY_SECONDS
