"""Whether the object store answers: while it does not, nobody waits for it. It knows nothing of what is asked.

A request has a short deadline. After one that met no answer, the next ones fail at once, until a pause is over, which gets
longer each time; then one request is sent, and the others go on failing until that one is answered. What may take long in a
store that answers, such as a listing, says nothing about the store.
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
MISSED_SECONDS = 120.0
"""After so long without a request nobody needs the store, and nobody knows whether it is back."""


class StoreOutageError(StoreUnreachableError):
    """The store does not answer, or did not a moment ago, or not in time. The message is the same for as long as that lasts."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When to come back: different each time, so that not all come at once."""


class StoreContact:
    """The way to one store, for requests that may take `deadline_seconds`."""

    def __init__(self, url: str, *, deadline_seconds: float) -> None:
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._pause_seconds = 0.0
        """How long nothing is sent after the last failure; 0: the store answers."""
        self._try_at = 0.0
        self._trying = False
        self._answers = 0

    @property
    def is_missed(self) -> bool:
        """Whether the store does not answer, and somebody waits for it."""
        return self._pause_seconds > 0 and time.monotonic() < self._try_at + MISSED_SECONDS

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request, which the call sends.

        Raises:
            StoreOutageError: none came, or the request was not sent.
            ObjectStoreError: what was asked for is not there, or was refused.
        """
        down = self._pause_seconds > 0
        if down and (self._trying or time.monotonic() < self._try_at):
            raise self._outage()
        self._trying = down
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await request()
        except (StoreUnreachableError, TimeoutError) as error:
            self._note_silence(str(error) or f"no answer within {self._deadline_seconds:g} seconds", tried=down)
            raise self._outage() from error
        except Exception:
            # A refusal is an answer.
            self._note_answer()
            raise
        else:
            self._note_answer()
            return answer
        finally:
            if down:
                self._trying = False

    async def ask_long(self, request: Callable[[], Awaitable[T]], ping: Callable[[], Awaitable[object]]) -> T:
        """The answer to a request that may take long. Where it takes too long the store is judged by `ping`, a short request.

        Raises:
            StoreOutageError: none came in time, or the request was not sent.
            ObjectStoreError: it was refused.
        """
        if self._pause_seconds > 0:
            await self.ask(ping)
        answers = self._answers
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await request()
        except StoreUnreachableError as error:
            self._note_silence(str(error), tried=False)
            raise self._outage() from error
        except TimeoutError as error:
            if self._answers == answers:
                await self.ask(ping)
            message = f"the object store {self._url} did not answer a request within {self._deadline_seconds:g} seconds"
            raise StoreOutageError(message, random.uniform(0.5, 1.0) * PAUSE_LIMIT_SECONDS) from error
        self._note_answer()
        return answer

    def _note_silence(self, trouble: str, *, tried: bool) -> None:
        if self._pause_seconds == 0:
            logger.warning("the object store is not reachable", extra={"url": self._url, "problem": trouble})
            self._pause_seconds = PAUSE_FIRST_SECONDS
        elif tried:
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_LIMIT_SECONDS)
        self._try_at = time.monotonic() + self._pause_seconds

    def _note_answer(self) -> None:
        self._answers += 1
        if self._pause_seconds > 0:
            logger.info("the object store answers again", extra={"url": self._url})
        self._pause_seconds = 0.0

    def _outage(self) -> StoreOutageError:
        left_seconds = max(self._try_at - time.monotonic(), 0.0)
        retry_after_seconds = left_seconds + random.uniform(0.1, 1.0) * self._pause_seconds
        return StoreOutageError(f"the object store {self._url} is not reachable", retry_after_seconds)
