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
from tests.gpu_check.pictures import CLASS_NAMES, make_picture, make_pictures

EXAMPLES = 20
EXAMPLE_SIDE_PIXELS = 128


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
