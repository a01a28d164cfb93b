"""`python -m tests.gpu_check.prepare FOLDER`: the data for the comparison, computed on a CPU.

A backbone's weights, an artifact that the trainer made from generated pictures, such pictures in the network's input format,
and the features and scores that OpenVINO gives for them.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.classifier import Accelerator
from ocelli_model.artifact import HEADS_FILE, load_artifact
from ocelli_model.backbone import METADATA_FILE, WEIGHTS_FILE, load_backbone
from ocelli_model.engine import load_engine
from ocelli_storage.layout import ARTIFACT_METADATA, backbone_key
from ocelli_storage.store_url import open_store
from tests.benchmarks.trainer_process import LOCATION, TrainerProcess
from tests.gpu_check.compare import (
    ANSWERS_FILE,
    DESCRIPTION_FILE,
    MEASURED_SECONDS,
    PICTURES,
    STORE_FOLDER,
    images_per_second,
)

CLASS_NAMES = ("stripes", "rings", "squares")
EXAMPLES = 20
EXAMPLE_SIDE_PIXELS = 128


def make_picture(kind: int, seed: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """uint8[height, width, 3]: stripes, rings or squares in random colours, sizes and places."""
    random = np.random.default_rng([kind, seed])
    rows, columns = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    rows, columns = rows - random.uniform(0.2, 0.8), columns - random.uniform(0.2, 0.8)
    angle, waves = random.uniform(0, np.pi), random.uniform(15, 40)
    along, across = rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)
    pattern = (
        np.sin(waves * along),
        np.sin(waves * np.hypot(rows, columns)),
        np.sign(np.sin(waves * along) * np.sin(waves * across)),
    )[kind]
    light, dark = random.uniform(120, 255, 3), random.uniform(0, 100, 3)
    shares = ((pattern + 1) / 2)[:, :, np.newaxis]
    pixels = light * shares + dark * (1 - shares) + random.normal(0, 8, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_pictures(count: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """uint8[count, height, width, 3], each a blend of two kinds, so that scores are between 0 and 1."""
    pictures = []
    for number in range(count):
        first, second = (
            make_picture(kind % len(CLASS_NAMES), 1000 + number, height=height, width=width).astype(np.float64)
            for kind in (number, number + 1)
        )
        share = np.random.default_rng(number).uniform()
        pictures.append((share * first + (1 - share) * second).astype(np.uint8))
    return np.stack(pictures)


def prepare(folder: Path, *, pictures: int = PICTURES, seconds: float = MEASURED_SECONDS) -> None:
    """Rewrite the folder.

    Raises:
        TrainerProcessError: the trainer failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / STORE_FOLDER).mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ocelli-gpu-check-") as name:
        scratch = Path(name)
        zips = {class_name: scratch / f"{class_name}.zip" for class_name in CLASS_NAMES}
        for kind, path in enumerate(zips.values()):
            _write_examples(path, kind)
        trainer = TrainerProcess.prepare(scratch, zips, cores=len(os.sched_getaffinity(0)))
        revision = trainer.run(1)
        store = open_store(trainer.store_url)
        artifact = asyncio.run(load_artifact(store, LOCATION, revision))
        backbone = asyncio.run(load_backbone(store, artifact.backbone_digest, cache=scratch / "cache"))
        threads = len(os.sched_getaffinity(0))
        engine = load_engine(backbone, threads=threads, device=Accelerator.CPU, precision=artifact.precision)
        images = make_pictures(pictures, height=artifact.preprocessing.height, width=artifact.preprocessing.width)
        features = engine.features(images)
        np.savez(folder / ANSWERS_FILE, images=images, features=features, scores=artifact.heads.scores(features))
        description = {
            "namespace": LOCATION.namespace,
            "classifierID": LOCATION.classifier_id,
            "revision": revision,
            "engine": engine.name,
            "threads": threads,
            "processor": _processor(),
            "imagesPerSecond": images_per_second(engine, images, seconds),
            "preparedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")
        keys = [backbone_key(artifact.backbone_digest, file) for file in (METADATA_FILE, WEIGHTS_FILE)]
        keys += [LOCATION.artifact_key(revision, file) for file in (ARTIFACT_METADATA, HEADS_FILE)]
        for key in keys:
            target = folder / STORE_FOLDER / key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / "store" / key, target)


def _write_examples(path: Path, kind: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(EXAMPLES):
            buffer = io.BytesIO()
            picture = make_picture(kind, number, height=EXAMPLE_SIDE_PIXELS, width=EXAMPLE_SIDE_PIXELS)
            Image.fromarray(picture).save(buffer, "PNG")
            archive.writestr(f"{number:03}.png", buffer.getvalue())


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
