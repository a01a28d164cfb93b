"""Signs of life between workers, over a board in this process."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from ocelli_training.worker_watch import ENDED_WELL, WorkerWatch, end_key
from ocelli_training.workers import WorkerLostError, WorkerPatience, WorkersDisconnectedError, WorkersNotConnectedError

pytestmark = pytest.mark.slow

PATIENCE = WorkerPatience(connect_seconds=0.3, lost_seconds=0.6, beat_seconds=0.02, end_seconds=0.2)
DEADLINE_SECONDS = 10.0


class InMemoryBoard:
    """Signs of all workers. `cut` makes it unreachable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = defaultdict(int)
        self._texts: dict[str, bytes] = {}
        self.cut = False

    def add(self, key: str, amount: int, /) -> int:
        if self.cut:
            raise RuntimeError("Connection reset by peer")
        with self._lock:
            self._numbers[key] += amount
            return self._numbers[key]

    def check(self, keys: list[str], /) -> bool:
        return all(key in self._texts for key in keys)

    def get(self, key: str, /) -> bytes:
        return self._texts[key]

    def set(self, key: str, text: str) -> None:
        self._texts[key] = text.encode()


class Scene:
    """Watches of two workers on one board."""

    def __init__(self) -> None:
        self.board = InMemoryBoard()
        self.aborted: list[Exception] = []
        self.watches: list[WorkerWatch] = []

    def watch(self, worker: int, patience: WorkerPatience = PATIENCE) -> WorkerWatch:
        found = WorkerWatch(self.board, worker=worker, workers=2, patience=patience, abort=self.aborted.append)
        self.watches.append(found)
        return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for watch in scene.watches:
        watch.release()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_lost(watch: WorkerWatch) -> bool:
    try:
        watch.check()
    except WorkerLostError:
        return True
    return False


def message_of(watch: WorkerWatch) -> str:
    with pytest.raises(WorkerLostError) as caught:
        watch.check()
    return str(caught.value)


def test_a_silent_worker_is_lost_and_named(scene: Scene) -> None:
    first = scene.watch(0)
    wait_for(lambda: is_lost(first))
    assert message_of(first).startswith("worker 1 (of 0 to 1) has not responded for 1 s; all workers end, and continue from")


def test_workers_that_live_are_not_lost(scene: Scene) -> None:
    watches = [scene.watch(0), scene.watch(1)]
    # Longer than the deadline for one sign.
    seen = scene.board.add("beat/0", 0)
    wait_for(lambda: scene.board.add("beat/0", 0) > seen + 2 * PATIENCE.lost_seconds / PATIENCE.beat_seconds)
    assert not any(map(is_lost, watches))
    assert scene.aborted == []


def test_a_process_that_does_not_notice_is_ended(scene: Scene) -> None:
    scene.watch(0)
    wait_for(lambda: scene.aborted)
    assert isinstance(scene.aborted[0], WorkerLostError)


def test_a_process_that_saves_a_checkpoint_is_not_ended(scene: Scene) -> None:
    first = scene.watch(0)
    with first.protect():
        wait_for(lambda: is_lost(first))
        lost_at = time.monotonic()
        wait_for(lambda: time.monotonic() > lost_at + 3 * PATIENCE.end_seconds)
        assert scene.aborted == []
    wait_for(lambda: scene.aborted)


def test_a_worker_that_says_why_it_ends_is_lost_at_once(scene: Scene) -> None:
    first = scene.watch(0)
    scene.board.set(end_key(1), "failed: its disk is full")
    wait_for(lambda: is_lost(first))
    assert "worker 1 (of 0 to 1) failed: its disk is full; all workers end" in message_of(first)


def test_without_the_board_the_first_worker_is_lost(scene: Scene) -> None:
    other = scene.watch(1)
    scene.board.cut = True
    wait_for(lambda: is_lost(other))
    assert "worker 0 (of 0 to 1) has ended" in message_of(other)


def test_a_first_worker_that_has_stored_the_results_is_not_lost(scene: Scene) -> None:
    other = scene.watch(1)
    scene.board.set(end_key(0), ENDED_WELL)
    wait_for(lambda: other.finished)
    other.check()


def test_workers_that_cannot_connect_end_with_the_remedy(scene: Scene) -> None:
    first = scene.watch(0)
    scene.watch(1)
    with first.connecting():
        wait_for(lambda: scene.aborted)
    assert isinstance(scene.aborted[0], WorkersNotConnectedError)
    assert "allow connections on every port between the Pods of a training" in str(scene.aborted[0])


def test_an_error_of_a_collective_is_explained_by_the_lost_worker(scene: Scene) -> None:
    first = scene.watch(0)
    error = first.explain(RuntimeError("Connection closed by peer"))
    assert isinstance(error, WorkerLostError)
    assert error.worker == 1
    assert "has closed its connections, and does not respond" in str(error)


def test_an_error_between_workers_that_live_is_a_failure_of_its_own(scene: Scene) -> None:
    # A busy machine may delay signs.
    first, _ = (scene.watch(worker, WorkerPatience(beat_seconds=0.1, lost_seconds=1.0)) for worker in (0, 1))
    error = first.explain(RuntimeError("NCCL error: unhandled system error\nbacktrace"))
    assert isinstance(error, WorkersDisconnectedError)
    assert "(NCCL error: unhandled system error)" in str(error)
    with pytest.raises(WorkersDisconnectedError):
        first.check()


def test_a_released_watch_ends_nothing(scene: Scene) -> None:
    first = scene.watch(0)
    first.release()
    released_at = time.monotonic()
    wait_for(lambda: time.monotonic() > released_at + PATIENCE.lost_seconds + 2 * PATIENCE.end_seconds)
    assert scene.aborted == []
