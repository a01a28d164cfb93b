"""The promise of reproducible artifacts, kept by the whole fit in processes of its own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import hashlib, sys
import numpy as np
from ocelli_training.fit import Examples, View, fit_heads

random = np.random.default_rng(0)
# More classes than are solved at a time, and fewer and more images than features.
for count in (160, 400):
    membership = np.eye(40, dtype=bool)[np.arange(count) % 40]
    views = [(membership @ random.normal(size=(40, 150)) + random.normal(size=(count, 150))).astype(np.float32) for _ in "ab"]
    folds = random.integers(0, 5, count)
    examples = Examples(features=views[0], other_views={View.MIRRORED: views[1]}, membership=membership, folds=folds)
    fit = fit_heads(examples, threads=int(sys.argv[1]))
    heads = fit.heads
    arrays = (heads.weights, heads.bias, heads.slope, heads.offset, fit.scores, *heads.rejection.arrays().values())
    print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


def learned(*, threads: int) -> str:
    """The digest of the weights that a new process trains."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_two_processes_learn_the_same_weights_to_the_bit() -> None:
    assert learned(threads=1) == learned(threads=1)


def test_the_number_of_threads_changes_no_bit() -> None:
    assert learned(threads=1) == learned(threads=3)
