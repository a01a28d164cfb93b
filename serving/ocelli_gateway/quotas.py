"""Quotas: how much one tenant may have and how fast it may send, so that no tenant can exhaust shared resources.

A tenant is a namespace. Classifiers and stored bytes are counted in cluster and store, so every replica gets the same number;
each replica counts rates for itself. It must not know HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from ocelli_api.documents import build_document
from ocelli_gateway.refusals import TooLargeError, TooManyRequestsError
from ocelli_storage.archives import MEGABYTE

QUOTA_LIMIT = 10**9
_KEYS = {
    "classifiers": "classifiers",
    "stored_megabytes": "storedMegabytes",
    "upload_megabytes_per_hour": "uploadMegabytesPerHour",
    "requests_per_second": "requestsPerSecond",
}


class QuotaValueError(Exception):
    """A quota is not valid. The message is the end of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """The limits of a tenant; None: the installation's quota applies; 0: no limit."""

    classifiers: int | None = None
    stored_megabytes: int | None = None
    """Of uploaded examples."""
    upload_megabytes_per_hour: int | None = None
    requests_per_second: int | None = None

    @classmethod
    def parse(cls, document: object) -> Quota:
        """Type the `quota` of a credential set.

        Raises:
            QuotaValueError: it is not valid.
        """
        if document is None:
            return cls()
        if not isinstance(document, Mapping):
            raise QuotaValueError("is not a JSON object")
        unknown = sorted(set(map(str, document)) - set(_KEYS.values()))
        if unknown:
            raise QuotaValueError(f"has the unknown key {unknown[0]!r}; use {', '.join(_KEYS.values())}")
        values: dict[str, int] = {}
        for name, key in _KEYS.items():
            value = document.get(key)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= QUOTA_LIMIT:
                raise QuotaValueError(f"has {value!r} as {key}; give a whole number from 0 (no limit) to {QUOTA_LIMIT}")
            values[name] = value
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The document in a credential set, without unset values."""
        return build_document(self)

    def over(self, installation: Quota) -> Quota:
        """This quota with unset values from the installation's."""
        unset = [item.name for item in fields(self) if getattr(self, item.name) is None]
        return replace(self, **{name: getattr(installation, name) for name in unset})


NO_QUOTA = Quota()


@dataclass(kw_only=True)
class _Bucket:
    """The rest of a tenant's allowance at a moment."""

    level: float
    updated_at: float


class Rates:
    """Token buckets: the allowance of each tenant refills continuously, up to the amount of `period_seconds`."""

    def __init__(self, *, period_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period_seconds = period_seconds
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, tenant: str, amount: float, limit: float) -> float:
        """Take an amount. Returns 0, or the seconds until it can be taken: then nothing was. `limit` is the amount of a period.

        An amount above the limit is taken when the allowance is full.
        """
        bucket = self._fill(tenant, limit)
        missing = min(amount, limit) - bucket.level
        if missing > 0:
            return missing * self._period_seconds / limit
        bucket.level -= amount
        return 0.0

    def reserve(self, tenant: str, most: float, limit: float) -> tuple[float, float]:
        """Take the rest, up to `most`, for an amount that is not known yet. Returns the amount taken, and 0.

        Where nothing is left it returns 0, and the seconds until there is an allowance again.
        """
        bucket = self._fill(tenant, limit)
        reserved = min(most, bucket.level)
        if reserved <= 0:
            return 0.0, max(1.0, -bucket.level * self._period_seconds / limit)
        bucket.level -= reserved
        return reserved, 0.0

    def give_back(self, tenant: str, amount: float, limit: float) -> None:
        """Return a part of an amount that was taken; a negative amount takes more, even below zero."""
        bucket = self._buckets.get(tenant)
        if bucket is not None:
            bucket.level = min(limit, bucket.level + amount)

    def _fill(self, tenant: str, limit: float) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(tenant, _Bucket(level=limit, updated_at=now))
        bucket.level = min(limit, bucket.level + (now - bucket.updated_at) * limit / self._period_seconds)
        bucket.updated_at = now
        return bucket


class RateQuotas:
    """The quotas that are rates, for all tenants of this replica."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests = Rates(period_seconds=1.0, clock=clock)
        self._uploads = Rates(period_seconds=3600.0, clock=clock)

    def count_request(self, tenant: str, quota: Quota) -> None:
        """Raises TooManyRequestsError where the tenant sends too many."""
        limit = quota.requests_per_second
        if not limit:
            return
        wait_seconds = self._requests.spend(tenant, 1, limit)
        if wait_seconds:
            raise TooManyRequestsError(
                f"The quota of requests is used up: {limit} per second; try again.", retry_after_seconds=_whole(wait_seconds)
            )

    @contextmanager
    def counting_upload(
        self, tenant: str, quota: Quota, declared_bytes: int | None, *, limit_bytes: int, received_bytes: Callable[[], int]
    ) -> Iterator[None]:
        """Count an upload while it is received: its declared length, or else the bytes that were received in the end.

        `limit_bytes` is the greatest length of an upload. Raises TooManyRequestsError where the quota is used up.
        """
        quota_bytes = (quota.upload_megabytes_per_hour or 0) * MEGABYTE
        if not quota_bytes:
            yield
            return
        if declared_bytes is None:
            reserved_bytes, wait_seconds = self._uploads.reserve(tenant, limit_bytes, quota_bytes)
        else:
            reserved_bytes, wait_seconds = declared_bytes, self._uploads.spend(tenant, declared_bytes, quota_bytes)
        if wait_seconds:
            size = "" if declared_bytes is None else f"; this one has {declared_bytes / MEGABYTE:.1f} MB"
            raise TooManyRequestsError(
                f"The quota of uploads is used up: {quota.upload_megabytes_per_hour} MB per hour{size}. "
                f"Try again in {_whole(wait_seconds)} seconds.",
                retry_after_seconds=_whole(wait_seconds),
            )
        try:
            yield
        finally:
            if declared_bytes is None:
                self._uploads.give_back(tenant, reserved_bytes - received_bytes(), quota_bytes)


def check_classifiers(quota: Quota, count: int) -> None:
    """Raises TooManyRequestsError where a tenant with this number of classifiers may not create another."""
    limit = quota.classifiers
    if limit and count >= limit:
        raise TooManyRequestsError(
            f"The quota of classifiers is used up: {count} of {limit}; delete one that you no longer need.",
            retry_after_seconds=None,
        )


def check_stored(quota: Quota, stored_bytes: int, added_bytes: int) -> None:
    """Raises TooLargeError where a tenant with this number of stored bytes may not add these."""
    limit = quota.stored_megabytes
    if limit and stored_bytes + added_bytes > limit * MEGABYTE:
        raise TooLargeError(
            f"The quota of stored examples would be exceeded: {stored_bytes / MEGABYTE:.1f} MB of {limit} MB are used and "
            f"{added_bytes / MEGABYTE:.1f} MB would be added; delete classifiers that you no longer need."
        )


def _whole(seconds: float) -> int:
    return max(1, int(-(-seconds // 1)))
