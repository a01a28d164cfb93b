"""The product's own result for a split: its trainer reads zips, and its code scores the held-out images."""

from __future__ import annotations

import asyncio
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_api.prediction import SCORE_DECIMALS
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import Artifact, load_artifact
from ocelli_model.backbone import load_backbone
from ocelli_model.engine import Engine, load_engine
from ocelli_model.heads import Heads
from ocelli_storage.store_url import open_store
from tests.benchmarks.accuracy.picture_sets import PictureSet
from tests.benchmarks.accuracy.splits import Rows, Split
from tests.benchmarks.trainer_process import LOCATION, TrainerProcess

CORES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A classifier that the trainer made."""

    revision: str
    artifact: Artifact
    heads: Heads
    seconds: float
    """Of the trainer's whole process."""


@dataclass
class Product:
    """The trainer with its own store, and the features with which its classifiers are served."""

    trainer: TrainerProcess
    engine: Engine | None = None
    number: int = 0
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def install(cls, folder: Path) -> Product:
        """Into an empty folder."""
        return cls(TrainerProcess.prepare(folder, {}, cores=CORES))

    def learn(self, pictures: PictureSet, split: Split, *, negatives: bool) -> Learned:
        """Learn from the split's pictures, as a user would upload them.

        Raises:
            TrainerProcessError: see there.
        """
        self.number += 1
        folder = self.trainer.folder / f"zips-{self.number}"
        folder.mkdir()
        zips = {}
        for label in range(len(pictures.class_names)):
            # Names of files can contain characters that names of classes cannot.
            zips[f"class {label}"] = folder / f"{label}.zip"
            write_zip(zips[f"class {label}"], pictures, [row for row in split.learned if pictures.labels[row] == label])
        if negatives:
            write_zip(folder / "negatives.zip", pictures, split.learned_negatives)
        trainer = replace(self.trainer, zips=zips, negatives=folder / "negatives.zip" if negatives else None)
        started = time.monotonic()
        revision = trainer.run(self.number)
        seconds = time.monotonic() - started
        artifact = asyncio.run(load_artifact(open_store(trainer.store_url), LOCATION, revision))
        if not isinstance(artifact.heads, Heads):
            raise TypeError(f"the trainer made a {type(artifact.heads).__name__}")
        return Learned(revision=revision, artifact=artifact, heads=artifact.heads, seconds=seconds)

    def set_features(self, pictures: PictureSet, learned: Learned) -> NDArray[np.float32]:
        """Of all pictures of a set, with the engine, preprocessing and precision that the server would take."""
        if self.engine is None:
            self.engine = asyncio.run(self._load_engine(learned.artifact))
        if self.engine.metadata.digest != learned.artifact.backbone_digest:
            raise RuntimeError("two trainings took two backbones")
        if pictures.name not in self.features:
            self.features[pictures.name] = self.engine.features(pictures.decode(learned.artifact.preprocessing))
        return self.features[pictures.name]

    def served_scores(self, learned: Learned, pictures: Sequence[bytes]) -> NDArray[np.float64]:
        """Scores of files as the inference server answers them, rounded as it rounds them."""
        settings = InferenceSettings(
            store_url=self.trainer.store_url,
            classifier="benchmark/benchmark",
            namespace=LOCATION.namespace,
            classifier_id=LOCATION.classifier_id,
            revision=learned.revision,
            bind_address="127.0.0.1",
            cpu_count=CORES,
            accelerator=Accelerator.CPU,
            log_level="WARNING",
        )

        async def predict() -> NDArray[np.float64]:
            async with open_predictor(settings, Metrics()) as predictor:
                predictions = [await predictor.predict(data) for data in pictures]
            return np.array([[item.score for item in prediction.scores] for prediction in predictions])

        return asyncio.run(predict())

    def check_server(self, pictures: PictureSet, learned: Learned, rows: Rows) -> None:
        """Fail if the server's answer differs from the measured one."""
        own = learned.heads.scores(self.set_features(pictures, learned)[rows])
        served = self.served_scores(learned, [pictures.pictures[row] for row in rows])
        if np.abs(np.round(own.astype(np.float64), SCORE_DECIMALS) - served).max() > 2 * 10.0**-SCORE_DECIMALS:
            raise RuntimeError("the server's scores are not those of its engine and heads; the figures would be wrong")

    async def _load_engine(self, artifact: Artifact) -> Engine:
        store = open_store(self.trainer.store_url)
        backbone = await load_backbone(store, artifact.backbone_digest, cache=self.trainer.folder / "cache")
        threads = len(os.sched_getaffinity(0))
        return load_engine(backbone, threads=threads, device=Accelerator.CPU, precision=artifact.precision)


def without_rejection(heads: Heads) -> Heads:
    """The same heads without rejection: they also answer for images that are unlike every example."""
    return replace(heads, rejection=None)


def write_zip(path: Path, pictures: PictureSet, rows: Sequence[int] | Rows) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            archive.writestr(f"{row:05}.image", pictures.pictures[row])
