"""`python -m tests.benchmarks.model_figures`: the cost of features, heads and imports. Prints lines of name and value."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# As in the trainer. Read once, when NumPy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import load_backbone
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.engine import Engine, load_engine
from ocelli_model.preprocessing import decode_image
from ocelli_model.publish import publish_backbone
from ocelli_storage.store_url import open_store
from ocelli_training.fit import Examples, View, fit_heads
from ocelli_training.folds import FOLDS
from tests.unit.model.images import make_file, make_pixels

THREADS = 2
REPEATS = 3
FITS = ((2, 50), (10, 100), (500, 10))
"""Classes, images of each."""
IMPORTS = ("numpy", "openvino", "ocelli_model.engine", "ocelli_training.evaluate")
SIZES = ((320, 213), (1920, 1280))


def seconds(task: Callable[[], object], repeats: int = REPEATS) -> float:
    """The shortest of some runs."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        taken.append(time.perf_counter() - started)
    return min(taken)


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:56} {value:9.3f} {unit}", flush=True)


def clustered(classes: int, images: int, features: int) -> Examples:
    random = np.random.default_rng(0)
    membership = np.repeat(np.eye(classes, dtype=np.bool_), images, axis=0)
    centres = membership.astype(np.float32) @ random.normal(size=(classes, features)).astype(np.float32)
    shape = (classes * images, features)
    return Examples(
        features=centres + random.normal(size=shape).astype(np.float32),
        other_views={View.MIRRORED: centres + random.normal(size=shape).astype(np.float32)},
        membership=membership,
        folds=np.arange(len(membership)) % FOLDS,
    )


def publish(folder: Path) -> Engine:
    """The default backbone, published into a store in the folder unless it is there, and loaded."""

    async def load() -> Engine:
        store = open_store((folder / "store").as_uri())
        published = await publish_backbone(store, DEFAULT_BACKBONE)
        backbone = await load_backbone(store, published.digest, cache=folder / "cache")
        return load_engine(backbone, threads=THREADS, device=Accelerator.CPU)

    return asyncio.run(load())


def main() -> None:
    for module in IMPORTS:
        show(
            f"import {module}, process included",
            seconds(lambda name=module: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)),
            "s",
        )
    with tempfile.TemporaryDirectory() as name:
        show(f"publish and load {DEFAULT_BACKBONE}", seconds(lambda: publish(Path(name)), repeats=1), "s")
        show(f"load {DEFAULT_BACKBONE}", seconds(lambda: publish(Path(name))), "s")
        engine = publish(Path(name))
    for width, height in SIZES:
        data = make_file(make_pixels(height=height, width=width), "JPEG", quality=90)
        taken = seconds(lambda data=data: [decode_image(data, engine.metadata.preprocessing) for _ in range(20)])
        show(f"decode a JPEG of {width}x{height}, one thread", 1000 * taken / 20, "ms")
    height, width = engine.metadata.preprocessing.height, engine.metadata.preprocessing.width
    images = np.stack([make_pixels(seed, height=height, width=width) for seed in range(64)])
    show(f"features of an image, {THREADS} threads", 1000 * seconds(lambda: engine.features(images)) / len(images), "ms")
    for classes, count in FITS:
        examples = clustered(classes, count, engine.metadata.feature_count)
        taken = seconds(lambda examples=examples: fit_heads(examples, threads=THREADS), repeats=1)
        show(f"fit {classes} classes of {count} images", taken, "s")


if __name__ == "__main__":
    main()
