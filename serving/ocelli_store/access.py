"""Who may do what: pure. The namespace of a ServiceAccount is the tenant.

An administrator (operator, gateway) may do everything. Any other ServiceAccount reads and writes `tenants/<its namespace>/` and
reads `backbones/`; with a token for reading it only reads.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from ocelli_storage.layout import BACKBONES, TENANTS

KEY_LIMIT_BYTES = 1024
"""As buckets have it."""
SEGMENT_LIMIT_BYTES = 255
"""As file names have it."""

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
    return segments[:2] == [TENANTS, service_account[1]]
