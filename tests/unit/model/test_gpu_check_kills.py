"""`make gpu-check`: how it judges speed, and fine-tunings that it kills."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.gpu_check import fine_tuning
from tests.gpu_check.compare import BOUND, GpuCheckError
from tests.gpu_check.fine_tuning import WARM_UP_STEPS, EnoughError, Stopwatch, main, run_uninterrupted, run_with_kills
from tests.gpu_check.tuning_process import Order

STEPS = 12
INTERVAL_SECONDS = 0.02
# A training without a network: it writes how many steps are done, and its successor reads that. A step counts as 0.01 s.
PROGRAM = f"""
import json, sys, time
from pathlib import Path

saved = Path(sys.argv[1]) / "saved"

def report(event, updates, **more):
    print(json.dumps({{"event": event, "updates": updates, "at": 0.01 * updates, **more}}), flush=True)

def load():
    return int(saved.read_text()) if saved.exists() else 0

start = LOAD
report("resumed", start)
for step in range(start + 1, {STEPS} + 1):
    time.sleep(0.01)
    report("step", step)
    if step % 2 == 0:
        part = saved.with_name("part")
        part.write_text(str(step))
        part.rename(saved)
        report("saved", step, seconds=0.0)
END
"""
ORDER = Order(device="cpu", pictures=1, batch_images=1, epochs=1, interval_seconds=INTERVAL_SECONDS)


def start_programs(monkeypatch: pytest.MonkeyPatch, *, load: str = "load()", end: str = f"report('ended', {STEPS})") -> None:
    program = PROGRAM.replace("LOAD", load).replace("END", end)

    def start(folder: Path, store: Path, order: Order) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(fine_tuning, "_start", start)


def test_a_training_that_goes_on_after_each_kill_loses_no_more_than_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_programs(monkeypatch)
    interrupted = run_with_kills(tmp_path, tmp_path, ORDER, steps=STEPS, kills=2)
    assert interrupted.kills == 2
    assert interrupted.lost_seconds <= interrupted.limit_seconds


def test_a_training_that_begins_anew_after_each_kill_loses_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_programs(monkeypatch, load="0")
    interrupted = run_with_kills(tmp_path, tmp_path, ORDER, steps=STEPS, kills=2)
    assert interrupted.lost_seconds > interrupted.limit_seconds


def test_a_training_that_goes_on_from_where_it_never_was_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_programs(monkeypatch, load="load() and 99")
    with pytest.raises(GpuCheckError, match="went on from step 99, which the killed process had not done"):
        run_with_kills(tmp_path, tmp_path, ORDER, steps=STEPS, kills=2)


def test_a_process_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_programs(monkeypatch, end="sys.exit(3)")
    with pytest.raises(GpuCheckError, match="exit status 3"):
        run_uninterrupted(tmp_path, tmp_path, ORDER)


def test_a_process_that_ends_too_early_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_programs(monkeypatch, end="")
    with pytest.raises(GpuCheckError, match="without a network"):
        run_uninterrupted(tmp_path, tmp_path, ORDER)


def test_speed_is_that_of_the_steps_after_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stopwatch = [0.0], Stopwatch(2.0, "cpu")
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def train() -> None:
        for step in range(1000):
            now[0] += 10.0 if step < WARM_UP_STEPS else 0.25
            stopwatch()

    with pytest.raises(EnoughError):
        train()
    assert stopwatch.steps_per_second == 4.0


def test_scores_beyond_the_bound_miss_the_goal() -> None:
    assert fine_tuning._within_bound("scores", BOUND).met
    assert not fine_tuning._within_bound("scores", 1.1 * BOUND).met


def test_without_a_gpu_it_fails_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([".gpu-check"]) == 1
    assert capsys.readouterr().err.startswith("gpu-check: PyTorch finds no GPU; ")


def test_unprepared_folder_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--device", "cpu"]) == 1
    assert "was not prepared" in capsys.readouterr().err
