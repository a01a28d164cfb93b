"""Kubernetes quantities: "500m", "2Gi". Pure."""

from __future__ import annotations

import re
from decimal import Decimal

# Exponents ("1e3") are not supported: they are rare, and "1e999999999" would take long to compute.
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|)")
_UNITS = {
    "": Decimal(1),
    **{unit: Decimal(10) ** (3 * power) for power, unit in ((-3, "n"), (-2, "u"), (-1, "m"), (1, "k"), (2, "M"), (3, "G"))},
    **{unit: Decimal(10) ** (3 * power) for power, unit in ((4, "T"), (5, "P"), (6, "E"))},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """The value of a quantity. Raises ValueError if the text is not a quantity."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    return Decimal(match[1]) * _UNITS[match[2]]
