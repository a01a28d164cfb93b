"""Fine-tuning as the process that a Job starts: stopped and killed at random moments, it ends as if it had not been.

`OCELLI_KILLS` sets how often it is killed, `OCELLI_KILLS_SEED` repeats a run's moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.outcome import OutcomeReason
from ocelli_training.tuning_checkpoint import POINTER
from tests.unit.training import made_pictures as pictures
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.timeout(3600)

KILLS = int(os.environ.get("OCELLI_KILLS", "20"))
SEED = int(os.environ.get("OCELLI_KILLS_SEED", "0")) or random.randrange(1, 1_000_000)
ENDED = (OutcomeReason.SUCCEEDED, OutcomeReason.NOT_IMPROVED)
DEADLINE_SECONDS = 1200
LONGEST_SECONDS = 60.0
"""After which a process is killed at the latest: longer than two intervals of checkpoints, so each makes progress."""


def make_trainer(folder: Path, make_zip: Any) -> Trainer:
    folder.mkdir()
    trainer = Trainer(folder)
    for name, left in (("left", True), ("right", False)):
        arrows = {f"{seed}.jpg": pictures.save(pictures.draw_arrow(seed, left=left)) for seed in range(12)}
        trainer.add_class(name, trainer.upload(make_zip(arrows)))
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": 2, "batchSize": 4}
    return trainer


def result_of(trainer: Trainer) -> dict[str, Any]:
    """Losses, epochs and evaluation, without times."""
    assert trainer.outcome.reason in ENDED, trainer.outcome
    report = trainer.report
    return {"recipe": report["recipe"], "evaluation": report["evaluation"], "artifact": trainer.outcome.artifact_digest}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, make_zip: Any) -> dict[str, Any]:
    trainer = make_trainer(tmp_path_factory.mktemp("whole") / "trainer", make_zip)
    trainer.start(OCELLI_CPU_LIMIT="1").communicate(timeout=DEADLINE_SECONDS)
    return result_of(trainer)


def wait_until_tuning(trainer: Trainer, process: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (trainer.exists(trainer.progress_key) and trainer.progress.percent >= 9):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_trainer_saves_where_it_is_and_its_successor_gives_the_same(
    tmp_path: Path, make_zip: Any, uninterrupted: dict[str, Any]
) -> None:
    trainer = make_trainer(tmp_path / "trainer", make_zip)
    process = trainer.start(OCELLI_CPU_LIMIT="1")
    wait_until_tuning(trainer, process)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert not trainer.exists(trainer.outcome_key)
    assert list(trainer.scratch.iterdir()) == []
    pointer = json.loads(trainer.get(trainer.location.training_key(trainer.revision, 1, POINTER)))
    assert "run" in pointer["state"], log
    _, log = trainer.start(OCELLI_CPU_LIMIT="1").communicate(timeout=DEADLINE_SECONDS)
    assert "tuning.resumed" in log
    assert result_of(trainer) == uninterrupted


def test_a_trainer_that_is_killed_again_and_again_ends_with_the_same_result(
    tmp_path: Path, make_zip: Any, uninterrupted: dict[str, Any]
) -> None:
    moments, trainer = random.Random(SEED), make_trainer(tmp_path / "trainer", make_zip)
    kills = 0
    for _ in range(KILLS):
        process = trainer.start(OCELLI_CPU_LIMIT="1")
        deadline = time.monotonic() + moments.uniform(0, LONGEST_SECONDS)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            process.communicate()
            break
        process.kill()
        process.communicate()
        kills += 1
    else:
        trainer.start(OCELLI_CPU_LIMIT="1").communicate(timeout=DEADLINE_SECONDS)
    print(f"killed {kills} times, seed {SEED}")
    assert result_of(trainer) == uninterrupted
