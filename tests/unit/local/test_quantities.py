"""Kubernetes quantities."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ocelli_local.process_node.quantities import divide_rounding_up, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        (2, 2),
        ("500m", Fraction(1, 2)),
        ("1.5Gi", 1610612736),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1E3", 1000),
        (".5", Fraction(1, 2)),
    ],
)
def test_quantity_has_its_exact_value(text: str | int, value: Fraction | int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1KiB", "one"])
def test_text_that_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


def test_division_rounds_up() -> None:
    assert divide_rounding_up(Fraction(3, 2), Fraction(1)) == 2
