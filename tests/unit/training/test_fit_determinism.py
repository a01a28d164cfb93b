"""The promise of reproducible artifacts, kept by the whole fit in processes of its own."""

import subprocess
import sys

PROGRAM = """
import hashlib
import numpy as np
from ocelli_training.fit import Examples, FitSettings, fit_heads

random = np.random.default_rng(0)
features = random.normal(size=(150, 700)).astype(np.float32)
mirrored = random.normal(size=(150, 700)).astype(np.float32)
membership = np.eye(3, dtype=bool)[np.arange(150) % 3]
heads = fit_heads(Examples(features=features, mirrored_features=mirrored, membership=membership), FitSettings(seed=1)).heads
arrays = (heads.weights, heads.bias, heads.slope, heads.offset)
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


def test_two_processes_learn_the_same_weights_to_the_bit() -> None:
    answers = {
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout for _ in range(2)
    }

    assert len(answers) == 1
