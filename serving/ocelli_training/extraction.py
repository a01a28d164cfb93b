"""Extraction: features and fingerprints of the images of a dataset, with all cores busy.

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

from ocelli_model.engine import Engine
from ocelli_model.preprocessing import enlarged, mirrored
from ocelli_training.feature_cache import PictureFeatures
from ocelli_training.fit import View
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS, fingerprints
from ocelli_training.pixel_file import PixelFile

VIEWS_LIMIT_IMAGES = 5000
"""With more images, only whole views are used: other views improve little then, and double time and memory."""
_VIEWS = {View.ENLARGED: enlarged, View.MIRRORED: mirrored}
_BATCH_IMAGES = 32

logger = logging.getLogger(__name__)


def wanted_views(images: int) -> tuple[View, ...]:
    """The views next to the whole that a dataset of this many images is learned with."""
    return tuple(_VIEWS) if images <= VIEWS_LIMIT_IMAGES else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Images that are ready for the engine."""

    rows: NDArray[np.intp]
    views: Mapping[View, NDArray[np.uint8]]
    """uint8[B, height, width, 3] each, the whole one included."""
    prints: NDArray[np.float16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """How images are computed."""

    engine: Engine
    pixels: PixelFile
    threads: int
    """That prepare batches, in addition to those of the engine."""
    views: tuple[View, ...]
    """In addition to the whole."""
    on_progress: Callable[[float], None]
    """Called with the part done, 0 to 1."""

    def run(self, digests: Sequence[str], numbers: Mapping[str, int], cached: PictureFeatures | None) -> PictureFeatures:
        """Features of the images with these digests, in this order.

        Args:
            digests: of N images.
            numbers: by digest, the number in the pixel file of each image that is not cached.
            cached: has the others, with all views.
        """
        started = time.monotonic()
        count = len(digests)
        features = {view: self._empty(count) for view in (View.WHOLE, *self.views)}
        prints = np.empty((count, FINGERPRINT_NUMBERS), dtype=np.float16)
        missing = np.array([row for row, digest in enumerate(digests) if digest in numbers], dtype=np.intp)
        if cached is not None:
            places = {digest: row for row, digest in enumerate(cached.digests)}
            for row, digest in enumerate(digests):
                if digest not in numbers:
                    place = places[digest]
                    features[View.WHOLE][row], prints[row] = cached.features[place], cached.prints[place]
                    for view in self.views:
                        features[view][row] = cached.other_views[view][place]
        done = count - len(missing)
        for batch in self._prepared(missing, digests, numbers):
            for view, images in batch.views.items():
                features[view][batch.rows] = self.engine.features(images)
            prints[batch.rows] = batch.prints
            done += len(batch.rows)
            self.on_progress(done / count)
        seconds = time.monotonic() - started
        logger.info(
            "features.extracted",
            extra={"images": len(missing), "cached": count - len(missing), "engine": self.engine.name, "seconds": seconds},
        )
        whole = features.pop(View.WHOLE)
        return PictureFeatures(digests=digests, features=whole, other_views=features, prints=prints)

    def _empty(self, count: int) -> NDArray[np.float32]:
        return np.empty((count, self.engine.metadata.feature_count), dtype=np.float32)

    def _prepared(self, rows: NDArray[np.intp], digests: Sequence[str], numbers: Mapping[str, int]) -> Iterator[_Batch]:
        """The batches in order; a few are prepared ahead of the engine."""
        batches = [rows[start : start + _BATCH_IMAGES] for start in range(0, len(rows), _BATCH_IMAGES)]
        ahead: deque[Future[_Batch]] = deque()
        # Two batches are enough to keep the engine busy. More threads would take its cores.
        with ThreadPoolExecutor(min(self.threads, 2), thread_name_prefix="views") as pool:
            try:
                for batch in batches:
                    ahead.append(pool.submit(self._prepare, batch, [numbers[digests[row]] for row in batch.tolist()]))
                    if len(ahead) > 2:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _prepare(self, rows: NDArray[np.intp], numbers: Sequence[int]) -> _Batch:
        images = self.pixels.read(numbers)
        views = {View.WHOLE: images, **{view: _VIEWS[view](images) for view in self.views}}
        return _Batch(rows=rows, views=views, prints=fingerprints(images))
