"""Kubernetes objects as dicts, and the form of times in them. `ocelli_local` stands alone: it has no `ocelli_api`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]


def format_time(moment: datetime, *, timespec: str = "seconds") -> str:
    """RFC 3339, UTC; `timespec` is `seconds` or `microseconds`."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
