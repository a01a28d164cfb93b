"""The stream of changes: how it is asked for, and how its lines become events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ocelli_client.api import EVENTS
from ocelli_client.cards import Card

# The gateway sends a comment every 15 s.
SILENCE_SECONDS = 45.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event: `ready` at the start, `classifier` with its card, `deleted`, or `expired` at the end of the token."""

    kind: str
    data: Mapping[str, Any]

    @property
    def card(self) -> Card | None:
        """The classifier that has changed."""
        return Card.parse(self.data) if self.kind == "classifier" else None


def build_event_request(classifier_id: str | None) -> dict[str, Any]:
    """The request, as httpx takes it."""
    return {
        "method": "GET",
        "url": EVENTS,
        "params": {} if classifier_id is None else {"classifier_id": classifier_id},
        "headers": {"Accept": "text/event-stream"},
        "timeout": httpx.Timeout(10.0, read=SILENCE_SECONDS),
    }


@dataclass(kw_only=True)
class EventReader:
    """Puts lines together into events."""

    _kind: str = "message"
    _data: list[str] = field(default_factory=list)

    def read_line(self, line: str) -> Iterator[Event]:
        """The event that this line completes, if it does."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if self._data:
                yield Event(kind=self._kind, data=json.loads("\n".join(self._data)))
            self._kind, self._data = "message", []
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
