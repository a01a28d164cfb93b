"""Kubernetes quantities: "500m", "2Gi", "1e3"."""

from __future__ import annotations

import math
import re
from fractions import Fraction

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$")


def parse_quantity(text: str | int | float) -> Fraction:
    """The exact value; raises ValueError for a text that Kubernetes would refuse."""
    match = QUANTITY.match(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, exponent, suffix = match.groups()
    if exponent is not None:
        return Fraction(number) * Fraction(10) ** int(exponent)
    return Fraction(number) * SUFFIXES[suffix or ""]


def divide_rounding_up(value: Fraction, divisor: Fraction) -> int:
    """The value in units of its divisor, rounded up as in `resourceFieldRef`."""
    return math.ceil(value / divisor)
