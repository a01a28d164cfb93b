import json
import logging
import sys
from typing import Any

from ocelli_api.log_lines import JsonFormatter


def parse_line(event: str, **fields: object) -> dict[str, Any]:
    record = logging.makeLogRecord({"msg": event, "levelname": "INFO", "name": "ocelli", "created": 0.0, **fields})
    line = JsonFormatter().format(record)
    assert line.count("\n") == 0
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_line_has_time_level_logger_event_and_fields() -> None:
    assert parse_line("sources.read", images=100, seconds=1.5) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "logger": "ocelli",
        "event": "sources.read",
        "images": 100,
        "seconds": 1.5,
    }


def test_a_value_cannot_forge_a_line() -> None:
    assert parse_line("read", file="a\n1970 ERROR forged")["file"] == "a\n1970 ERROR forged"


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ZeroDivisionError("of nothing")
    except ZeroDivisionError:
        document = parse_line("failed", exc_info=sys.exc_info())

    assert "ZeroDivisionError: of nothing" in document["traceback"]


def test_a_value_that_is_not_json_is_shown_as_text() -> None:
    assert parse_line("failed", error=ValueError("two"))["error"] == "two"


def test_attributes_of_library_formatters_are_left_out() -> None:
    assert "color_message" not in parse_line("started", color_message="\x1b[36mstarted")
