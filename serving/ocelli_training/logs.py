"""Log lines for people who read `kubectl logs`: time, level, a constant event, and its fields. Never images or credentials."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

_BUILT_IN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class PlainFormatter(logging.Formatter):
    """A record as one line: `2026-01-31T12:00:00.000Z INFO sources.read images=100 skipped=2`, and the traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = (f"{name}={_shown(value)}" for name, value in vars(record).items() if name not in _BUILT_IN)
        line = " ".join((time, record.levelname, record.getMessage(), *fields))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str) -> None:
    """Send every logger's lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text.isprintable() and not any(character.isspace() or character in "\"'=" for character in text)
    return text if plain and text else repr(text)
