"""Two and three processes train the small network together, over gloo."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.unit.training.tuned_pictures import make_images, make_network, make_run, make_steady_body
from tests.unit.training.worker_program import ABORTED_EXIT_CODE, KILLED_EXIT_CODE, LOST_EXIT_CODE, PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOUND = 1e-5
"""Between the weights of one worker and of several: the order of sums of 32-bit floats differs."""
CHECKOUT = Path(__file__).resolve().parents[3]


def start(folder: Path, worker: int, workers: int, *others: int) -> subprocess.Popen[bytes]:
    numbers = [str(number) for number in (worker, workers, *others)]
    command = [sys.executable, "-m", "tests.unit.training.worker_program", str(folder), *numbers]
    return subprocess.Popen(command, cwd=CHECKOUT)


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    try:
        return [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def learned(folder: Path, worker: int) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / f"tensors-{worker}.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of one worker."""
    with make_images(tmp_path_factory.mktemp("alone")) as images:
        run = make_run(images, network=make_network(make_steady_body()))
        run.train(lambda _: None)
    return run.tensors(), asdict(run.state)


@pytest.fixture(scope="module", params=[2, 3])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of several workers that have trained. With three, the last batch of an epoch leaves nothing for some."""
    folder, workers = tmp_path_factory.mktemp("together"), request.param
    assert wait([start(folder, worker, workers) for worker in range(workers)]) == [0] * workers
    return folder, workers


def test_workers_learn_what_one_learns(alone: tuple[dict[str, Tensor], dict[str, Any]], together: tuple[Path, int]) -> None:
    tensors, _ = alone
    found = learned(together[0], 0)
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=0, atol=BOUND), name


def test_workers_choose_the_epoch_that_one_chooses(
    alone: tuple[dict[str, Tensor], dict[str, Any]], together: tuple[Path, int]
) -> None:
    _, state = alone
    found = json.loads((together[0] / "state-0.json").read_text())
    for losses in ("losses", "training_losses"):
        assert np.allclose(found[losses], state[losses], rtol=0, atol=BOUND)
    for exact in ("epoch", "step", "updates", "best_epoch", "halved", "accuracies"):
        assert found[exact] == state[exact]


def test_all_workers_have_the_same_network_to_the_last_bit(together: tuple[Path, int]) -> None:
    folder, workers = together
    first = learned(folder, 0)
    for worker in range(1, workers):
        other = learned(folder, worker)
        assert all(torch.equal(value, other[name]) for name, value in first.items())


def test_when_a_worker_dies_the_others_end_in_time_and_name_it(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0, 3), start(tmp_path, 1, 3, 2), start(tmp_path, 2, 3)]
    assert processes[1].wait(timeout=120) == KILLED_EXIT_CODE
    died_at = time.monotonic()
    codes = wait(processes)
    assert time.monotonic() - died_at < PATIENCE.lost_seconds + 2 * PATIENCE.end_seconds
    assert codes[0] == LOST_EXIT_CODE
    assert codes[2] in (LOST_EXIT_CODE, ABORTED_EXIT_CODE)
    message = (tmp_path / "lost-0").read_text()
    assert message.startswith("worker 1 (of 0 to 2) has closed its connections, and does not respond; all workers end")


def test_workers_that_were_started_again_do_not_use_the_address_of_before(tmp_path: Path) -> None:
    first = [start(tmp_path, 0, 2, 1), start(tmp_path, 1, 2, 1)]
    assert KILLED_EXIT_CODE in wait(first)
    for worker in range(2):
        (tmp_path / f"worker-{worker}" / "pixels").unlink()
        (tmp_path / f"worker-{worker}").rmdir()
    # The address of the first process is still in the store when the other worker begins to look.
    assert wait([start(tmp_path, 1, 2), start(tmp_path, 0, 2)]) == [0, 0]
