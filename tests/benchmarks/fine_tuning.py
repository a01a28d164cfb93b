"""FineTune against LinearProbe: the same photographs, trainer and inference code, and the accuracy on pictures held out by this
benchmark.

`python -m tests.benchmarks.fine_tuning FOLDER` learns from 20 pictures a class of each set in the folder (as
`make benchmark-accuracy` takes it), for three seeds. `SETS="plugs"`, `SEEDS=1`, `EPOCHS=4`, `LEARNING_RATE=0.001` change that.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ocelli_api.classifier import Accelerator, ModelRecipe, Strategy
from ocelli_api.export import PartPlace
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import load_engine
from ocelli_model.heads import Heads
from ocelli_storage.store_url import open_store
from tests.benchmarks.accuracy.figures import rejected, top_1
from tests.benchmarks.accuracy.picture_sets import PictureSet, load_sets
from tests.benchmarks.accuracy.product import write_zip
from tests.benchmarks.accuracy.splits import Split, split_set
from tests.benchmarks.trainer_process import LOCATION, TrainerProcess

PICTURES = 20
"""Of a class."""
SEEDS = 3
EPOCHS = 6
CORES = 2


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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both strategies on one split."""

    set_name: str
    seed: int
    linear: Figures
    tuned: Figures

    def __str__(self) -> str:
        kept = "" if self.tuned.tuned else " (linear heads kept)"
        return (
            f"{self.set_name:9} seed {self.seed}: LinearProbe {100 * self.linear.top_1:5.1f} %, "
            f"FineTune {100 * self.tuned.top_1:5.1f} %{kept}; own estimates {100 * self.linear.own_accuracy:5.1f} and "
            f"{100 * self.tuned.own_accuracy:5.1f} %; negatives rejected {_share(self.linear.rejected_negatives)} and "
            f"{_share(self.tuned.rejected_negatives)}; {self.linear.seconds:.0f} s and {self.tuned.seconds:.0f} s"
        )


def summarise(comparisons: list[Comparison]) -> list[str]:
    """A row for each set: the means, and which strategy wins by more than one picture in 200."""
    rows = ["| Set | LinearProbe | FineTune | tuned networks | wins |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(item.set_name for item in comparisons):
        own = [item for item in comparisons if item.set_name == name]
        linear = float(np.mean([item.linear.top_1 for item in own]))
        tuned = float(np.mean([item.tuned.top_1 for item in own]))
        wins = "neither" if abs(tuned - linear) < 0.005 else "FineTune" if tuned > linear else "LinearProbe"
        networks = sum(item.tuned.tuned for item in own)
        rows.append(f"| {name} | {100 * linear:.1f} % | {100 * tuned:.1f} % | {networks} of {len(own)} | {wins} |")
    return rows


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def measure(trainer: TrainerProcess, pictures: PictureSet, split: Split, number: int, model: ModelRecipe) -> Figures:
    """Train, and score the pictures that are held out."""
    folder = trainer.folder / f"zips-{number}"
    folder.mkdir()
    zips: Mapping[str, Path] = {f"class {label}": folder / f"{label}.zip" for label in range(len(pictures.class_names))}
    for label, path in enumerate(zips.values()):
        write_zip(path, pictures, [row for row in split.learned if pictures.labels[row] == label])
    negatives = folder / "negatives.zip" if split.has_negatives else None
    if negatives is not None:
        write_zip(negatives, pictures, split.learned_negatives)
    started = time.monotonic()
    revision = replace(trainer, zips=zips, negatives=negatives, model=model).run(number)
    seconds = time.monotonic() - started
    store = open_store(trainer.store_url)
    artifact = asyncio.run(load_artifact(store, LOCATION, revision))
    own = artifact.backbone_place is PartPlace.ARTIFACT
    prefix = LOCATION.network_prefix(revision) if own else None
    backbone = asyncio.run(load_backbone(store, artifact.backbone_digest, cache=trainer.folder / "cache", prefix=prefix))
    engine = load_engine(backbone, threads=CORES, device=Accelerator.CPU, precision=artifact.precision)
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


def main() -> None:
    """Print a line for each split, then the table."""
    chosen = os.environ.get("SETS", "").split()
    seeds, epochs = int(os.environ.get("SEEDS", SEEDS)), int(os.environ.get("EPOCHS", EPOCHS))
    rate = os.environ.get("LEARNING_RATE")
    recipe = ModelRecipe(
        strategy=Strategy.FINE_TUNE, epochs=epochs, learning_rate=float(rate) if rate else None, batch_size=None
    )
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="ocelli-fine-tuning-") as folder:
        trainer = TrainerProcess.prepare(Path(folder), {}, cores=CORES)
        number = 0
        for pictures in load_sets(Path(sys.argv[1])):
            if chosen and pictures.name not in chosen:
                continue
            for seed in range(seeds):
                split = split_set(pictures.labels, PICTURES, seed)
                if split is None:
                    print(f"{pictures.name}: too few pictures to learn from {PICTURES} of each class", flush=True)
                    break
                linear = measure(trainer, pictures, split, number + 1, ModelRecipe())
                tuned = measure(trainer, pictures, split, number + 2, recipe)
                number += 2
                comparisons.append(Comparison(set_name=pictures.name, seed=seed, linear=linear, tuned=tuned))
                print(comparisons[-1], flush=True)
    print("\n".join(summarise(comparisons)), flush=True)


if __name__ == "__main__":
    main()
