"""What a trainer finds in a definition that was erased from meanwhile."""

from __future__ import annotations

from ocelli_training.revision_store import find_erased_customers


def test_customers_who_were_erased_between_two_readings_are_found() -> None:
    def definition(*, erased: bool) -> dict[str, object]:
        sources = [{"upload": "1", "customer": "anna", "erased": True}, {"upload": "2", "customer": "bert", "erased": erased}]
        return {"classes": [{"name": "a", "examples": sources}]}

    assert find_erased_customers(definition(erased=False), definition(erased=True)) == {"bert"}
    assert find_erased_customers(definition(erased=True), definition(erased=True)) == frozenset()
