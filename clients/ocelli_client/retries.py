"""When a request that failed is sent again: a gateway that restarts, or is busy, costs time and not the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ocelli_client.errors import BusyError, NotReachableError, OcelliError

PATIENCE_SECONDS = 300.0
PAUSE_LIMIT_SECONDS = 15.0
Interruption = NotReachableError | BusyError
INTERRUPTIONS = (NotReachableError, BusyError)


@dataclass(kw_only=True)
class Patience:
    """How long a row of failures may last. A success begins a new row."""

    seconds: float = PATIENCE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)

    def find_pause(self, error: OcelliError) -> float | None:
        """Seconds until the next attempt; None if the row of failures is too long."""
        now = self.clock()
        self._since = now if self._since is None else self._since
        pause = min(PAUSE_LIMIT_SECONDS, 2.0**self._failures)
        if isinstance(error, BusyError) and error.retry_after_seconds is not None:
            pause = max(pause, error.retry_after_seconds)
        self._failures += 1
        return None if now + pause - self._since > self.seconds else pause

    def report_success(self) -> None:
        """The gateway has answered."""
        self._since, self._failures = None, 0
