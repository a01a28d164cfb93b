"""Log lines of all programs: one JSON object each, a constant event with its fields. Never images or credentials."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from ocelli_api.times import format_time

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

# Attributes of all records, and those that uvicorn and kopf add for their own formatters.
_NOT_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "k8s_ref",
    "k8s_skip",
    "settings",
}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, event, the fields of `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        document.update({name: value for name, value in vars(record).items() if name not in _NOT_FIELDS})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def configure_logging(level: str, *, talkative: tuple[str, ...] = ()) -> None:
    """Send the lines of all loggers, and Python's warnings, to standard error.

    Libraries in `talkative` are limited to WARNING, except at level DEBUG.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in talkative:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else logging.WARNING)
