"""Scores do not depend on the node: they are the same without the processor's newest instructions.

A second process runs with `ONEDNN_MAX_CPU_ISA=AVX2`, which turns AVX-512 and AMX off in OpenVINO's kernels. That it is obeyed
is read from the compiled network, which names the kernel of each layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.backbone import Precision
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import mirrored
from ocelli_training.fit import Examples, View, fit_heads
from ocelli_training.folds import FOLDS
from tests.installed_backbone import installed_backbone
from tests.unit.model.images import striped

BOUND = 0.01
LEARNED_IMAGES = 15
JUDGED_IMAGES = 30
PROCESSOR = frozenset(Path("/proc/cpuinfo").read_text().split())
# Arguments: folder of the backbone, precision, file of images, file for the features. Prints the kernels of the convolutions.
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import Backbone, BackboneMetadata, Precision
from ocelli_model.engine import load_engine

folder, precision, images, features = sys.argv[1:]
metadata = BackboneMetadata.parse(Path(folder, "backbone.json").read_bytes(), digest=Path(folder).name)
backbone = Backbone(metadata=metadata, folder=Path(folder))
engine = load_engine(backbone, threads=1, device=Accelerator.CPU, precision=Precision(precision) if precision else None)
np.save(features, engine.features(np.load(images)))
layers = [layer.get_rt_info() for layer in engine._requests[0].get_compiled_model().get_runtime_model().get_ops()]
kernels = {str(layer["primitiveType"].value) for layer in layers if layer["layerType"].value == "Convolution"}
print(json.dumps([engine.name, sorted(kernels)]))
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of one process for the images."""

    learned: NDArray[np.float32]
    """Features of the training images, then of the same images mirrored."""
    judged: NDArray[np.float32]
    engine: str
    kernels: tuple[str, ...]


def run(folder: Path, *, precision: Precision | None = None, **environment: str) -> Run:
    learned = np.stack([stripes(seed, upright) for upright in (1.0, 0.0) for seed in range(LEARNED_IMAGES)])
    # From horizontal to vertical ones: their scores are between 0 and 1, where they change most.
    judged = np.stack([stripes(1000 + seed, part) for seed, part in enumerate(np.linspace(0, 1, JUDGED_IMAGES))])
    np.save(folder / "images.npy", np.concatenate([learned, mirrored(learned), judged]))
    command = [sys.executable, "-c", PROGRAM, installed_backbone().folder, precision or ""]
    command += [folder / "images.npy", folder / "features.npy"]
    answer = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    engine, kernels = json.loads(answer.stdout)
    features = np.load(folder / "features.npy")
    return Run(learned=features[:-JUDGED_IMAGES], judged=features[-JUDGED_IMAGES:], engine=engine, kernels=tuple(kernels))


def stripes(seed: int, upright: float) -> NDArray[np.uint8]:
    """Vertical stripes blended with horizontal ones, the vertical ones with this share."""
    size = installed_backbone().metadata.preprocessing.height
    both = (striped(vertical=vertical, seed=2 * seed + vertical, size=size).astype(np.float32) for vertical in (True, False))
    first, second = both
    return (upright * first + (1 - upright) * second).astype(np.uint8)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With all instructions that the processor has."""
    return run(tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With those of AVX2."""
    return run(tmp_path_factory.mktemp("older"), ONEDNN_MAX_CPU_ISA="AVX2")


@pytest.fixture(scope="module")
def heads(newest: Run) -> Heads:
    rows, mirrored_rows = np.split(newest.learned, 2)
    membership = np.repeat(np.eye(2, dtype=np.bool_), LEARNED_IMAGES, axis=0)
    examples = Examples(
        features=rows,
        other_views={View.MIRRORED: mirrored_rows},
        membership=membership,
        folds=np.arange(len(rows)) % FOLDS,
    )
    # Without rejection: these pictures are unlike the examples, and rejected scores hardly change.
    return replace(fit_heads(examples).heads, rejection=None)


def largest_difference(heads: Heads, run: Run, other: Run) -> float:
    return float(np.abs(heads.scores(run.judged) - heads.scores(other.judged)).max())


def test_scores_are_the_same_without_the_newest_instructions(newest: Run, older: Run, heads: Heads) -> None:
    difference = largest_difference(heads, newest, older)
    print(f"{newest.kernels} and {older.kernels}: largest difference of a score {difference:.1e}")
    assert difference <= BOUND


def test_the_evaluated_images_have_scores_over_the_whole_range(newest: Run, heads: Heads) -> None:
    scores = heads.scores(newest.judged)[:, 0]
    assert ((scores > 0.2) & (scores < 0.8)).sum() >= 5
    assert (scores.min() < 0.3, scores.max() > 0.7) == (True, True)


@pytest.mark.skipif("avx512f" not in PROCESSOR, reason="this processor has no instructions newer than AVX2")
def test_only_the_first_process_used_the_newest_instructions(newest: Run, older: Run) -> None:
    assert any("avx512" in kernel for kernel in newest.kernels)
    assert [kernel for kernel in older.kernels if "avx512" in kernel or "amx" in kernel] == []
    assert any("avx2" in kernel for kernel in older.kernels)


def test_both_computed_with_float32(newest: Run, older: Run) -> None:
    assert (newest.engine, older.engine) == ("OpenVINO CPU float32", "OpenVINO CPU float32")
    assert all(kernel.endswith("f32") for kernel in (*newest.kernels, *older.kernels))


@pytest.mark.skipif("avx512_bf16" not in PROCESSOR, reason="this processor has no bfloat16")
def test_bfloat16_changes_the_scores_noticeably(newest: Run, heads: Heads, tmp_path: Path) -> None:
    fastest = run(tmp_path, precision=Precision.FASTEST)
    difference = largest_difference(heads, newest, fastest)
    print(f"{fastest.engine}, {fastest.kernels}: largest difference of a score {difference:.4f}")
    assert fastest.engine == "OpenVINO CPU bfloat16"
    assert difference > 0.001
