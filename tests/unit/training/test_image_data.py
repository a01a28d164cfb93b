"""Image data: whose it is, and which customers are erased."""

from __future__ import annotations

from typing import Any

import pytest

from ocelli_storage.layout import ClassifierLocation, is_image_data
from ocelli_training.image_data import find_erased_customers, rows_by_customer

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
REVISION = "0123456789"
ANNA, BERT = "a" * 32, "b" * 32


def data_key(customer: str | None) -> str:
    return LOCATION.image_data_key(REVISION, customer, "scores")


def definition(*erased: bool) -> dict[str, Any]:
    """A definition with an erased source of Anna's, and sources of Bert's."""
    of_bert = [{"upload": "2", "customer": BERT, "erased": True} if is_erased else {"customer": BERT} for is_erased in erased]
    sources = [{"upload": "1", "customer": ANNA, "erased": True}, {"upload": "3"}, *of_bert]
    return {"classes": [{"name": "a", "examples": sources}]}


@pytest.mark.parametrize(
    ("key", "customer", "expected"),
    [
        (data_key(None), None, True),
        (data_key(ANNA), None, True),
        (data_key(ANNA), ANNA, True),
        (data_key(BERT), ANNA, False),
        (data_key(None), ANNA, False),
        (LOCATION.definition_key(REVISION), None, False),
        (LOCATION.upload_key("0" * 64), None, False),
        (LOCATION.image_data_prefix(REVISION), ANNA, False),
    ],
)
def test_which_keys_hold_data_about_images(key: str, customer: str | None, expected: bool) -> None:
    assert is_image_data(key, customer) is expected


def test_a_customer_is_erased_when_all_their_sources_are() -> None:
    assert find_erased_customers(definition(False)) == {ANNA}
    assert find_erased_customers(definition(True, False)) == {ANNA}
    assert find_erased_customers(definition(True, True)) == {ANNA, BERT}


def test_rows_of_a_customer_are_in_order() -> None:
    rows = rows_by_customer([None, ANNA, BERT, ANNA])
    assert {customer: own.tolist() for customer, own in rows.items()} == {None: [0], ANNA: [1, 3], BERT: [2]}
