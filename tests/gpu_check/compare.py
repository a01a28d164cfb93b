"""`python -m tests.gpu_check.compare FOLDER`: compares a GPU with the results of `prepare`. Exits with 1 if they differ.

Run it in the root of the checkout. It needs PyTorch, torchvision and NumPy only, and takes less than a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tests.gpu_check.folder_store import FolderStore
from tests.gpu_check.stand_ins import prepare_imports

if TYPE_CHECKING:
    from ocelli_model.engine import Engine, TorchEngine
    from ocelli_model.heads import Heads

STORE_FOLDER = "store"
ANSWERS_FILE = "answers.npz"
DESCRIPTION_FILE = "description.json"
PICTURES = 64
BOUND = 0.01
"""Largest allowed difference of features and scores from those of the CPU."""
MEASURED_SECONDS = 3.0
"""Duration of each speed measurement."""
_PICTURES_ON_CPU = 16
"""PyTorch is slow on a CPU, and only its speed is measured there."""
PREPARE = "run make gpu-check on a machine with Ocelli's libraries, and copy its folder .gpu-check here"


class GpuCheckError(Exception):
    """The comparison cannot run. The message is fact and remedy."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result."""

    lines: tuple[str, ...]
    agrees: bool


def compare(folder: Path, device: str, *, seconds: float = MEASURED_SECONDS) -> Comparison:
    """Run the backbone on a PyTorch device, `cuda` or `cpu`, and compare.

    Raises:
        GpuCheckError: there is no such device, or the folder was not prepared.
    """
    check_device(device)
    import torch

    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text())
        with np.load(folder / ANSWERS_FILE, allow_pickle=False) as answers:
            images, features, scores = (answers[name] for name in ("images", "features", "scores"))
    except OSError as error:
        raise GpuCheckError(f"{folder} was not prepared ({error}); {PREPARE}") from error
    prepare_imports()
    engine, heads = asyncio.run(_load(folder, description, device))
    computed = engine.features(images)
    rate = images_per_second(engine, images if device == "cuda" else images[:_PICTURES_ON_CPU], seconds)
    moved = {"features": _largest(computed, features), "scores": _largest(heads.scores(computed), scores)}
    title = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    lines = [
        f"{describe_device(device)}, {engine.name}, against {description['engine']} on {description['processor']}",
        f"scores of the {len(images)} pictures are between {scores.min():.3f} and {scores.max():.3f}",
        *(f"{what}: largest difference {value:.2e}, {_verdict(value)} {BOUND}" for what, value in moved.items()),
        f"TensorFloat-32: convolutions {torch.backends.cudnn.allow_tf32}, products {torch.backends.cuda.matmul.allow_tf32}",
        f"{title}: {rate:,.0f} images/s with PyTorch",
        f"CPU: {description['imagesPerSecond']:,.0f} images/s with OpenVINO, {description['threads']} threads, "
        f"on {description['processor']}, recorded",
    ]
    if device == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        lines.append(f"GPU memory: {allocated / 1e6:,.0f} MB in tensors (peak), {reserved / 1e6:,.0f} MB reserved by PyTorch")
        cpu_engine, _ = asyncio.run(_load(folder, description, "cpu"))
        on_cpu, threads = images_per_second(cpu_engine, images[:_PICTURES_ON_CPU], seconds), len(os.sched_getaffinity(0))
        lines.append(f"CPU here: {on_cpu:,.0f} images/s with PyTorch, {threads} threads")
    exact = not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return Comparison(lines=tuple(lines), agrees=exact and all(value <= BOUND for value in moved.values()))


def check_device(device: str) -> None:
    """Raises GpuCheckError: there is no such device."""
    try:
        import torch
    except ImportError as error:
        raise GpuCheckError(f"PyTorch cannot be imported here ({error}); install PyTorch, torchvision and NumPy") from error
    if device == "cuda" and not torch.cuda.is_available():
        raise GpuCheckError(
            "PyTorch finds no GPU; copy the checkout with its folder .gpu-check to a machine with one, and run "
            "python -m tests.gpu_check.compare .gpu-check, then python -m tests.gpu_check.fine_tuning .gpu-check"
        )


def describe_device(device: str) -> str:
    """Its name, and the version of PyTorch."""
    import torch

    return f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, PyTorch {torch.__version__}"


def images_per_second(engine: Engine, images: NDArray[np.uint8], seconds: float = MEASURED_SECONDS) -> float:
    """From pixels in memory to features in memory, after one round to warm up."""
    engine.features(images)
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        engine.features(images)
        count += len(images)
    return count / (time.perf_counter() - started)


async def _load(folder: Path, description: dict[str, Any], device: str) -> tuple[TorchEngine, Heads]:
    """The engine and the heads as an inference server would load them."""
    from ocelli_model.artifact import load_artifact
    from ocelli_model.backbone import WEIGHTS_FILE, load_backbone
    from ocelli_model.engine import TorchEngine
    from ocelli_model.heads import Heads
    from ocelli_storage.layout import ClassifierLocation

    store: Any = FolderStore(folder / STORE_FOLDER)
    location = ClassifierLocation(namespace=description["namespace"], classifier_id=description["classifierID"])
    artifact = await load_artifact(store, location, description["revision"])
    if not isinstance(artifact.heads, Heads):
        raise GpuCheckError(f"{folder} has a classifier that was not trained; {PREPARE}")
    with tempfile.TemporaryDirectory(prefix="ocelli-gpu-check-") as cache:
        backbone = await load_backbone(store, artifact.backbone_digest, cache=Path(cache), files=[WEIGHTS_FILE])
        threads = len(os.sched_getaffinity(0))
        engine = TorchEngine(backbone, torch_device=device, threads=threads, precision=artifact.precision)
    return engine, artifact.heads


def _largest(values: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    return float(np.abs(values - others).max())


def _verdict(value: float) -> str:
    return "within" if value <= BOUND else "BEYOND"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check.compare", description="Compare a GPU with a CPU.")
    parser.add_argument("folder", type=Path, help="what python -m tests.gpu_check.prepare wrote")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: PyTorch on the CPU, to try it out")
    options = parser.parse_args(arguments)
    try:
        # On a CPU it is only tried out.
        comparison = compare(options.folder, options.device, seconds=MEASURED_SECONDS if options.device == "cuda" else 0.5)
    except GpuCheckError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    print("\n".join(comparison.lines))
    print(f"gpu-check: {'passed' if comparison.agrees else 'FAILED'}")
    return 0 if comparison.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
