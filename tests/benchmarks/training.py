"""`make benchmark-training`: how fast trainings are, next to the limit of the machine and to PyTorch with scikit-learn.

Prints what, ours, the other side or the limit, their ratio, the goal, and whether it is met. Both sides are measured in one
run, the limit half before and half after ours. It fails only if it cannot measure. `IMAGES=200` is quick. Images are made
here: stripes of ten directions, with noise.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.classifier import Accelerator
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import Engine, load_engine, needed_files
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import enlarged, mirrored
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.store_url import open_store
from ocelli_training.extraction import wanted_views
from ocelli_training.fit import View
from tests.benchmarks.comparison import HEADING, Comparison
from tests.benchmarks.eager_training import LEARNED, read_zips
from tests.benchmarks.trainer_process import LOCATION, MeasuredTraining, TrainerProcess

CLASSES = 10
IMAGES = int(os.environ.get("IMAGES", "2000"))
JUDGED_IMAGES = min(max(IMAGES // 2, 200), 1000)
ADDED_IMAGES = 10
LARGE_IMAGES = min(max(IMAGES // 4, 100), 500)
MADE_LARGE_IMAGES = 20
"""Different large images; the others are copies of them with other bytes at the end."""
SIZE = (640, 480)
LARGE_SIZE = (4000, 3000)
LIMIT_BATCH_IMAGES = 250
"""Cores wait for the last image of each."""
_BATCH_IMAGES = 64


def made_image(seed: int, label: int, size: tuple[int, int] = SIZE, kind: str = "JPEG") -> bytes:
    """An image file: stripes in the direction of a class on a ground of clouds, in colours of chance."""
    random = np.random.default_rng(seed)
    width, height = size
    angle = np.pi * (label + random.normal(scale=0.2)) / CLASSES
    row = np.arange(height, dtype=np.float32)[:, np.newaxis] / height
    column = np.arange(width, dtype=np.float32)[np.newaxis, :] / height
    frequency = random.uniform(30, 90)
    wave = np.sin(frequency * (np.cos(angle) * column + np.sin(angle) * row) + random.uniform(0, 6)).astype(np.float32)
    pixels = wave[..., np.newaxis] * random.uniform(15, 40, size=3).astype(np.float32)
    clouds = Image.fromarray(random.integers(40, 215, size=(12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    # Grain of a sixteenth of the image, repeated: drawing as many numbers as a large image has takes a second. A PNG with
    # grain has more bytes than an example may have.
    grain = random.normal(scale=14 if kind == "JPEG" else 0, size=(height // 4, width // 4, 1)).astype(np.float32)
    pixels += np.asarray(clouds, dtype=np.float32) + np.tile(grain, (4, 4, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind, quality=85)
    return file.getvalue()


def write_zips(folder: Path, count: int, make: Callable[[int, int], bytes], *, first_seed: int = 0) -> dict[str, Path]:
    """A zip for each class; the images are stored as they are, `make` gets a seed and a class."""
    folder.mkdir(exist_ok=True)
    zips = {f"class-{label}": folder / f"class-{label}.zip" for label in range(CLASSES)}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for label, path in enumerate(zips.values()):
            seeds = range(first_seed + label, first_seed + count, CLASSES)
            with zipfile.ZipFile(path, "a") as archive:
                for seed, data in zip(seeds, pool.map(make, seeds, [label] * len(seeds)), strict=True):
                    archive.writestr(f"{seed}.jpg", data)
    return zips


def load_default_engine(trainer: TrainerProcess) -> Engine:
    digest = trainer.backbones.partition("=")[2]
    files = needed_files(Accelerator.CPU)
    backbone = asyncio.run(
        load_backbone(open_store(trainer.store_url), digest, cache=trainer.folder / "backbones", files=files)
    )
    return load_engine(backbone, threads=trainer.cores, device=Accelerator.CPU)


@dataclass
class Limit:
    """Seconds that decoding alone takes on all cores, and the engine alone for all views that a training computes."""

    decoding: float = 0.0
    engine: float = 0.0

    def measure(self, trainer: TrainerProcess, engine: Engine, files: Sequence[bytes]) -> None:
        """Add what these images take."""
        decode = ImageDecoder(engine.metadata.preprocessing, EXAMPLE_KINDS)
        views = {View.MIRRORED: mirrored, View.ENLARGED: enlarged}
        with ThreadPoolExecutor(trainer.cores) as pool:
            for start in range(0, len(files), LIMIT_BATCH_IMAGES):
                started = time.monotonic()
                images = np.stack(list(pool.map(decode, files[start : start + LIMIT_BATCH_IMAGES])))
                self.decoding += time.monotonic() - started
                for view in (images, *(views[name](images) for name in wanted_views(IMAGES, IMAGES // CLASSES))):
                    started = time.monotonic()
                    engine.features(view)
                    self.engine += time.monotonic() - started


def extraction_seconds(training: MeasuredTraining) -> float:
    """Of reading, decoding and the network."""
    return training.seconds_of("data.valid") + training.seconds_of("features.extracted")


def judge(trainer: TrainerProcess, engine: Engine, revision: str, folder: Path) -> float:
    """The accuracy of a trained revision on images that it has not seen."""
    artifact = asyncio.run(load_artifact(open_store(trainer.store_url), LOCATION, revision))
    decode = ImageDecoder(engine.metadata.preprocessing, EXAMPLE_KINDS)
    right: list[NDArray[np.bool_]] = []
    files = list(read_zips(folder))
    for start in range(0, len(files), _BATCH_IMAGES):
        batch = files[start : start + _BATCH_IMAGES]
        scores = artifact.heads.scores(engine.features(np.stack([decode(data) for data, _ in batch])))
        right.append(scores.argmax(axis=1) == np.array([label for _, label in batch]))
    return float(np.concatenate(right).mean())


def measure_eager(trainer: TrainerProcess, learned: Path, judged: Path) -> tuple[float, float]:
    """Seconds until PyTorch and scikit-learn have learned, start of the process included, and their accuracy."""
    digest = trainer.backbones.partition("=")[2]
    command = [sys.executable, "-m", "tests.benchmarks.eager_training"]
    arguments = [trainer.store_url, digest, str(learned), str(judged), str(trainer.cores)]
    started = time.monotonic()
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, seconds = process.stdout.readline().strip(), time.monotonic() - started
        accuracy = process.stdout.readline()
    if first != LEARNED or process.returncode != 0:
        raise RuntimeError(f"the other side ended with exit status {process.returncode}")
    return seconds, float(accuracy)


def measure_speed(folder: Path, cores: int) -> Iterator[Comparison]:
    """Extraction, end to end and retrain, on `IMAGES` images."""
    learned, judged = folder / "learned", folder / "judged"
    zips = write_zips(learned, IMAGES, made_image)
    write_zips(judged, JUDGED_IMAGES, made_image, first_seed=10 * IMAGES)
    trainer = TrainerProcess.prepare(folder, zips, cores=cores)
    engine, limit = load_default_engine(trainer), Limit()
    files = [data for data, _ in read_zips(learned)]
    limit.measure(trainer, engine, files[::2])
    first = trainer.measure(1)
    limit.measure(trainer, engine, files[1::2])
    ours, views = extraction_seconds(first), 1 + len(wanted_views(IMAGES, IMAGES // CLASSES))
    print(f"the limit: decoding {limit.decoding:.2f} s, engine {limit.engine:.2f} s for {views} views of an image", flush=True)
    yield Comparison(
        what=f"reading and extraction, {IMAGES} images: limit of the machine / ours",
        ours=ours,
        other=limit.decoding + limit.engine,
        unit="s",
        ratio=(limit.decoding + limit.engine) / ours,
        goal=0.9,
        at_least=True,
    )
    eager, eager_accuracy = measure_eager(trainer, learned, judged)
    yield Comparison(
        what=f"LinearProbe, whole process, {IMAGES} images: PyTorch, scikit-learn / ours",
        ours=first.seconds,
        other=eager,
        unit="s",
        ratio=eager / first.seconds,
        goal=4,
        at_least=True,
    )
    accuracy = judge(trainer, engine, first.revision, judged)
    yield Comparison(
        what=f"accuracy on {JUDGED_IMAGES} other images: ours / PyTorch, scikit-learn",
        ours=accuracy,
        other=eager_accuracy,
        unit="",
        ratio=accuracy / eager_accuracy,
        goal=1,
        at_least=True,
    )
    write_zips(learned, ADDED_IMAGES, made_image, first_seed=5 * IMAGES)
    again = extraction_seconds(trainer.measure(2))
    yield Comparison(
        what=f"reading and extraction with {ADDED_IMAGES} new images: ours / the first training",
        ours=again,
        other=ours,
        unit="s",
        ratio=again / ours,
        goal=0.1,
        at_least=False,
    )


def measure_memory(folder: Path, cores: int) -> Comparison:
    """The peak of the trainer's memory with large images."""
    folder.mkdir()
    made = [made_image(seed, seed % CLASSES, LARGE_SIZE, "PNG" if seed == 0 else "JPEG") for seed in range(MADE_LARGE_IMAGES)]

    def large(seed: int, label: int) -> bytes:
        # Decoders ignore what follows the end of an image.
        return made[seed % MADE_LARGE_IMAGES] + seed.to_bytes(4, "big")

    trainer = TrainerProcess.prepare(folder, write_zips(folder / "learned", LARGE_IMAGES, large), cores=cores)
    peak = trainer.measure(1).peak_megabytes
    return Comparison(
        what=f"resident memory, {LARGE_IMAGES} images of {LARGE_SIZE[0]}x{LARGE_SIZE[1]}: ours / 1,500 MB",
        ours=peak,
        other=1500,
        unit="MB",
        ratio=peak / 1500,
        goal=1,
        at_least=False,
    )


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; load of the machine before: {os.getloadavg()[0]:.1f}; the goals are for 2,000 images")
    print(HEADING)
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-training-") as name:
        for comparison in measure_speed(Path(name), cores):
            comparisons.append(comparison)
            print(comparison, flush=True)
        comparisons.append(measure_memory(Path(name) / "large", cores))
        print(comparisons[-1], flush=True)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}, {cores} of it by this benchmark")
    met = sum(comparison.met for comparison in comparisons)
    print(f"{met} met, {len(comparisons) - met} missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
