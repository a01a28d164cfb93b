"""Log lines: one JSON object each, a constant event with its fields. Never images, credentials or query strings."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_BUILT_IN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


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
        return json.dumps(document, default=str)


def configure_logging(level: str) -> None:
    """Send every logger's lines to standard error; uvicorn's own start and stop lines only at DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # A client that breaks off is no news of the multipart parser's, and uvicorn says nothing that the access log does not.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    if level != "DEBUG":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
