"""Texts and times that other programs wrote, made fit for where they go. It must not know what they say."""

from __future__ import annotations

import re
from datetime import datetime

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def clean_text(text: str) -> str:
    """The same text, without halves of surrogate pairs, which JSON may hold and UTF-8 cannot."""
    return _HALF_OF_A_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def usable_text(value: object, limit: int) -> str | None:
    """A text of at most so many characters; None where it is none."""
    return clean_text(value) if isinstance(value, str) and 0 < len(value) <= limit else None


def usable_time(value: object) -> str | None:
    """A time as the API server takes it (RFC 3339); None where it is none."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return None
    return value
