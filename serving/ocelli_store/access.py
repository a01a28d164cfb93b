"""Who may do what. The namespace of a ServiceAccount is the tenant.

An administrator (operator, gateway) may do everything. Any other ServiceAccount reads `tenants/<its namespace>/` and
`backbones/`, and writes what trainers write: trainings and artifacts of classifiers of its namespace. What lies elsewhere no
sweep would find, and uploads are the gateway's. With a token for reading it only reads.

It is pure: it knows names, and nothing of tokens, of files and of what lies under a key.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from ocelli_storage.layout import ARTIFACTS, BACKBONES, INSTALLATION, KINDS, ORPHANS, TENANTS, TRAININGS

KEY_LIMIT_BYTES = 1024
"""As buckets have it."""
SEGMENT_LIMIT_BYTES = 255
"""As file names have it."""

_FEWEST_SEGMENTS = {TRAININGS: 7, ARTIFACTS: 6}
"""Of the keys that trainers write, see `ocelli_storage.layout`: fewer would make a file of a revision's folder."""
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):[a-z0-9.-]+")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whom a token belongs to, as the API server says."""

    user_name: str
    may_write: bool
    """Whether the token was made for writing too."""


def is_key(text: str) -> bool:
    """Whether a text is a key or a prefix: segments between single slashes, none of which leads elsewhere."""
    if not text or len(text.encode("utf-8", "surrogatepass")) > KEY_LIMIT_BYTES or not text.isprintable() or "\\" in text:
        return False
    return all(segment not in ("", ".", "..") and len(segment.encode()) <= SEGMENT_LIMIT_BYTES for segment in text.split("/"))


def is_place_of_folder(key: str) -> bool:
    """Whether the layout has a folder under a key: an object there would keep all others from being stored below it."""
    match key.split("/"):
        case [top]:
            return top in (TENANTS, BACKBONES, INSTALLATION)
        case [top, second]:
            return top == TENANTS or (top, second) == (INSTALLATION, ORPHANS)
        case [top, _namespace, kind] | [top, _namespace, kind, _]:
            return top == TENANTS and kind in KINDS
    return False


def is_permitted(caller: Caller, administrators: Set[str], key: str, *, writing: bool) -> bool:
    """Whether the caller may read or write what lies under a key, or below a prefix."""
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
