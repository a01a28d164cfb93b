"""The promise of reproducible artifacts, kept by the whole fit in processes of its own."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib, sys
import numpy as np
from ocelli_training.fit import Examples, FitSettings, fit_heads

random = np.random.default_rng(0)
features = random.normal(size=(400, 700)).astype(np.float32)
mirrored = random.normal(size=(400, 700)).astype(np.float32)
membership = np.eye(40, dtype=bool)[np.arange(400) % 40]
examples = Examples(features=features, mirrored_features=mirrored, membership=membership)
heads = fit_heads(examples, FitSettings(seed=1), threads=int(sys.argv[1])).heads
arrays = (heads.weights, heads.bias, heads.slope, heads.offset)
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


def learned(*, threads: int) -> str:
    """The digest of what a new process learns."""
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
