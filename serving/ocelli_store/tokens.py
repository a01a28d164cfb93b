"""Whom a ServiceAccount token belongs to: the API server is asked by TokenReview, and its answer remembered for a minute."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from ocelli_api.pods import STORE_AUDIENCE, STORE_READ_AUDIENCE
from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import TOKEN_REVIEWS
from ocelli_store.access import Caller

REMEMBERED_SECONDS = 60.0
"""For so long a token works on after its Pod is gone."""
_REMEMBERED_LIMIT = 10_000
_REVIEWS_AT_ONCE = 8


class TokenReviewError(Exception):
    """The API server could not be asked."""


class TokenReviewer:
    """Knows callers by their tokens."""

    def __init__(self, client: ClusterClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        # By digest, so that no token stays in memory; oldest first.
        self._remembered: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()
        self._reviews = asyncio.Semaphore(_REVIEWS_AT_ONCE)

    async def identify(self, token: str) -> Caller | None:
        """The caller, None where the token is worth nothing here. Raises TokenReviewError."""
        digest = hashlib.sha256(token.encode()).digest()
        found = self._remembered.get(digest)
        if found is not None and self._clock() < found[0]:
            return found[1]
        async with self._reviews:
            caller = await self._review(token)
        self._remembered.pop(digest, None)
        self._remembered[digest] = (self._clock() + REMEMBERED_SECONDS, caller)
        while len(self._remembered) > _REMEMBERED_LIMIT:
            self._remembered.popitem(last=False)
        return caller

    async def _review(self, token: str) -> Caller | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [STORE_AUDIENCE, STORE_READ_AUDIENCE]},
        }
        try:
            status = (await self._client.create(TOKEN_REVIEWS, None, body)).get("status") or {}
        except ClusterError as error:
            raise TokenReviewError(f"the API server did not review the token: {error}") from error
        audiences = status.get("audiences") or ()
        # An API server that knows no audiences would take any token of the cluster for one of ours.
        if not status.get("authenticated") or not {STORE_AUDIENCE, STORE_READ_AUDIENCE} & set(audiences):
            return None
        return Caller(user_name=status["user"]["username"], may_write=STORE_AUDIENCE in audiences)
