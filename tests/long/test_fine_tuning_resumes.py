"""Fine-tuning as the process that a Job starts: stopped and killed at random moments, it ends as if it had not been.

`OCELLI_KILLS` sets how often it is killed, `OCELLI_KILLS_SEED` repeats a run's moments. The processes save every two seconds
instead of every thirty, so that twenty kills need no hours.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.outcome import OutcomeReason
from ocelli_training.tuning_checkpoint import POINTER
from tests.unit.training import made_pictures as pictures
from tests.unit.training.conftest import Trainer
from tests.unit.training.event_files import read_curves

pytestmark = pytest.mark.timeout(3600)

KILLS = int(os.environ.get("OCELLI_KILLS", "20"))
SEED = int(os.environ.get("OCELLI_KILLS_SEED", "0")) or random.randrange(1, 1_000_000)
ENDED = (OutcomeReason.SUCCEEDED, OutcomeReason.NOT_IMPROVED)
DEADLINE_SECONDS = 1200.0
INTERVAL_SECONDS = 2.0
SLACK_SECONDS = 5.0
"""For the step that a checkpoint waits for, and for writing it, on a busy machine."""
LEAST_SECONDS = 3.0
"""After which a process that tunes is killed at the latest, if the share of the whole is less."""
PROGRAM = f"""
import os, sys
sys.path[:] = {sys.path!r}
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import ocelli_training.fine_tuning
ocelli_training.fine_tuning.INTERVAL_SECONDS = {INTERVAL_SECONDS}
from ocelli_training.__main__ import main
sys.exit(main())
"""
Place = tuple[int, int]
"""How many networks are finished, and how many steps of the next one are done."""


def make_trainer(folder: Path) -> Trainer:
    folder.mkdir()
    trainer = Trainer(folder)
    for name, left in (("left", True), ("right", False)):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for seed in range(12):
                # An entry without a time: reports name uploads by their digest.
                archive.writestr(zipfile.ZipInfo(f"{seed}.jpg"), pictures.save(pictures.draw_arrow(seed, left=left)))
        trainer.add_class(name, trainer.upload(file.getvalue()))
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": 4, "batchSize": 4}
    return trainer


def result_of(trainer: Trainer) -> dict[str, Any]:
    """Losses, epochs, evaluation and curves, without times."""
    assert trainer.outcome.reason in ENDED, trainer.outcome
    report = trainer.report
    stored = asyncio.run(trainer.store.list_objects(trainer.location.curves_prefix(trainer.revision)))
    return {
        "recipe": report["recipe"],
        "evaluation": report["evaluation"],
        "artifact": trainer.outcome.artifact_digest,
        "curves": {item.key: read_curves(trainer.get(item.key)) for item in stored},
    }


class Running:
    """A trainer process whose log is read while it runs."""

    def __init__(self, trainer: Trainer) -> None:
        # One thread: other numbers of threads round differently.
        self.process = trainer.start(arguments=("-c", PROGRAM), OCELLI_CPU_LIMIT="1")
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.lines.append((time.monotonic(), json.loads(line)))

    def wait(self) -> int:
        code = self.process.wait(timeout=DEADLINE_SECONDS)
        self._reader.join()
        return code

    def kill(self) -> float:
        """Returns when it was."""
        self.process.kill()
        now = time.monotonic()
        self.wait()
        return now

    def wait_until_tuning(self) -> bool:
        """Whether it tunes; False if it has ended before."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.find("heads.fitted"):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return True

    def find_safe(self, saved: Place) -> tuple[Place, float | None]:
        """The last place that is safe, and since when; None: it is not training, but exporting and judging what it trained."""
        since: float | None = None
        ended = False
        for when, line in list(self.lines):
            match line["event"]:
                case "heads.fitted" if saved == (0, 0):
                    since = when
                case "tuning.resumed" | "checkpoint.stored":
                    saved, since, ended = (line["networks"], line["steps"]), None if ended else when, False
                case "tuning.run_ended":
                    ended = True
        return saved, since

    def find(self, event: str) -> list[tuple[float, Place]]:
        """When an event was logged, and the place in it."""
        return [
            (when, (line.get("networks", 0), line.get("steps", 0))) for when, line in list(self.lines) if line["event"] == event
        ]


@dataclass(frozen=True, kw_only=True)
class Uninterrupted:
    """A training that nothing stopped."""

    result: dict[str, Any]
    seconds: float
    """From its linear heads to its end."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    trainer = make_trainer(tmp_path_factory.mktemp("whole") / "trainer")
    running = Running(trainer)
    assert running.wait_until_tuning()
    started = time.monotonic()
    assert running.wait() == 0
    return Uninterrupted(result=result_of(trainer), seconds=time.monotonic() - started)


def test_a_stopped_trainer_saves_where_it_is_and_its_successor_gives_the_same(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    trainer = make_trainer(tmp_path / "trainer")
    first = Running(trainer)
    assert first.wait_until_tuning()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while trainer.progress.fine_tuning is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait() == 128 + signal.SIGTERM
    assert not trainer.exists(trainer.outcome_key)
    assert list(trainer.scratch.iterdir()) == []
    pointer = json.loads(trainer.get(trainer.location.training_key(trainer.revision, 1, POINTER)))
    _, saved = first.find("checkpoint.stored")[-1]
    assert pointer["state"]["run"]["updates"] == saved[1] > 0
    second = Running(trainer)
    assert second.wait() == 0
    assert [place for _, place in second.find("tuning.resumed")] == [saved]
    assert result_of(trainer) == uninterrupted.result


def test_a_trainer_that_is_killed_again_and_again_loses_one_interval_each_and_ends_with_the_same_result(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    # On average three fifths of the whole, so that it is not over before the last kill.
    longest = max(LEAST_SECONDS, 1.2 * uninterrupted.seconds / KILLS)
    moments, trainer = random.Random(SEED), make_trainer(tmp_path / "trainer")
    kills, saved, lost = 0, (0, 0), [0.0]
    for _ in range(KILLS):
        running = Running(trainer)
        # Every fourth process is killed at any moment before it tunes.
        if moments.random() < 0.75 and not running.wait_until_tuning():
            break
        try:
            running.process.wait(timeout=moments.uniform(0, longest))
            break
        except subprocess.TimeoutExpired:
            killed_at = running.kill()
        kills += 1
        # The process before may have been killed between its last checkpoint and the line about it.
        assert all(place >= saved for _, place in running.find("tuning.resumed"))
        saved, since = running.find_safe(saved)
        lost.append(0.0 if since is None else killed_at - since)
    else:
        assert Running(trainer).wait() == 0
    print(f"killed {kills} times, at most {max(lost):.1f} s lost, seed {SEED}")
    assert kills == KILLS
    assert max(lost) <= INTERVAL_SECONDS + SLACK_SECONDS
    assert result_of(trainer) == uninterrupted.result
