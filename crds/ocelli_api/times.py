"""Times as documents hold them: RFC 3339, UTC. It must not know what happened then."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(moment: datetime, *, timespec: str = "milliseconds") -> str:
    """`2026-01-02T03:04:05.678Z`; `timespec` is `seconds`, `milliseconds` or `microseconds`. Cut off, not rounded."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
