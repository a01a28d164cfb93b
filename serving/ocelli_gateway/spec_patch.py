"""The merge patch (RFC 7386) that turns one spec into another. Pure."""

from __future__ import annotations

from typing import Any

from ocelli_api.classifier import ClassifierSpec, Manifest
from ocelli_api.documents import build_document


def build_spec_patch(before: ClassifierSpec, after: ClassifierSpec) -> Manifest:
    """Only what differs: fields that this release does not know, and those of others, stay as they are."""
    documents = [build_document(spec, omit_defaults=True) for spec in (before, after)]
    return {"spec": _compare(*documents)}


def _compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for key in (*before, *(key for key in after if key not in before)):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if old != new:
                patch[key] = _compare(old, new)
        elif old != new:
            # None removes the field, and so restores its default.
            patch[key] = new
    return patch
