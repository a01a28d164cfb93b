"""`make gpu-check` without a GPU: it reports this, and its comparison works on a CPU with only PyTorch and NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.gpu_check.compare import ANSWERS_FILE, GpuCheckError, compare, main
from tests.gpu_check.prepare import prepare
from tests.gpu_check.stand_ins import CHECKOUT, SafetensorError, read_safetensors, write_safetensors

# Python imports a module of this name at the start of each process.
FIRST_MODULE = "sitecustomize.py"
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class FinderWithout(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LIBRARIES else super().find_spec(name, path, target)

sys.meta_path[:] = [FinderWithout if finder is PathFinder else finder for finder in sys.meta_path]
"""
LIBRARIES = ("simplejpeg", "safetensors", "openvino", "obstore", "aiohttp", "onnx", "scipy", "coremltools", "tensorboardX")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu-check") / "prepared"
    prepare(folder, pictures=4, seconds=0.1)
    return folder


def test_without_a_gpu_it_fails_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([".gpu-check"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gpu-check: PyTorch finds no GPU; ")
    assert said.count("\n") == 1


def test_unprepared_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GpuCheckError, match=r"was not prepared .*; run make gpu-check"):
        compare(tmp_path, "cpu")


def run_without(libraries: Sequence[str], module: str, prepared: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The module's command on the CPU, in processes that cannot import these libraries."""
    (folder / FIRST_MODULE).write_text(WITHOUT.replace("LIBRARIES", repr(tuple(libraries))))
    command = [sys.executable, "-m", f"tests.gpu_check.{module}", str(prepared), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_pytorch_agrees_with_openvino_with_no_other_library(prepared: Path, tmp_path: Path) -> None:
    done = run_without(("PIL", *LIBRARIES), "compare", prepared, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "features: largest difference" in done.stdout
    assert done.stdout.endswith("gpu-check: passed\n")


@pytest.mark.slow
def test_fine_tuning_is_measured_and_goes_on_after_kills_with_no_other_library(prepared: Path, tmp_path: Path) -> None:
    # torchvision needs Pillow.
    done = run_without(LIBRARIES, "fine_tuning", prepared, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [line.partition("  ")[0] for line in done.stdout.splitlines() if line.startswith("FineTune")]
    assert figures == [
        "FineTune, batches of 4: images/s, ours / plain torchvision loop",
        "FineTune, killed 1 times: work lost / interval, step, checkpoint",
        "FineTune, killed: difference of scores from those without kills",
        "FineTune, served: difference of scores from PyTorch, CPU",
    ]
    assert "peak GPU memory: not measured on a CPU" in done.stdout
    assert done.stdout.endswith("gpu-check: fine-tuning passed\n")


@pytest.mark.slow
def test_other_features_fail_the_check(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    for path in prepared.iterdir():
        if path.name != ANSWERS_FILE:
            (folder / path.name).symlink_to(path)
    with np.load(prepared / ANSWERS_FILE) as answers:
        np.savez(folder / ANSWERS_FILE, **{**answers, "features": answers["features"] + np.float32(0.02)})
    comparison = compare(folder, "cpu", seconds=0.1)
    assert not comparison.agrees
    assert any("BEYOND 0.01" in line for line in comparison.lines)


def test_own_reader_reads_files_of_the_library() -> None:
    arrays = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3, dtype=np.int64)}
    read = read_safetensors(safetensors.numpy.save(arrays, metadata={"made": "by a test"}))
    assert read.keys() == arrays.keys()
    assert all((read[name] == values).all() and read[name].dtype == values.dtype for name, values in arrays.items())


def test_the_library_reads_files_of_the_own_writer() -> None:
    arrays = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3).T, "right": np.array([True, False])}
    read = safetensors.numpy.load(write_safetensors(arrays))
    assert read.keys() == arrays.keys()
    assert all((read[name] == values).all() and read[name].dtype == values.dtype for name, values in arrays.items())


def test_own_reader_refuses_file_that_is_cut_off() -> None:
    data = safetensors.numpy.save({"weights": np.ones(4, dtype=np.float32)})
    with pytest.raises(SafetensorError):
        read_safetensors(data[:-4])
