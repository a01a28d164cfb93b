"""Curves of fine-tuning for TensorBoard: loss, accuracy and learning rate by epoch, one event file for each network.

A file is written as a whole after each epoch, from the state of the run. A training that continues from a checkpoint thus
continues its curves, without gaps and without doubles. Images, their names and their scores are not in them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_storage.object_store import ObjectStore, ObjectStoreError

FILE = "events.out.tfevents.ocelli"
"""TensorBoard reads files whose names contain `tfevents`."""
_FILE_VERSION = "brain.Event:2"
"""What an event file begins with."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One epoch of a run. None: it has no such value."""

    epoch: int
    """0: the linear heads, before the first epoch."""
    at: float
    """When it ended, Unix time in seconds."""
    learning_rate: float | None = None
    """Of the last layer, in its last step."""
    training_loss: float | None = None
    """Mean of the augmented images that it learned from, while it learned."""
    loss: float | None = None
    """Mean of the images that choose the epoch, afterwards; of the averaged weights."""
    accuracy: float | None = None
    """The share of these images that is right."""

    def values(self) -> dict[str, float]:
        """Those that it has, by tag."""
        tags = {
            "loss/training": self.training_loss,
            "loss/validation": self.loss,
            "accuracy/validation": self.accuracy,
            "learning_rate": self.learning_rate,
        }
        return {tag: value for tag, value in tags.items() if value is not None}


class CurveStore:
    """The curves of one revision. Its methods block, and are called from a thread other than the event loop's.

    If the store does not answer, or has no room, the training continues without.
    """

    def __init__(self, *, store: ObjectStore, prefix: str, scratch: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._prefix, self._scratch, self._loop = store, prefix, scratch, loop

    def clear(self) -> None:
        """Delete the curves of an attempt that the training does not continue."""
        self._wait(self._store.delete_prefix(self._prefix))

    def save(self, network: int, points: Sequence[CurvePoint]) -> None:
        """Write the curves of a network, which are numbered from 1, from its first epoch on."""
        path = self._scratch / FILE
        try:
            write_events(path, points)
            self._wait(self._store.put(f"{self._prefix}/network-{network}/{FILE}", path))
        finally:
            path.unlink(missing_ok=True)

    def _wait(self, task: Coroutine[Any, Any, Any]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(task, self._loop).result()
        except ObjectStoreError as error:
            logger.warning("curves.not_stored", extra={"error": str(error)})


def write_events(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write an event file. The same points give the same bytes."""
    # Imported on demand: only fine-tuning needs it.
    from tensorboardX import RecordWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    events = [Event(wall_time=points[0].at, file_version=_FILE_VERSION)]
    for point in points:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in point.values().items()]
        if values:
            events.append(Event(wall_time=point.at, step=point.epoch, summary=Summary(value=values)))
    writer = RecordWriter(str(path))
    for event in events:
        writer.write(event.SerializeToString())
    writer.close()
