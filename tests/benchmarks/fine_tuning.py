"""`make benchmark-fine-tuning`: FineTune against LinearProbe, with the same photographs, trainer and inference code, judged on
pictures that neither learned from.

Settings, in the environment: DATA, as for `make benchmark-accuracy`; SETS, their names, all; SEEDS, 3; PICTURES of each class,
20; EPOCHS, LEARNING_RATE and BATCH, those of the product; CORES, all of the machine; RUNS, a file with a line of JSON for each
training that has ended, which are not run again: a benchmark that was stopped goes on from there. It fails only if it cannot
measure.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ocelli_api.classifier import Accelerator, ModelRecipe, Strategy
from ocelli_api.export import PartPlace
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import load_engine
from ocelli_model.heads import Heads
from ocelli_storage.archives import ArchiveError
from ocelli_storage.store_url import open_store
from ocelli_training.tuning_recipe import BATCH_IMAGES, EPOCHS, LEARNING_RATE
from tests.benchmarks.accuracy.__main__ import DEFAULT_DATA
from tests.benchmarks.accuracy.figures import rejected, top_1
from tests.benchmarks.accuracy.picture_sets import PictureSet, PictureSetsError, load_sets
from tests.benchmarks.accuracy.product import write_zip
from tests.benchmarks.accuracy.splits import Split, split_set
from tests.benchmarks.trainer_process import LOCATION, TrainerProcess

LEAST_DIFFERENCE = 0.005
"""Of two accuracies, for one to win: one picture in 200."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training."""

    set_name: str
    seed: int
    pictures: int
    """Of each class."""
    strategy: str
    epochs: int = 0
    learning_rate: float = 0.0
    batch: int = 0

    @property
    def model(self) -> ModelRecipe:
        if self.strategy == Strategy.LINEAR_PROBE:
            return ModelRecipe()
        return ModelRecipe(
            strategy=Strategy.FINE_TUNE, epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch
        )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One training, judged on pictures that it never had."""

    top_1: float
    rejected_negatives: float | None
    own_accuracy: float
    """What the trainer reports, from its cross-validation."""
    tuned: bool
    """Whether the artifact has a network of its own."""
    seconds: float

    def __str__(self) -> str:
        negatives = "" if self.rejected_negatives is None else f", negatives rejected {self.rejected_negatives:.0%}"
        return f"{self.top_1:6.1%}, own estimate {self.own_accuracy:.1%}{negatives}, {self.seconds:.0f} s"


Runs = dict[Task, Figures]


def load_runs(path: Path | None) -> Runs:
    """The trainings in a file; none where it does not exist."""
    if path is None or not path.exists():
        return {}
    # A line that was cut when the machine stopped counts as none.
    lines = [line for line in path.read_text().splitlines() if line.endswith("}}")]
    documents = [json.loads(line) for line in lines]
    return {Task(**document["task"]): Figures(**document["figures"]) for document in documents}


def summarise(runs: Runs, tasks: Sequence[tuple[Task, Task]]) -> list[str]:
    """A row for each set: the means over its seeds, and which strategy wins."""
    rows = ["| Set | Seeds | LinearProbe | FineTune | Networks tuned | Wins |", "|---|---|---|---|---|---|"]
    done = [(pair[0].set_name, runs[pair[0]], runs[pair[1]]) for pair in tasks if pair[0] in runs and pair[1] in runs]
    for name in dict.fromkeys(name for name, _, _ in done):
        pairs = [(linear, tuned) for set_name, linear, tuned in done if set_name == name]
        linear, tuned = (float(np.mean([pair[side].top_1 for pair in pairs])) for side in (0, 1))
        wins = "neither" if abs(tuned - linear) < LEAST_DIFFERENCE else "FineTune" if tuned > linear else "LinearProbe"
        networks = sum(pair[1].tuned for pair in pairs)
        rows.append(f"| {name} | {len(pairs)} | {linear:.1%} | {tuned:.1%} | {networks} of {len(pairs)} | {wins} |")
    return rows


def measure(trainer: TrainerProcess, pictures: PictureSet, split: Split, number: int, task: Task) -> Figures:
    """Train, and score the pictures that are held out."""
    folder = trainer.folder / "zips"
    folder.mkdir()
    zips: Mapping[str, Path] = {f"class {label}": folder / f"{label}.zip" for label in range(len(pictures.class_names))}
    for label, path in enumerate(zips.values()):
        write_zip(path, pictures, [row for row in split.learned if pictures.labels[row] == label])
    negatives = folder / "negatives.zip" if split.has_negatives else None
    if negatives is not None:
        write_zip(negatives, pictures, split.learned_negatives)
    started = time.monotonic()
    revision = replace(trainer, zips=zips, negatives=negatives, model=task.model).run(number)
    seconds = time.monotonic() - started
    shutil.rmtree(folder)
    store = open_store(trainer.store_url)
    artifact = asyncio.run(load_artifact(store, LOCATION, revision))
    own = artifact.backbone_place is PartPlace.ARTIFACT
    prefix = LOCATION.network_prefix(revision) if own else None
    backbone = asyncio.run(load_backbone(store, artifact.backbone_digest, cache=trainer.folder / "cache", prefix=prefix))
    engine = load_engine(backbone, threads=trainer.cores, device=Accelerator.CPU, precision=artifact.precision)
    heads = artifact.heads
    assert isinstance(heads, Heads)
    scores = heads.scores(engine.features(pictures.decode(artifact.preprocessing)))
    return Figures(
        top_1=top_1(scores[split.judged], pictures.labels[split.judged]),
        rejected_negatives=rejected(scores[split.judged_negatives]) if split.has_negatives else None,
        own_accuracy=float(artifact.metrics["accuracy"]),
        tuned=own,
        seconds=seconds,
    )


def plan(sets: Sequence[PictureSet], environment: Mapping[str, str]) -> list[tuple[Task, Task]]:
    """The trainings of every set and seed, with both strategies. All sets have their first seed first."""
    pictures = int(environment.get("PICTURES") or "20")
    tasks = []
    for seed in range(int(environment.get("SEEDS") or "3")):
        for item in sets:
            if split_set(item.labels, pictures, seed) is None:
                print(f"{item.name}: too few pictures to learn from {pictures} of each class", flush=True)
                continue
            linear = Task(set_name=item.name, seed=seed, pictures=pictures, strategy=str(Strategy.LINEAR_PROBE))
            tuned = replace(
                linear,
                strategy=str(Strategy.FINE_TUNE),
                epochs=int(environment.get("EPOCHS") or EPOCHS),
                learning_rate=float(environment.get("LEARNING_RATE") or LEARNING_RATE),
                batch=int(environment.get("BATCH") or BATCH_IMAGES),
            )
            tasks.append((linear, tuned))
    return tasks


def main() -> int:
    """Print a line for each training, then the table."""
    environment = os.environ
    names = (environment.get("SETS") or "").split()
    path = Path(environment["RUNS"]) if environment.get("RUNS") else None
    try:
        found = {item.name: item for item in load_sets(Path(environment.get("DATA") or DEFAULT_DATA))}
    except (PictureSetsError, ArchiveError) as error:
        print(f"benchmark-fine-tuning: {error}", file=sys.stderr)
        return 1
    unknown = sorted(set(names) - set(found))
    if unknown:
        print(f"benchmark-fine-tuning: SETS names {', '.join(unknown)}; DATA has {', '.join(found)}", file=sys.stderr)
        return 1
    pairs, runs = plan([found[name] for name in names or found], environment), load_runs(path)
    cores = int(environment.get("CORES") or len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as folder:
        trainer = TrainerProcess.prepare(Path(folder), {}, cores=cores)
        for number, task in enumerate((task for pair in pairs for task in pair), 1):
            if task not in runs:
                pictures = found[task.set_name]
                split = split_set(pictures.labels, task.pictures, task.seed)
                assert split is not None
                runs[task] = measure(trainer, pictures, split, number, task)
                if path is not None:
                    with path.open("a") as file:
                        file.write(json.dumps({"task": asdict(task), "figures": asdict(runs[task])}) + "\n")
            kept = ", linear heads kept" if task.strategy == Strategy.FINE_TUNE and not runs[task].tuned else ""
            print(f"{task.set_name:10} seed {task.seed} {task.strategy:12}{runs[task]}{kept}", flush=True)
    print("\n".join(summarise(runs, pairs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
