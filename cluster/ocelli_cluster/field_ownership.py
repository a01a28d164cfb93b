"""Field ownership of an object that is created by POST and applied afterwards. Pure.

Fields that a POST sets belong to an `Update` manager, so they stay when a later apply of the same manager omits them. So before
the first apply they are assigned to the `Apply` manager, as kubectl does when it migrates to server-side apply.
"""

from __future__ import annotations

from typing import Any

from ocelli_api.classifier import Manifest


def claim_created(manifest: Manifest, field_manager: str) -> list[Manifest] | None:
    """`metadata.managedFields` with the fields that the manager created counted as applied; None: nothing to change."""
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
