"""Quotas: how much one tenant may have and how fast it may send, so that none can exhaust what all share.

A tenant is a namespace. What is stored is counted in cluster and store, alike for every replica; rates are counted by each
replica for itself. It must not know HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ocelli_gateway.errors import TooLargeError, TooManyRequestsError
from ocelli_storage.archives import MEGABYTE

QUOTA_LIMIT = 10**9
CLASSIFIERS_RETRY_SECONDS = 60
"""Room for another classifier is made by deleting one: soon enough to look again."""
_KEYS = {
    "classifiers": "classifiers",
    "stored_megabytes": "storedMegabytes",
    "upload_megabytes_per_hour": "uploadMegabytesPerHour",
    "requests_per_second": "requestsPerSecond",
}


class QuotaValueError(Exception):
    """A quota is written wrongly. The message is the end of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What a tenant may use; None: the installation's own quota holds; 0: as much as it likes."""

    classifiers: int | None = None
    stored_megabytes: int | None = None
    """Of uploaded examples."""
    upload_megabytes_per_hour: int | None = None
    requests_per_second: int | None = None

    @classmethod
    def parse(cls, document: object) -> Quota:
        """Type the `quota` of a credential set.

        Raises:
            QuotaValueError: it is none.
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
        """As a credential set holds it; what is not set is left out."""
        values = {key: getattr(self, name) for name, key in _KEYS.items()}
        return {key: value for key, value in values.items() if value is not None}

    def over(self, installation: Quota) -> Quota:
        """This quota where it is set, else the installation's."""
        unset = [item.name for item in fields(self) if getattr(self, item.name) is None]
        return replace(self, **{name: getattr(installation, name) for name in unset})


NO_QUOTA = Quota()


@dataclass(kw_only=True)
class _Bucket:
    """What is left of a tenant's allowance at a moment."""

    level: float
    updated_at: float


class Rates:
    """How fast tenants use up an allowance that fills again all the time, up to what `period_seconds` bring."""

    def __init__(self, *, period_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period_seconds = period_seconds
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, tenant: str, amount: float, limit: float) -> float:
        """Take an amount; 0, or the seconds until it could be taken: then nothing was. `limit` is what a period brings.

        An amount above the limit itself is taken when the allowance is full.
        """
        bucket = self._fill(tenant, limit)
        missing = min(amount, limit) - bucket.level
        if missing > 0:
            return missing * self._period_seconds / limit
        bucket.level -= amount
        return 0.0

    def reserve(self, tenant: str, most: float, limit: float) -> tuple[float, float]:
        """Take what is left, up to `most`, for an amount that is not known yet: how much was taken, and 0.

        Where nothing is left: 0, and the seconds until something is.
        """
        bucket = self._fill(tenant, limit)
        reserved = min(most, bucket.level)
        if reserved <= 0:
            return 0.0, max(1.0, -bucket.level * self._period_seconds / limit)
        bucket.level -= reserved
        return reserved, 0.0

    def give_back(self, tenant: str, amount: float, limit: float) -> None:
        """Undo a part of what was taken; a negative amount takes more, even what is not left."""
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
                f"The quota of requests is used up: {limit} a second; try again.", retry_after_seconds=_whole(wait_seconds)
            )

    def count_upload(self, tenant: str, quota: Quota, size_bytes: int) -> None:
        """Raises TooManyRequestsError where the tenant uploads too much."""
        limit = quota.upload_megabytes_per_hour
        if not limit:
            return
        wait_seconds = self._uploads.spend(tenant, size_bytes, limit * MEGABYTE)
        if wait_seconds:
            raise TooManyRequestsError(
                f"The quota of uploads is used up: {limit} MB an hour; this one has {size_bytes / MEGABYTE:.1f} MB. "
                f"Try again in {_whole(wait_seconds)} seconds.",
                retry_after_seconds=_whole(wait_seconds),
            )

    def reserve_upload(self, tenant: str, quota: Quota, most_bytes: int) -> float:
        """Count an upload of unknown size as what is left of the quota; the answer, in bytes, is for `correct_upload`.

        Raises TooManyRequestsError where nothing is left.
        """
        limit = quota.upload_megabytes_per_hour
        if not limit:
            return 0.0
        reserved, wait_seconds = self._uploads.reserve(tenant, most_bytes, limit * MEGABYTE)
        if wait_seconds:
            raise TooManyRequestsError(
                f"The quota of uploads is used up: {limit} MB an hour. Try again in {_whole(wait_seconds)} seconds.",
                retry_after_seconds=_whole(wait_seconds),
            )
        return reserved

    def correct_upload(self, tenant: str, quota: Quota, *, reserved: float, came_bytes: int) -> None:
        """Count what came instead of what was reserved."""
        limit = quota.upload_megabytes_per_hour
        if limit:
            self._uploads.give_back(tenant, reserved - came_bytes, limit * MEGABYTE)


def check_classifiers(quota: Quota, count: int) -> None:
    """Raises TooManyRequestsError where a tenant that has so many classifiers may not create another."""
    limit = quota.classifiers
    if limit and count >= limit:
        raise TooManyRequestsError(
            f"The quota of classifiers is used up: {count} of {limit}; delete one that is not needed any more.",
            retry_after_seconds=CLASSIFIERS_RETRY_SECONDS,
        )


def check_stored(quota: Quota, stored_bytes: int, added_bytes: int) -> None:
    """Raises TooLargeError where a tenant that stores so many bytes may not add these."""
    limit = quota.stored_megabytes
    if limit and stored_bytes + added_bytes > limit * MEGABYTE:
        raise TooLargeError(
            f"The quota of stored examples would be exceeded: {stored_bytes / MEGABYTE:.1f} MB of {limit} MB are used and "
            f"{added_bytes / MEGABYTE:.1f} MB would be added; delete classifiers that are not needed any more."
        )


def _whole(seconds: float) -> int:
    return max(1, int(-(-seconds // 1)))
