"""Kubernetes quantities."""

from decimal import Decimal

import pytest

from ocelli_api.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5368709120", 5 * 1024**3),
        ("5Gi", 5 * 1024**3),
        ("1.5Ki", 1536),
        ("2G", 2 * 10**9),
        ("500m", Decimal("0.5")),
        (".5k", 500),
    ],
)
def test_a_quantity_has_its_exact_value(text: str, value: Decimal | int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "5 Gi", "5GiB", "-1", "five", "1e999999999"])
def test_an_invalid_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)
