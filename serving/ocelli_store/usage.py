"""The bytes that each namespace uses, including writes in progress, and the quota that keeps one from filling the volume.

Usage is updated with every change, and read from the volume only when the store starts. This module accesses no files, and
belongs to the thread of the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ocelli_storage.layout import TENANTS

SEGMENT_BYTES = 16 * 1024
"""Counted for each segment of a key, in addition to its object's bytes. A volume has about one inode for this many bytes, and
empty objects in their own folders would use up all inodes."""
_MEBIBYTE = 1024 * 1024


class QuotaExceededError(Exception):
    """The quota of a namespace is exceeded."""

    def __init__(self, namespace: str, quota_bytes: int, used_bytes: int, missing_bytes: int) -> None:
        super().__init__(
            f'namespace "{namespace}" exceeds its quota in the store: {used_bytes / _MEBIBYTE:.1f} MiB of '
            f"{quota_bytes / _MEBIBYTE:.1f} MiB are used, and {missing_bytes / _MEBIBYTE:.1f} MiB more are needed; "
            "delete classifiers that are no longer needed, or ask the administrator of this installation for a larger quota"
        )


class Usage:
    """The used bytes of every namespace. Without a quota nothing is counted."""

    def __init__(self, quota_bytes: int | None) -> None:
        self._quota_bytes = quota_bytes
        self._used_bytes: Counter[str] = Counter()

    def used_bytes(self, namespace: str) -> int:
        """The bytes that count for a namespace now."""
        return self._used_bytes[namespace]

    def add(self, key: str, size_bytes: int) -> None:
        """Count a stored object, without checking the quota."""
        self.change(key, _cost(key, size_bytes))

    def remove(self, key: str, size_bytes: int) -> None:
        """Stop counting an object that was deleted."""
        self.change(key, -_cost(key, size_bytes))

    @contextmanager
    def reserved(self, key: str, size_bytes: int) -> Iterator[Reservation]:
        """Reserve quota for an object that is being written, for this size or more as it grows. Raises QuotaExceededError."""
        reservation = Reservation(self, key)
        try:
            reservation.grow_to(size_bytes)
            yield reservation
        finally:
            reservation.release()

    def change(self, key: str, added_bytes: int, *, limited: bool = False) -> None:
        """Count bytes for the namespace of a key, if it has one. If `limited`, raises QuotaExceededError."""
        segments = key.split("/")
        if self._quota_bytes is None or segments[0] != TENANTS or len(segments) < 2:
            return
        namespace = segments[1]
        used_bytes = self._used_bytes[namespace]
        if limited and used_bytes + added_bytes > self._quota_bytes:
            raise QuotaExceededError(namespace, self._quota_bytes, used_bytes, added_bytes)
        self._used_bytes[namespace] = used_bytes + added_bytes


class Reservation:
    """Quota that is reserved for an object while it is being written."""

    def __init__(self, usage: Usage, key: str) -> None:
        self._usage = usage
        self._key = key
        self._held_bytes = 0

    def grow_to(self, size_bytes: int) -> None:
        """Reserve quota for this size. It never shrinks. Raises QuotaExceededError."""
        missing_bytes = _cost(self._key, size_bytes) - self._held_bytes
        if missing_bytes > 0:
            self._usage.change(self._key, missing_bytes, limited=True)
            self._held_bytes += missing_bytes

    def keep(self, size_bytes: int, replaced_bytes: int | None) -> None:
        """The object was stored with this size, and replaced one of `replaced_bytes` (None: there was none)."""
        self.release()
        self._usage.add(self._key, size_bytes)
        if replaced_bytes is not None:
            self._usage.remove(self._key, replaced_bytes)

    def release(self) -> None:
        """Release the reserved quota."""
        self._usage.change(self._key, -self._held_bytes)
        self._held_bytes = 0


def _cost(key: str, size_bytes: int) -> int:
    # All namespaces share the first segment.
    return size_bytes + SEGMENT_BYTES * key.count("/")
