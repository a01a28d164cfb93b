"""Log lines: one JSON object each, a constant event with its fields; never a line per unchanged pass."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_BUILT_IN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "k8s_ref", "k8s_skip", "settings"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, event, what was passed as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        document.update({name: value for name, value in vars(record).items() if name not in _BUILT_IN})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send every logger's lines to standard error; kopf's own lines, and one for each probe, only at DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if level != "DEBUG":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
