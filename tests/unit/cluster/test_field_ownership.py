"""Fields that a POST sets belong to the manager that applies afterwards."""

from __future__ import annotations

from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_cluster.field_ownership import claim_created


def make_entry(operation: str, fields: dict[str, Any], manager: str = "us", **more: str) -> Manifest:
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields, **more}


def claim(*entries: Manifest) -> list[Manifest] | None:
    return claim_created({"metadata": {"managedFields": list(entries)}}, "us")


def test_created_fields_count_as_applied() -> None:
    assert claim(make_entry("Update", {"f:spec": {"f:a": {}}})) == [make_entry("Apply", {"f:spec": {"f:a": {}}})]


def test_created_fields_are_merged_with_applied_ones() -> None:
    created, applied = make_entry("Update", {"f:spec": {"f:a": {}}}), make_entry("Apply", {"f:spec": {"f:b": {}}})
    assert claim(created, applied) == [make_entry("Apply", {"f:spec": {"f:a": {}, "f:b": {}}})]


def test_fields_of_other_managers_and_subresources_are_unchanged() -> None:
    others = make_entry("Update", {"f:status": {}}, "controller"), make_entry("Update", {"f:status": {}}, subresource="status")
    assert claim(*others) is None
    assert claim(*others, make_entry("Update", {})) == [*others, make_entry("Apply", {})]


def test_fields_that_were_only_applied_need_no_claim() -> None:
    assert claim(make_entry("Apply", {"f:spec": {}})) is None
