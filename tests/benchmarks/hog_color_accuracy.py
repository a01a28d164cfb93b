"""`python -m tests.benchmarks.hog_color_accuracy`: how well HogColor with the trainer's own heads tells cars from trucks.

Five-fold cross-validation, stratified, repeated four times, over the sample photographs beside the checkout. The trainer's own
decoding, engine and fit; mirrored images are learned from, never judged.
"""

from __future__ import annotations

import asyncio
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import Engine, load_engine
from ocelli_model.preprocessing import decode_image, mirrored
from ocelli_model.publish import HOG_COLOR, publish_backbone
from ocelli_storage.archives import is_hidden
from ocelli_storage.object_store import ObjectStore
from ocelli_training.fit import Examples, FitSettings, fit_heads

PHOTOGRAPHS = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ZIPS = ("cars.zip", "trucks.zip")
FOLDS = 5
REPEATS = 4


def load_hog_color(threads: int = 2) -> Engine:
    """HogColor as it comes with the package, on the CPU."""

    async def load(folder: Path) -> Engine:
        store = ObjectStore.from_url((folder / "store").as_uri())
        published = await publish_backbone(store, HOG_COLOR)
        backbone = await load_backbone(store, published.digest, cache=folder / "cache")
        return load_engine(backbone, threads=threads, device=Accelerator.CPU)

    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(load(Path(name)))


def photographs(engine: Engine) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """uint8[N, height, width, 3] and intp[N]: the photographs, and which zip each is from."""
    images, classes = [], []
    for number, name in enumerate(ZIPS):
        with zipfile.ZipFile(PHOTOGRAPHS / name) as archive:
            for entry in archive.namelist():
                if not is_hidden(entry):
                    images.append(decode_image(archive.read(entry), engine.metadata.preprocessing))
                    classes.append(number)
    return np.stack(images), np.array(classes)


def measure() -> float:
    """The mean accuracy over all folds of all repeats, 0 to 1."""
    engine = load_hog_color()
    images, classes = photographs(engine)
    features, mirrored_features = engine.features(images), engine.features(mirrored(images))
    membership = np.eye(len(ZIPS), dtype=np.bool_)[classes]
    right = 0
    for repeat in range(REPEATS):
        folds = _stratified_folds(classes, seed=repeat)
        for fold in range(FOLDS):
            learned, judged = folds != fold, folds == fold
            examples = Examples(
                features=features[learned], mirrored_features=mirrored_features[learned], membership=membership[learned]
            )
            scores = fit_heads(examples, FitSettings(seed=repeat)).heads.scores(features[judged])
            right += int((scores.argmax(axis=1) == classes[judged]).sum())
    return right / (REPEATS * len(classes))


def _stratified_folds(classes: NDArray[np.intp], *, seed: int) -> NDArray[np.intp]:
    random = np.random.default_rng(seed)
    folds = np.empty_like(classes)
    for number in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == number))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


if __name__ == "__main__":
    print(f"accuracy of HogColor on the photographs, five-fold, four times  {100 * measure():.2f} %")
