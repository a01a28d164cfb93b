"""Dynamic batching: the backbone processes images of several requests together.

A few threads decode images while one thread runs the backbone. Large images have their own threads, so that small ones never
wait for them. A batch is started when it is full, when no other image is being decoded, or when its oldest image has waited
until the deadline. So a single image never waits, and under load the next batch fills while the backbone is busy. This module
must not know HTTP or classes: it returns features, for any number of heads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocelli_inference.metrics import Metrics

_log = logging.getLogger(__name__)


class PendingImage(Protocol):
    """An opened image."""

    @property
    def is_large(self) -> bool:
        """Whether decoding it takes long."""
        ...

    def decode(self) -> NDArray[np.uint8]:
        """uint8[H, W, 3]; once, in any thread."""
        ...


class BatcherClosedError(Exception):
    """The batcher accepts no more images."""


class BatchFailedError(Exception):
    """The backbone failed on a batch."""


@dataclass(frozen=True, kw_only=True)
class BatchRules:
    """When a batch is started."""

    limit_images: int = 8
    wait_seconds: float = 0.005
    """The maximum time that a decoded image waits for others that are being decoded while the backbone is idle."""


@dataclass(eq=False, kw_only=True)
class _Decoded:
    image: NDArray[np.uint8]
    features: asyncio.Future[NDArray[np.float32]]
    decoded_at: float


class FeatureBatcher:
    """Image files in, features out. Belongs to one event loop; use it as an asynchronous context manager."""

    def __init__(
        self,
        *,
        open_image: Callable[[bytes], PendingImage],
        compute_features: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        decode_threads: int,
        rules: BatchRules,
        metrics: Metrics,
    ) -> None:
        """`open_image` is called in any number of threads.

        `compute_features` runs the backbone: images of shape [N, H, W, 3] to features of shape [N, D], where each row depends
        only on its own image.
        """
        self._open_image = open_image
        self._compute_features = compute_features
        self._rules = rules
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._large_decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode-large")
        self._backbone = ThreadPoolExecutor(1, thread_name_prefix="backbone")
        self._decoding = 0
        self._decoded: deque[_Decoded] = deque()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FeatureBatcher:
        self._worker = asyncio.create_task(self._run(), name="batches")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop immediately: waiting callers get BatcherClosedError."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.wait([worker])
        _fail(self._decoded, BatcherClosedError)
        self._decoded.clear()
        for decoders in (self._decoders, self._large_decoders):
            decoders.shutdown(wait=False, cancel_futures=True)
        self._backbone.shutdown(wait=False, cancel_futures=True)

    async def features(self, data: bytes) -> NDArray[np.float32]:
        """Features of shape [D] of an image file. Cancelling the call removes the image from the queue.

        Raises:
            BatcherClosedError, BatchFailedError, and what the decoder raises.
        """
        image = await self._decode_one(data)
        if self._worker is None:
            raise BatcherClosedError
        loop = asyncio.get_running_loop()
        item = _Decoded(image=image, features=loop.create_future(), decoded_at=loop.time())
        self._decoded.append(item)
        self._changed.set()
        try:
            return await item.features
        finally:
            if item.features.cancelled() and item in self._decoded:
                self._decoded.remove(item)

    async def _decode_one(self, data: bytes) -> NDArray[np.uint8]:
        if self._worker is None:
            raise BatcherClosedError
        self._decoding += 1
        try:
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(self._decoders, self._decode_small, data)
            if isinstance(image, np.ndarray):
                return image
            return await loop.run_in_executor(self._large_decoders, self._timed_decode, image)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._worker is None and task is not None and not task.cancelling():
                raise BatcherClosedError from None  # the pool dropped a job; the caller was not cancelled
            raise
        finally:
            self._decoding -= 1
            # The next batch may wait for this, also if the image could not be decoded.
            self._changed.set()

    def _decode_small(self, data: bytes) -> NDArray[np.uint8] | PendingImage:
        image = self._open_image(data)
        return image if image.is_large else self._timed_decode(image)

    def _timed_decode(self, image: PendingImage) -> NDArray[np.uint8]:
        started = time.perf_counter()
        decoded = image.decode()
        self._metrics.decode_seconds.observe(time.perf_counter() - started)
        return decoded

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            try:
                features = await loop.run_in_executor(self._backbone, self._timed_features, [item.image for item in batch])
            except asyncio.CancelledError:
                _fail(batch, BatcherClosedError)
                raise
            except Exception:
                _log.exception("the backbone failed", extra={"batch_images": len(batch)})
                message = f"the backbone failed on a batch of {len(batch)} images; see the log of the server"
                _fail(batch, partial(BatchFailedError, message))
            else:
                for item, row in zip(batch, features, strict=True):
                    if not item.features.done():
                        item.features.set_result(row)

    def _timed_features(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        started = time.perf_counter()
        features = self._compute_features(np.stack(images))
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_images.observe(len(images))
        return features

    async def _next_batch(self) -> list[_Decoded]:
        loop = asyncio.get_running_loop()
        while not self._batch_is_due(loop.time()):
            self._changed.clear()
            try:
                deadline = self._decoded[0].decoded_at + self._rules.wait_seconds if self._decoded else None
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                pass
        size = min(len(self._decoded), self._rules.limit_images)
        return [self._decoded.popleft() for _ in range(size)]

    def _batch_is_due(self, now: float) -> bool:
        if not self._decoded:
            return False
        if len(self._decoded) >= self._rules.limit_images or self._decoding == 0:
            return True
        return now >= self._decoded[0].decoded_at + self._rules.wait_seconds


def _fail(batch: Iterable[_Decoded], build_error: Callable[[], Exception]) -> None:
    for item in batch:
        if not item.features.done():
            # A new error for each: raising one extends its traceback.
            item.features.set_exception(build_error())
