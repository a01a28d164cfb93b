"""Extraction: features and fingerprints of images, with all cores busy.

Threads read images and make their other views and fingerprints while the engine runs. The result does not depend on their
number.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.classifier import Strategy
from ocelli_model.engine import Engine
from ocelli_model.preprocessing import Preprocessing, enlarged, mirrored
from ocelli_training.dataset import Example
from ocelli_training.feature_cache import ImageFeatures, KnownImages
from ocelli_training.fit import View
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, fingerprints
from ocelli_training.pixel_file import PixelFile

VIEWS_LIMIT_IMAGES = 5000
VIEWS_LIMIT_CLASS_IMAGES = 100
"""With more images, or more in every class, only whole views are used: the others improve little then, and take three times as
long, see decision 12."""
_VIEWS = {View.ENLARGED: enlarged, View.MIRRORED: mirrored}
_BATCH_INPUTS = 96
_BATCH_INPUTS_PER_THREAD = 16
"""At the end of a batch, a thread of the engine waits for the others: half of what one input takes, on average."""

logger = logging.getLogger(__name__)


def wanted_views(images: int, fewest: int, strategy: Strategy = Strategy.LINEAR_PROBE) -> tuple[View, ...]:
    """The views next to the whole that a dataset is learned with; `fewest` are the images of its smallest class.

    Fine-tuning needs them with larger classes, too: only they show whether mirrored images help.
    """
    helps = fewest <= VIEWS_LIMIT_CLASS_IMAGES or strategy is Strategy.FINE_TUNE
    return tuple(_VIEWS) if images <= VIEWS_LIMIT_IMAGES and helps else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """Images to be computed, with the same views."""

    images: Sequence[Example]
    views: tuple[View, ...] = ()
    """In addition to the whole."""

    def find(self, known: KnownImages) -> list[tuple[ImageFeatures, int] | None]:
        """For each image where its features are known, with all views; None where they are not."""
        return [
            place if place is not None and place[0].other_views.keys() >= set(self.views) else None
            for place in (known.find(image.digest) for image in self.images)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Images that are ready for the engine."""

    target: ImageFeatures
    rows: NDArray[np.intp]
    inputs: NDArray[np.uint8]
    """uint8[V, B, height, width, 3]: the whole images, then each other view of the target."""
    prints: NDArray[np.float16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """How images are computed."""

    engine: Engine
    pixels: PixelFile
    threads: int
    """That prepare batches, in addition to those of the engine."""
    numbers: Mapping[str, int]
    """By digest, the number in the pixel file of each image that is not known."""
    on_images: Callable[[int, int], None]
    """Called with the number of images that are done, and of all."""

    def run(self, wanted: Sequence[Wanted], known: KnownImages) -> list[ImageFeatures]:
        """Features of all images, for each of `wanted`. Those that are known with all views are copied, not computed."""
        started = time.monotonic()
        targets = [self._allocate(item) for item in wanted]
        missing = [self._copy_known(target, item, known) for target, item in zip(targets, wanted, strict=True)]
        count, computed = sum(len(item.images) for item in wanted), sum(map(len, missing))
        done = count - computed
        for batch in self._prepared(targets, missing):
            self._compute(batch)
            batch.target.prints[batch.rows] = batch.prints
            done += len(batch.rows)
            self.on_images(done, count)
        seconds = time.monotonic() - started
        logger.info(
            "features.extracted",
            extra={"images": computed, "cached": count - computed, "engine": self.engine.name, "seconds": seconds},
        )
        return targets

    def _compute(self, batch: _Batch) -> None:
        """All views in one call, so that the engine's threads wait for each other once."""
        views, count = batch.inputs.shape[:2]
        computed = self.engine.features(batch.inputs.reshape(views * count, *batch.inputs.shape[2:]))
        targets = (batch.target.features, *batch.target.other_views.values())
        for rows, found in zip(targets, computed.reshape(views, count, -1), strict=True):
            rows[batch.rows] = found

    def _allocate(self, wanted: Wanted) -> ImageFeatures:
        count = len(wanted.images)
        shape = (count, self.engine.metadata.feature_count)
        return ImageFeatures(
            digests=[image.digest for image in wanted.images],
            sides=np.array([image.sides for image in wanted.images], dtype=np.int32).reshape(count, 2),
            features=np.empty(shape, dtype=np.float32),
            other_views={view: np.empty(shape, dtype=np.float32) for view in wanted.views},
            prints=np.empty((count, FINGERPRINT_NUMBERS), dtype=np.float16),
        )

    def _copy_known(self, target: ImageFeatures, wanted: Wanted, known: KnownImages) -> NDArray[np.intp]:
        """Returns the rows that are missing."""
        places = wanted.find(known)
        for row, place in enumerate(places):
            if place is not None:
                part, source = place
                target.features[row], target.prints[row] = part.features[source], part.prints[source]
                for view, rows in target.other_views.items():
                    rows[row] = part.other_views[view][source]
        return np.array([row for row, place in enumerate(places) if place is None], dtype=np.intp)

    def _prepared(self, targets: Sequence[ImageFeatures], missing: Sequence[NDArray[np.intp]]) -> Iterator[_Batch]:
        """The batches in order; a few are prepared ahead of the engine."""
        inputs = max(_BATCH_INPUTS, _BATCH_INPUTS_PER_THREAD * self.threads)
        batches = [
            (target, part)
            for target, rows in zip(targets, missing, strict=True)
            for part in _parts(rows, inputs // (1 + len(target.other_views)))
        ]
        ahead: deque[Future[_Batch]] = deque()
        # Two batches are enough to keep the engine busy. More threads would take its cores.
        with ThreadPoolExecutor(min(self.threads, 2), thread_name_prefix="views") as pool:
            try:
                for target, rows in batches:
                    ahead.append(pool.submit(self._prepare, target, rows))
                    if len(ahead) > 2:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _prepare(self, target: ImageFeatures, rows: NDArray[np.intp]) -> _Batch:
        images = self.pixels.read([self.numbers[target.digests[row]] for row in rows.tolist()])
        prints = fingerprints(images)
        images = _scaled(images, self.engine.metadata.preprocessing)
        inputs = np.stack([images, *(_VIEWS[view](images) for view in target.other_views)])
        return _Batch(target=target, rows=rows, inputs=inputs, prints=prints)


def _scaled(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Images uint8[N, any height, any width, 3] in the size that a network takes: a check has the pixels of another network."""
    height, width = preprocessing.height, preprocessing.width
    if images.shape[1:3] == (height, width):
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)) for image in images])


def _parts(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
