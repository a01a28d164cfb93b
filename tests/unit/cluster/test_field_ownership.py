"""Fields that a create set are the property of the one that applies."""

from __future__ import annotations

from typing import Any

from ocelli_cluster.field_ownership import claim_created

from ocelli_api.classifier import Manifest


def make_entry(operation: str, fields: dict[str, Any], manager: str = "us", **more: str) -> Manifest:
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields, **more}


def claim(*entries: Manifest) -> list[Manifest] | None:
    return claim_created({"metadata": {"managedFields": list(entries)}}, "us")


def test_what_was_created_counts_as_applied() -> None:
    assert claim(make_entry("Update", {"f:spec": {"f:a": {}}})) == [make_entry("Apply", {"f:spec": {"f:a": {}}})]


def test_it_is_united_with_what_was_applied() -> None:
    created, applied = make_entry("Update", {"f:spec": {"f:a": {}}}), make_entry("Apply", {"f:spec": {"f:b": {}}})
    assert claim(created, applied) == [make_entry("Apply", {"f:spec": {"f:a": {}, "f:b": {}}})]


def test_fields_of_others_and_of_subresources_stay_theirs() -> None:
    others = make_entry("Update", {"f:status": {}}, "controller"), make_entry("Update", {"f:status": {}}, subresource="status")
    assert claim(*others) is None
    assert claim(*others, make_entry("Update", {})) == [*others, make_entry("Apply", {})]


def test_what_was_only_applied_needs_no_claim() -> None:
    assert claim(make_entry("Apply", {"f:spec": {}})) is None
