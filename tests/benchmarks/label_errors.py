"""`make benchmark-labels`: swaps classes of photographs, trains on them, and counts which of them the report suspects.

Settings, in the environment: DATA, as for `make benchmark-accuracy`; SEEDS, 3; SHARE, the share of pictures that get another
class, `0.1`. It fails only if it cannot measure.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_storage.archives import ArchiveError
from ocelli_storage.layout import REPORT
from ocelli_storage.store_url import open_store
from tests.benchmarks.accuracy.__main__ import DEFAULT_DATA
from tests.benchmarks.accuracy.picture_sets import NEGATIVE, PictureSet, PictureSetsError, load_sets
from tests.benchmarks.accuracy.product import Product
from tests.benchmarks.accuracy.splits import Split
from tests.benchmarks.trainer_process import LOCATION

FACTOR = 1.5
"""How many suspects a person looks at for each wrong picture."""
GOAL = 0.8
_REPORT_LIMIT_BYTES = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one training."""

    swapped: int
    suspects: int
    found: int
    """Swapped pictures among the first `FACTOR` times as many suspects."""
    corrected: int
    """Those of them for which the right class is suggested."""


def swap_labels(labels: NDArray[np.intp], share: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Another class, or the negatives if there are any, for a share of the pictures: the labels and the changed rows."""
    random = np.random.default_rng(seed)
    changed = np.sort(random.choice(len(labels), round(share * len(labels)), replace=False))
    swapped = labels.copy()
    for row in changed:
        swapped[row] = random.choice([label for label in np.unique(labels) if label != labels[row]])
    return swapped, changed


def measure(product: Product, pictures: PictureSet, share: float, seed: int) -> Figures:
    """Train on a set with swapped classes, and read the report."""
    swapped, changed = swap_labels(pictures.labels, share, seed)
    rows, negatives = np.flatnonzero(swapped != NEGATIVE), np.flatnonzero(swapped == NEGATIVE)
    nothing = rows[:0]
    split = Split(learned=rows, judged=nothing, learned_negatives=negatives, judged_negatives=nothing)
    learned = product.learn(replace(pictures, labels=swapped), split, negatives=len(negatives) > 0)
    key = LOCATION.artifact_key(learned.revision, REPORT)
    store = open_store(product.trainer.store_url)
    data = json.loads(asyncio.run(store.get(key, limit_bytes=_REPORT_LIMIT_BYTES)))["data"]
    looked_at = data["suspectedLabelErrors"][: int(FACTOR * len(changed))]
    actual = {_row(suspect): suspect["suggestedClass"] for suspect in looked_at}
    found = [row for row in changed.tolist() if row in actual]
    return Figures(
        swapped=len(changed),
        suspects=data["suspectedLabelErrorsCount"],
        found=len(found),
        corrected=sum(actual[row] == _class_name(int(pictures.labels[row])) for row in found),
    )


def _row(suspect: Mapping[str, Any]) -> int:
    """The picture's row, which the benchmark's zips have as its name."""
    name = str(suspect["image"]).rpartition(" › ")[2]
    return int(name.removesuffix(".image"))


def _class_name(label: int) -> str | None:
    return None if label == NEGATIVE else f"class {label}"


def main() -> int:
    share, seeds = float(os.environ.get("SHARE") or "0.1"), int(os.environ.get("SEEDS") or "3")
    try:
        sets = load_sets(Path(os.environ.get("DATA") or DEFAULT_DATA))
    except (PictureSetsError, ArchiveError) as error:
        print(f"benchmark-labels: {error}", file=sys.stderr)
        return 1
    print(f"{'set':<12}{'swapped':>9}{'suspects':>10}{'found':>8}{'share':>9}{'right class':>13}  goal {GOAL:.0%}")
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as folder:
        product = Product.install(Path(folder))
        for pictures in sets:
            runs = [measure(product, pictures, share, seed) for seed in range(seeds)]
            swapped, found = sum(run.swapped for run in runs), sum(run.found for run in runs)
            print(
                f"{pictures.name:<12}{swapped:>9}{sum(run.suspects for run in runs):>10}{found:>8}{found / swapped:>9.1%}"
                f"{sum(run.corrected for run in runs):>13}  {'met' if found >= GOAL * swapped else 'missed'}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
