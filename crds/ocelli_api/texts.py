"""Checks of texts, numbers and times that other programs wrote. It must not know what they mean."""

from __future__ import annotations

import re
from datetime import datetime

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def clean_text(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can contain but UTF-8 cannot."""
    return _HALF_OF_A_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def usable_text(value: object, limit: int) -> str | None:
    """The value if it is a text of 1 to `limit` characters, otherwise None."""
    return clean_text(value) if isinstance(value, str) and 0 < len(value) <= limit else None


def usable_number(value: object) -> int | float | None:
    """The value if it is a number, otherwise None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def usable_count(value: object, limit: int) -> int | None:
    """The value if it is a whole number from 0 to `limit`, otherwise None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit else None


def usable_share(value: object) -> float | None:
    """The value if it is a number from 0 to 1, otherwise None."""
    number = usable_number(value)
    return float(number) if number is not None and 0 <= number <= 1 else None


def usable_time(value: object) -> str | None:
    """The value if it is a time that the API server accepts (RFC 3339), otherwise None."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return None
    return value
