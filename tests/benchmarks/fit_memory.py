"""The cost of training with 50,000 images: memory and time of the near-duplicate search and of the fit, on made features.

`python -m tests.benchmarks.fit_memory` prints both. Each runs in a process of its own with two threads. Memory is the peak of
what is resident (VmHWM), features and fingerprints included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# As in the trainer. Read once, when NumPy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from ocelli_training.fit import Examples, fit_heads, normalised_rows
from ocelli_training.folds import FOLDS
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, group_near_duplicates

IMAGES = 50_000
FEATURES = 1280
CLASSES = 10
THREADS = 2
TIME_LIMIT_SECONDS = 600
PARTS = ("near-duplicate search", "fit")
_BLOCK_ROWS = 5000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one part, in its process."""

    seconds: float
    processor_seconds: float
    """What it used of the processor: on a busy machine less than the seconds that passed."""
    peak_megabytes: float
    before_megabytes: float
    """What was resident before it began: libraries and input."""


def made_features() -> NDArray[np.float32]:
    """float32[`IMAGES`, `FEATURES`], sparse and not negative as a network's, in `CLASSES` classes that overlap."""
    features = np.empty((IMAGES, FEATURES), dtype=np.float32)
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES)).astype(np.float32)
    for start in range(0, IMAGES, _BLOCK_ROWS):
        rows = np.arange(start, start + _BLOCK_ROWS)
        noise = np.random.default_rng(rows[0] + 1).normal(size=(len(rows), FEATURES)).astype(np.float32)
        features[rows] = np.maximum(0.2 * centres[rows % CLASSES] + noise, 0)
    return features


def made_prints() -> NDArray[np.float16]:
    """float16[`IMAGES`, `FINGERPRINT_NUMBERS`] of large squares."""
    coarse = np.random.default_rng(0).uniform(0, 255, size=(IMAGES, 3, 8, 8)).astype(np.float16)
    return coarse.repeat(4, axis=2).repeat(4, axis=3).reshape(IMAGES, FINGERPRINT_NUMBERS)


def resident_megabytes(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def measure_here(part: str) -> Cost:
    """Run one part in this process."""
    features = made_features()
    if part == "fit":
        membership = np.eye(CLASSES, dtype=np.bool_)[np.arange(IMAGES) % CLASSES]
        folds = np.random.default_rng(0).integers(0, FOLDS, IMAGES)
        before, started, processor_started = resident_megabytes("VmRSS"), time.perf_counter(), time.process_time()
        fit_heads(Examples(features=features, membership=membership, folds=folds), threads=THREADS)
    else:
        prints = made_prints()
        before, started, processor_started = resident_megabytes("VmRSS"), time.perf_counter(), time.process_time()
        group_near_duplicates(prints, normalised_rows(features), np.arange(IMAGES) % CLASSES, range(IMAGES))
    seconds = time.perf_counter() - started
    return Cost(
        seconds=seconds,
        processor_seconds=time.process_time() - processor_started,
        peak_megabytes=resident_megabytes("VmHWM"),
        before_megabytes=before,
    )


def measure(part: str) -> Cost:
    """Run one part in a separate process."""
    command = [sys.executable, "-m", "tests.benchmarks.fit_memory", part]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIME_LIMIT_SECONDS)
    return Cost(**json.loads(done.stdout))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asdict(measure_here(sys.argv[1]))))
        return
    for part in PARTS:
        cost = measure(part)
        print(
            f"{part}, {IMAGES} images: {cost.seconds:.0f} s, of the processor {cost.processor_seconds:.0f} s, "
            f"peak {cost.peak_megabytes:.0f} MB ({cost.before_megabytes:.0f} MB before it)",
            flush=True,
        )


if __name__ == "__main__":
    main()
