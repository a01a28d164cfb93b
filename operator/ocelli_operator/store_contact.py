"""A circuit breaker for requests to the object store: while the store does not answer, requests fail immediately.

Each request has a short deadline. After a request without an answer, the next ones fail immediately until a pause has passed,
which gets longer each time. Then one request is sent as a trial, and the others keep failing until it is answered. A request
that may take long although the store is reachable, such as a listing, does not count as a failure of the store.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ocelli_storage.object_store import StoreUnreachableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_FIRST_SECONDS = 1.0
PAUSE_LIMIT_SECONDS = 15.0
TRIAL_PATIENCE_SECONDS = 120.0
"""If no request follows for this long, the store is not needed, and it is unknown whether it is reachable again."""


class StoreOutageError(StoreUnreachableError):
    """The store does not answer, or did not answer a moment ago. The message stays the same during one outage."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When to try again: random, so that not all callers return at the same time."""


class StoreContact:
    """The circuit breaker of one store, for requests that may take `deadline_seconds`."""

    def __init__(self, url: str, *, deadline_seconds: float) -> None:
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._pause_seconds = 0.0
        """How long requests fail immediately after the last failure; 0: the store answers."""
        self._trial_at = 0.0
        self._trial_running = False
        self._answers = 0

    @property
    def is_down(self) -> bool:
        """Whether the store does not answer while it is needed."""
        return self._pause_seconds > 0 and time.monotonic() < self._trial_at + TRIAL_PATIENCE_SECONDS

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request and return the answer.

        Raises:
            StoreOutageError: no answer arrived, or the request was not sent.
            ObjectStoreError: the store answered with an error.
        """
        down = self._pause_seconds > 0
        if down and (self._trial_running or time.monotonic() < self._trial_at):
            raise self._outage()
        self._trial_running = down
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await request()
        except (StoreUnreachableError, TimeoutError) as error:
            self._note_failure(str(error) or f"no answer within {self._deadline_seconds:g} s", is_trial=down)
            raise self._outage() from error
        except Exception:
            # An error from the store is an answer.
            self._note_answer()
            raise
        else:
            self._note_answer()
            return answer
        finally:
            if down:
                self._trial_running = False

    async def ask_long(self, request: Callable[[], Awaitable[T]], ping: Callable[[], Awaitable[object]]) -> T:
        """Send a request that may take long. If it times out, the short request `ping` shows whether the store is down.

        Raises:
            StoreOutageError: no answer arrived in time, or the request was not sent.
            ObjectStoreError: the store answered with an error.
        """
        if self._pause_seconds > 0:
            await self.ask(ping)
        answers = self._answers
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await request()
        except StoreUnreachableError as error:
            self._note_failure(str(error), is_trial=False)
            raise self._outage() from error
        except TimeoutError as error:
            if self._answers == answers:
                await self.ask(ping)
            message = f"the object store {self._url} did not answer a request within {self._deadline_seconds:g} s"
            raise StoreOutageError(message, random.uniform(0.5, 1.0) * PAUSE_LIMIT_SECONDS) from error
        self._note_answer()
        return answer

    def _note_failure(self, error: str, *, is_trial: bool) -> None:
        if self._pause_seconds == 0:
            logger.warning("object store is not reachable", extra={"url": self._url, "error": error})
            self._pause_seconds = PAUSE_FIRST_SECONDS
        elif is_trial:
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_LIMIT_SECONDS)
        self._trial_at = time.monotonic() + self._pause_seconds

    def _note_answer(self) -> None:
        self._answers += 1
        if self._pause_seconds > 0:
            logger.info("object store is reachable again", extra={"url": self._url})
        self._pause_seconds = 0.0

    def _outage(self) -> StoreOutageError:
        left_seconds = max(self._trial_at - time.monotonic(), 0.0)
        retry_after_seconds = left_seconds + random.uniform(0.1, 1.0) * self._pause_seconds
        return StoreOutageError(f"the object store {self._url} is not reachable", retry_after_seconds)
