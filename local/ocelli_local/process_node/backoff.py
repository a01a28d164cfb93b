"""When a container that ended may start again: the kubelet's rule."""

from __future__ import annotations

from dataclasses import dataclass

RECOVERED_AFTER_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class RestartBackoff:
    """The first restart is immediate, the next after `initial_seconds`, doubling up to `limit_seconds`."""

    initial_seconds: float = 10.0
    limit_seconds: float = 300.0


class RestartDelays:
    """The delays of one container. A run of ten minutes resets them."""

    def __init__(self, backoff: RestartBackoff) -> None:
        self._backoff = backoff
        self._next = 0.0

    def next_delay(self, *, ran_for_seconds: float) -> float:
        """Seconds between the end of a run that took `ran_for_seconds` and the start of the next one."""
        if ran_for_seconds >= RECOVERED_AFTER_SECONDS:
            self._next = 0.0
        delay = self._next
        self._next = min(max(delay * 2, self._backoff.initial_seconds), self._backoff.limit_seconds)
        return delay
