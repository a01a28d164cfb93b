"""Log lines of the trainer."""

from __future__ import annotations

import logging

from ocelli_training.logs import PlainFormatter


def line(event: str, **fields: object) -> str:
    record = logging.makeLogRecord({"msg": event, "levelname": "INFO", "created": 0.0, **fields})
    return PlainFormatter().format(record)


def test_a_line_has_time_level_event_and_fields() -> None:
    assert line("sources.read", images=100, seconds=1.23456) == (
        "1970-01-01T00:00:00.000Z INFO sources.read images=100 seconds=1.235"
    )


def test_values_that_could_forge_a_line_are_quoted() -> None:
    assert line("read", file="a\n1970 ERROR forged").count("\n") == 0
    assert line("read", file="a b").endswith("file='a b'")
