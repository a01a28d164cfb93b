"""Who owns the fields of an object that was created by POST and is applied from then on. Pure.

What a create sets belongs to a manager that updates, and stays when a later apply by the same name leaves it out. So it is made
the property of the one that applies first, as kubectl does when it moves on to server-side apply.
"""

from __future__ import annotations

from typing import Any

from ocelli_api.classifier import Manifest


def claim_created(manifest: Manifest, field_manager: str) -> list[Manifest] | None:
    """`metadata.managedFields` in which what the manager created counts as applied; None where they are like that already."""
    kept: list[Manifest] = []
    created: list[Manifest] = []
    applied: Manifest | None = None
    for entry in manifest["metadata"].get("managedFields") or ():
        own = entry.get("manager") == field_manager and not entry.get("subresource")
        if own and entry.get("operation") == "Update":
            created.append(entry)
        elif own and entry.get("operation") == "Apply":
            applied = entry
        else:
            kept.append(entry)
    if not created:
        return None
    claimed = {**created[0], **(applied or {}), "operation": "Apply"}
    for entry in created:
        claimed["fieldsV1"] = _unite(claimed.get("fieldsV1") or {}, entry.get("fieldsV1") or {})
    return [*kept, claimed]


def _unite(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**one, **{key: _unite(one.get(key, {}), value) for key, value in other.items()}}
