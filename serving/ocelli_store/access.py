"""Who may access which keys. The namespace of a ServiceAccount is the tenant.

An administrator (operator, gateway) may do everything. Any other ServiceAccount may read `tenants/<its namespace>/` and
`backbones/`, and may write what trainers write: trainings, artifacts and copies of sources of classifiers in its namespace. The
sweep would not find anything else, and uploads belong to the gateway. A token for reading does not permit writing.

This module is pure: it must not know tokens, files or objects.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from ocelli_storage.layout import ARTIFACTS, BACKBONES, INSTALLATION, KINDS, ORPHANS, SOURCES, TENANTS, TRAININGS

KEY_LIMIT_BYTES = 1024
"""The limit of buckets."""
SEGMENT_LIMIT_BYTES = 255
"""The limit of file names."""

_FEWEST_SEGMENTS = {TRAININGS: 7, ARTIFACTS: 6, SOURCES: 5}
"""The minimum length of the keys that trainers write, see `ocelli_storage.layout`: shorter ones are folders of a revision."""
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):[a-z0-9.-]+")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The owner of a token, according to the API server."""

    user_name: str
    may_write: bool
    """Whether the token's audience permits writing."""


def is_key(text: str) -> bool:
    """Whether a text is a valid key or prefix: segments between single slashes, none of them `.` or `..`."""
    if not text or len(text.encode("utf-8", "surrogatepass")) > KEY_LIMIT_BYTES or not text.isprintable() or "\\" in text:
        return False
    return all(segment not in ("", ".", "..") and len(segment.encode()) <= SEGMENT_LIMIT_BYTES for segment in text.split("/"))


def is_folder_of_layout(key: str) -> bool:
    """Whether the layout has a folder at a key. An object there would prevent all objects below it."""
    match key.split("/"):
        case [top]:
            return top in (TENANTS, BACKBONES, INSTALLATION)
        case [top, second]:
            return top == TENANTS or (top, second) == (INSTALLATION, ORPHANS)
        case [top, _namespace, kind] | [top, _namespace, kind, _]:
            return top == TENANTS and kind in KINDS
    return False


def is_permitted(caller: Caller, administrators: Set[str], key: str, *, writing: bool) -> bool:
    """Whether the caller may read or write an object, or all objects below a prefix."""
    if writing and not caller.may_write:
        return False
    if caller.user_name in administrators:
        return True
    service_account = _SERVICE_ACCOUNT.fullmatch(caller.user_name)
    if service_account is None:
        return False
    segments = key.split("/")
    if segments[0] == BACKBONES:
        return not writing
    if segments[:2] != [TENANTS, service_account[1]]:
        return False
    if not writing:
        return True
    fewest = _FEWEST_SEGMENTS.get(segments[2]) if len(segments) > 2 else None
    return fewest is not None and len(segments) >= fewest
