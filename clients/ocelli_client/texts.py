"""Counts and lists of names in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shorten(names: Sequence[str], shown: int = 3) -> str:
    """The first names of a list, and the number of the others: `a, b, c and 4 more`."""
    listed = ", ".join(names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"
