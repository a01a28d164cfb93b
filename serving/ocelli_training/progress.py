"""Progress of a training: a small file in the store, rewritten every two seconds and at every stage."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from types import TracebackType

from ocelli_api.outcome import ProgressReport, Stage, TuningProgress
from ocelli_api.times import format_time
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

INTERVAL_SECONDS = 2
# The stages' shares of the duration of a training: measured and rounded, for one percentage over all stages.
# A check reaches 35: the training that uses it continues there.
_FIRST_PERCENT = {
    Stage.READING: 0,
    Stage.CHECKING: 35,
    Stage.EXTRACTING: 35,
    Stage.FITTING: 65,
    Stage.EVALUATING: 90,
    Stage.STORING: 95,
}
_FIRST_PERCENT_FINE_TUNING = {
    Stage.READING: 0,
    Stage.CHECKING: 4,
    Stage.EXTRACTING: 4,
    Stage.FITTING: 8,
    Stage.EVALUATING: 97,
    Stage.STORING: 98,
}
_LAST_PERCENT = 99
"""A running training is never at 100 %."""
_ESTIMATE_AFTER_SECONDS = 5
_ESTIMATE_FROM_PERCENT = 5

logger = logging.getLogger(__name__)


class Progress(AbstractAsyncContextManager["Progress"]):
    """Writes the progress file while it is entered. If the store does not answer, the training continues."""

    def __init__(
        self, store: ObjectStore, key: str, *, now: Callable[[], datetime], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._store = store
        self._key = key
        self._now = now
        self._interval_seconds = interval_seconds
        self._started_at = now()
        self._first_percent = _FIRST_PERCENT
        self._stage = Stage.READING
        self._part = 0.0
        self._data_valid = False
        self._images: tuple[int, int] | None = None
        self._device: str | None = None
        self._accuracy: float | None = None
        self._tuning: TuningProgress | None = None
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Progress:
        await self._write()
        self._task = asyncio.create_task(self._write_regularly())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def expect_fine_tuning(self) -> None:
        """Most of the time is the stage `Fitting`."""
        self._first_percent = _FIRST_PERCENT_FINE_TUNING

    async def begin(self, stage: Stage, *, data_valid: bool = True) -> None:
        """Enter a stage and write the file."""
        self._stage, self._part, self._data_valid, self._images, self._tuning = stage, 0.0, data_valid, None, None
        await self._write()

    def report(self, part: float) -> None:
        """Set the part of the stage that is done, 0 to 1. From any thread; smaller values than before are ignored."""
        self._part = max(self._part, min(part, 1.0))

    def report_tuning(self, tuning: TuningProgress) -> None:
        """Set how far fine-tuning is. From any thread."""
        self._tuning = tuning

    def report_images(self, done: int, total: int) -> None:
        """Set how many images of the stage are done. From any thread."""
        self._images = done, total
        self.report(done / total)

    def report_device(self, device: str) -> None:
        """Set what computes, such as `OpenVINO CPU float32`. From any thread."""
        self._device = device

    def report_accuracy(self, accuracy: float) -> None:
        """Set the balanced accuracy of the revision, 0 to 1. From any thread."""
        self._accuracy = accuracy

    def build_report(self) -> ProgressReport:
        """The contents of the file."""
        stages = list(self._first_percent)
        first = self._first_percent[self._stage]
        following = stages[stages.index(self._stage) + 1 :]
        last = self._first_percent[following[0]] if following else _LAST_PERCENT
        percent = int(first + (last - first) * self._part)
        return ProgressReport(
            stage=self._stage,
            percent=percent,
            data_valid=self._data_valid,
            estimated_completion=self._estimate(percent),
            images=None if self._images is None else self._images[0],
            images_total=None if self._images is None else self._images[1],
            device=self._device,
            accuracy=self._accuracy,
            fine_tuning=self._tuning,
        )

    def _estimate(self, percent: int) -> str | None:
        now = self._now()
        elapsed_seconds = (now - self._started_at).total_seconds()
        if elapsed_seconds < _ESTIMATE_AFTER_SECONDS or percent < _ESTIMATE_FROM_PERCENT:
            return None
        remaining = timedelta(seconds=elapsed_seconds * (100 - percent) / percent)
        return format_time(now + remaining, timespec="seconds")

    async def _write_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self._write()

    async def _write(self) -> None:
        async with self._writing:
            try:
                await self._store.put(self._key, json.dumps(self.build_report().to_json()).encode())
            except StoreUnavailableError as error:
                logger.warning("progress.not_written", extra={"error": str(error)})
