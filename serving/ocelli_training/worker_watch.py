"""Signs of life between the workers of a training, in two threads of each worker.

Collectives of PyTorch wait for a lost worker for an hour, or forever, depending on the library behind them. So one thread
exchanges signs of life, and another one, which never waits for the network, decides and ends the process if the training has
not noticed by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ocelli_training.workers import (
    FIRST_WORKER,
    WorkerLostError,
    WorkerPatience,
    WorkersDisconnectedError,
    WorkersNotConnectedError,
)

ENDED_WELL = "ended"
"""What the first worker says when the results are stored."""
_LOOK_SECONDS = 0.25
_MISSED_BEATS = 5
_CAUSE_LIMIT = 200
"""Characters of a library's message."""

logger = logging.getLogger(__name__)


class Board(Protocol):
    """Where workers leave signs: numbers and texts by key, as in a `torch.distributed.TCPStore`."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number, which begins at 0; returns the sum."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all texts exist."""

    def get(self, key: str, /) -> bytes:
        """A text."""


class WorkerWatch:
    """Watches the other workers from its creation until `release`."""

    def __init__(
        self, board: Board, *, worker: int, workers: int, patience: WorkerPatience, abort: Callable[[Exception], None]
    ) -> None:
        """`board` is used by one thread only; `abort` ends the process without waiting for any thread."""
        self._board, self._worker, self._workers, self._patience, self._abort = board, worker, workers, patience, abort
        self._started_at = time.monotonic()
        self._seen = {other: self._started_at for other in range(workers) if other != worker}
        self._lost: WorkerLostError | WorkersDisconnectedError | None = None
        self._lost_at = 0.0
        self._connecting_since: float | None = None
        self._finished = False
        self._protected = 0
        self._released = threading.Event()
        for target in (self._exchange_signs, self._decide):
            threading.Thread(target=target, name=f"workers{target.__name__}", daemon=True).start()

    @property
    def finished(self) -> bool:
        """Whether the first worker has stored the results."""
        return self._finished

    def check(self) -> None:
        """Raises WorkerLostError if a worker is lost, WorkersDisconnectedError if their connection is."""
        if self._lost is not None:
            raise self._lost

    def explain(self, error: Exception) -> WorkerLostError | WorkersDisconnectedError:
        """The lost worker behind an error of a collective, once it is known which one that is.

        If all workers show signs of life until the deadline, none is lost. Then the error counts as a failure of this worker:
        otherwise a library that fails each time would be tried again forever.
        """
        cause = str(error).partition("\n")[0][:_CAUSE_LIMIT]
        logger.warning("workers.connection_broken", extra={"error": cause})
        deadline = time.monotonic() + self._patience.lost_seconds
        while self._lost is None:
            # A connection is closed, so fewer missing signs are enough to say by whom.
            silent, now = min(self._seen, key=self._seen.__getitem__), time.monotonic()
            if now - self._seen[silent] > _MISSED_BEATS * self._patience.beat_seconds:
                self._note(silent, "has closed its connections, and does not respond")
            elif now > deadline:
                self._end_because(WorkersDisconnectedError(workers=self._workers, cause=cause))
            time.sleep(_LOOK_SECONDS)
        return self._lost

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """While this lasts, workers connect to each other, and the process ends if that takes too long."""
        self._connecting_since = time.monotonic()
        try:
            yield
        finally:
            self._connecting_since = None

    @contextmanager
    def protect(self) -> Iterator[None]:
        """While this lasts, a lost worker does not end this process: it saves a checkpoint."""
        self._protected += 1
        try:
            yield
        finally:
            self._protected -= 1

    def release(self) -> None:
        """Stop watching: what follows needs no other worker."""
        self._released.set()

    def _exchange_signs(self) -> None:
        counts: dict[int, int] = {}
        while not self._released.is_set():
            try:
                self._board.add(f"beat/{self._worker}", 1)
                for other in self._seen:
                    self._look_at(other, counts)
            except Exception as error:  # the library's errors have no common class
                # The board is in the process of the first worker.
                logger.info("workers.board_unreachable", extra={"error": str(error).splitlines()[0] if str(error) else ""})
                if self._worker != FIRST_WORKER:
                    self._note(FIRST_WORKER, "has ended")
                return
            if self._finished or self._lost is not None:
                return
            self._released.wait(self._patience.beat_seconds)

    def _look_at(self, other: int, counts: dict[int, int]) -> None:
        count = self._board.add(f"beat/{other}", 0)
        if count != counts.get(other):
            counts[other], self._seen[other] = count, time.monotonic()
        key = end_key(other)
        if self._board.check([key]):
            said = self._board.get(key).decode()
            if other == FIRST_WORKER and said == ENDED_WELL:
                self._finished = True
            else:
                self._note(other, said)

    def _decide(self) -> None:
        patience = self._patience
        while not self._released.wait(_LOOK_SECONDS) and not self._finished:
            now = time.monotonic()
            since = self._connecting_since
            if since is not None and now - since > patience.connect_seconds and self._lost is None:
                self._abort(WorkersNotConnectedError(workers=self._workers, waited_seconds=patience.connect_seconds))
            # The first worker first: without it, none sees signs of any other.
            silent = next((other for other in self._seen if now - self._seen[other] > patience.lost_seconds), None)
            if silent is not None:
                self._note(silent, f"has not responded for {patience.lost_seconds:.0f} s")
            if self._lost is not None and not self._protected and now - self._lost_at > patience.end_seconds:
                self._abort(self._lost)

    def _note(self, worker: int, fact: str) -> None:
        self._end_because(WorkerLostError(worker=worker, workers=self._workers, fact=fact))

    def _end_because(self, error: WorkerLostError | WorkersDisconnectedError) -> None:
        if self._lost is None:
            self._lost_at, self._lost = time.monotonic(), error


def end_key(worker: int) -> str:
    """Where a worker says that it ends, and why."""
    return f"end/{worker}"
