"""How much each namespace has in the store, at rest and on its way, and the quota that keeps one from filling the volume.

It is counted with every change, and looked up in the volume only when the store starts. It touches no files, and belongs to the
thread of the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ocelli_storage.layout import TENANTS

SEGMENT_BYTES = 16 * 1024
"""What each segment of a key counts beside its object's bytes: a volume has about one inode for so many, and empty objects in
folders of their own would use them up."""
_MEBIBYTE = 1024 * 1024


class QuotaExceededError(Exception):
    """A namespace has no room for what is written."""

    def __init__(self, namespace: str, quota_bytes: int, used_bytes: int, missing_bytes: int) -> None:
        super().__init__(
            f'namespace "{namespace}" has no room in the store for {missing_bytes / _MEBIBYTE:.1f} MiB more: '
            f"{used_bytes / _MEBIBYTE:.1f} MiB of its quota of {quota_bytes / _MEBIBYTE:.1f} MiB are stored or on their way; "
            "delete classifiers that are not needed any more, or ask the administrator of this installation for a larger quota"
        )


class Usage:
    """The bytes of every namespace. Without a quota nothing is counted."""

    def __init__(self, quota_bytes: int | None) -> None:
        self._quota_bytes = quota_bytes
        self._used_bytes: Counter[str] = Counter()

    def used_bytes(self, namespace: str) -> int:
        """What counts for a namespace now."""
        return self._used_bytes[namespace]

    def add(self, key: str, size_bytes: int) -> None:
        """An object is at rest, whatever the quota says."""
        self.change(key, _cost(key, size_bytes))

    def remove(self, key: str, size_bytes: int) -> None:
        """An object is at rest no more."""
        self.change(key, -_cost(key, size_bytes))

    @contextmanager
    def reserved(self, key: str, size_bytes: int) -> Iterator[Reservation]:
        """Room for an object that is on its way: for that size, or more as it grows. Raises QuotaExceededError."""
        reservation = Reservation(self, key)
        try:
            reservation.grow_to(size_bytes)
            yield reservation
        finally:
            reservation.release()

    def change(self, key: str, added_bytes: int, *, limited: bool = False) -> None:
        """Count bytes for the namespace that a key belongs to, if to any; `limited`: raises QuotaExceededError."""
        segments = key.split("/")
        if self._quota_bytes is None or segments[0] != TENANTS or len(segments) < 2:
            return
        namespace = segments[1]
        used_bytes = self._used_bytes[namespace]
        if limited and used_bytes + added_bytes > self._quota_bytes:
            raise QuotaExceededError(namespace, self._quota_bytes, used_bytes, added_bytes)
        self._used_bytes[namespace] = used_bytes + added_bytes


class Reservation:
    """Room that an object has while it is on its way."""

    def __init__(self, usage: Usage, key: str) -> None:
        self._usage = usage
        self._key = key
        self._held_bytes = 0

    def grow_to(self, size_bytes: int) -> None:
        """Have room for that size; it never shrinks. Raises QuotaExceededError."""
        missing_bytes = _cost(self._key, size_bytes) - self._held_bytes
        if missing_bytes > 0:
            self._usage.change(self._key, missing_bytes, limited=True)
            self._held_bytes += missing_bytes

    def keep(self, size_bytes: int, replaced_bytes: int | None) -> None:
        """The object came to rest with that size, in place of one of `replaced_bytes` (None: of none)."""
        self.release()
        self._usage.add(self._key, size_bytes)
        if replaced_bytes is not None:
            self._usage.remove(self._key, replaced_bytes)

    def release(self) -> None:
        """Give back what is held."""
        self._usage.change(self._key, -self._held_bytes)
        self._held_bytes = 0


def _cost(key: str, size_bytes: int) -> int:
    # The first segment is everybody's.
    return size_bytes + SEGMENT_BYTES * key.count("/")
