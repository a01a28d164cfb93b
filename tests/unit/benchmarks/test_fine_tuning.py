"""The benchmark of fine-tuning, without a training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from tests.benchmarks.fine_tuning import Figures, Task, load_runs, summarise

LINEAR = Task(set_name="plugs", seed=0, pictures=20, strategy="LinearProbe")
TUNED = replace(LINEAR, strategy="FineTune", epochs=6, learning_rate=1e-4, batch=16)
FIGURES = Figures(top_1=0.9, rejected_negatives=None, own_accuracy=0.88, tuned=False, seconds=3.5)
BETTER = replace(FIGURES, top_1=0.95, tuned=True)


def test_trainings_that_have_ended_are_not_run_again(tmp_path: Path) -> None:
    lines = [json.dumps({"task": asdict(task), "figures": asdict(figures)}) for task, figures in RUNS.items()]
    path = tmp_path / "runs.jsonl"
    # The last line was cut.
    path.write_text("\n".join([*lines, lines[0][:40]]))
    assert load_runs(path) == RUNS


def test_the_better_strategy_wins_and_trainings_of_other_recipes_do_not_count() -> None:
    other = {replace(TUNED, epochs=1): FIGURES}
    assert summarise({**RUNS, **other}, [(LINEAR, TUNED), (replace(LINEAR, seed=1), replace(TUNED, seed=1))])[2:] == [
        "| plugs | 1 | 90.0% | 95.0% | 1 of 1 | FineTune |"
    ]


RUNS = {LINEAR: FIGURES, TUNED: BETTER}
