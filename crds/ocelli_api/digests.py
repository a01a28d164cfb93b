"""The form of the digests that identify images, zips, artifacts and backbones."""

from __future__ import annotations

import re
from typing import TypeGuard

DIGEST_PATTERN = "[0-9a-f]{64}"
"""Of a SHA-256, as all of Ocelli writes it."""
_DIGEST = re.compile(DIGEST_PATTERN)


def is_digest(value: object) -> TypeGuard[str]:
    """Whether it is a SHA-256 of 64 lower-case hex digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
