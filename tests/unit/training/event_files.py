"""Reads event files as TensorBoard does: records with a length, each a message."""

from __future__ import annotations

import struct
from typing import Any

from tensorboardX.proto.event_pb2 import Event

Curves = dict[str, dict[int, float]]
"""By tag, then by epoch."""


def read_events(data: bytes) -> list[Any]:
    """All messages of a file; a file that is cut off, or repeats an epoch, is an error."""
    events: list[Any] = []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        start = struct.calcsize("<QI")
        assert len(data) >= start + length + 4
        events.append(Event.FromString(data[start : start + length]))
        data = data[start + length + 4 :]
    return events


def read_curves(data: bytes) -> Curves:
    """The values of a file."""
    first, *events = read_events(data)
    assert first.file_version == "brain.Event:2"
    curves: Curves = {}
    for event in events:
        for value in event.summary.value:
            assert event.step not in curves.setdefault(value.tag, {})
            curves[value.tag][event.step] = value.simple_value
    return curves
