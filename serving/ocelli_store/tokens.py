"""Who owns a ServiceAccount token. The API server answers by TokenReview; the answer is kept for a minute."""

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

from ocelli_api.pods import STORE_AUDIENCE, STORE_READ_AUDIENCE
from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import TOKEN_REVIEWS
from ocelli_store.access import Caller

_T = TypeVar("_T")

REMEMBERED_SECONDS = 60.0
"""A token still works for this long after its Pod is gone."""
TOKEN_LIMIT_BYTES = 8 * 1024
_ACCEPTED_LIMIT = 10_000
_REFUSED_LIMIT = 1_000
_MAX_CONCURRENT_REVIEWS = 8
PENDING_LIMIT = 256
"""Tokens that are being reviewed or wait for a review."""
_LEEWAY_SECONDS = 60.0
"""Tolerance for differences between clocks, as in the API server."""
_AUDIENCES = frozenset({STORE_AUDIENCE, STORE_READ_AUDIENCE})


class TokenReviewError(Exception):
    """The API server could not review the token."""


class TokenReviewer:
    """Identifies callers by their tokens.

    Anyone can send tokens, and each unknown token costs the API server a review. So tokens whose claims are not for the store
    are not reviewed, no token is reviewed twice concurrently, and refused tokens do not displace accepted ones from memory.
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
        """The caller; None if the token is not valid here. Raises TokenReviewError."""
        if not _claims_store(token, self._wall_clock()):
            return None
        digest = hashlib.sha256(token.encode()).digest()
        for memory in (self._accepted, self._refused):
            if (found := memory.find(digest)) is not None:
                return found.value
        review = self._pending.get(digest)
        if review is None:
            if len(self._pending) >= PENDING_LIMIT:
                raise TokenReviewError(
                    f"{PENDING_LIMIT} tokens are waiting for their review by the API server; try again in a moment"
                )
            review = self._pending[digest] = asyncio.create_task(self._review_and_remember(digest, token))
            # All callers may have disconnected by then; asyncio would log an exception that nothing retrieves.
            review.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Other callers may wait for the same review.
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
            raise TokenReviewError(f"the API server could not review the token: {error}") from error
        audiences = status.get("audiences") or ()
        # An API server without support for audiences would accept any token of the cluster.
        if not status.get("authenticated") or not _AUDIENCES & set(audiences):
            return None
        return Caller(user_name=status["user"]["username"], may_write=STORE_AUDIENCE in audiences)


@dataclass(frozen=True, kw_only=True)
class _Remembered(Generic[_T]):
    value: _T
    until: float


class _Memory(Generic[_T]):
    """Answers by digest, so that no token stays in memory. The oldest are dropped first."""

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


def _claims_store(token: str, now_seconds: float) -> bool:
    """Whether the claims of a token have an audience of the store, and have not expired. They are not verified here."""
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
