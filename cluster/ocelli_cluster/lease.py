"""Leader election by a Lease: one of several candidates holds it, and stops before another candidate can take it.

The leader election of the official package is not used: it gives up on the first failed request, and its requests have no
timeout. A holder counts as alive while its Lease changes; clocks of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_api.times import format_time
from ocelli_cluster.client import ClusterClient, ClusterError, NotFoundError
from ocelli_cluster.resources import LEASES

logger = logging.getLogger(__name__)


class LeaseLostError(ClusterError):
    """Another candidate may hold the Lease, so this process must not write."""


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """How long a Lease lasts without renewal, how often it is renewed, and how long after the last renewal its holder stops.

    The holder stops before others take over, because no renewal request may last longer than the time left. Others take over
    at most `duration_seconds` and one retry after the last renewal.
    """

    duration_seconds: int = 6
    renew_seconds: float = 1.5
    give_up_seconds: float = 4.0


@dataclass(frozen=True, kw_only=True)
class LeaseName:
    """Which Lease, and the candidate's name in it."""

    namespace: str
    name: str
    identity: str


class LeaderLease:
    """One candidate for one Lease."""

    def __init__(self, client: ClusterClient, name: LeaseName, times: LeaseTimes = LeaseTimes()) -> None:
        self._client = client
        self._name = name
        self._times = times
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether the last renewal is recent enough; False before the Lease was acquired.

        Check it before each write: after a pause of the whole process, `keep` may notice too late.
        """
        return self._left_seconds() > 0

    async def acquire(self) -> None:
        """Wait until the Lease is held."""
        while not await self._try(self._times.give_up_seconds / 2):  # noqa: ASYNC110 - waits for another process
            await asyncio.sleep(self._times.renew_seconds / 2)
        logger.info("lease acquired", extra={"lease": self._name.name, "identity": self._name.identity})

    async def keep(self) -> None:
        """Renew the Lease. Returns when renewal has failed for too long, and the Lease counts as lost.

        A deleted Lease is not recreated: it would remain after an uninstall.
        """
        await asyncio.sleep(min(self._times.renew_seconds, self._left_seconds()))
        while (left_seconds := self._left_seconds()) > 0:
            # At most half of the time: after a request that hangs there is time for a second one.
            limit_seconds = min(left_seconds, self._times.give_up_seconds / 2)
            pause_seconds = self._times.renew_seconds
            if not await self._try(limit_seconds, create=False):
                pause_seconds /= 3
            await asyncio.sleep(max(min(pause_seconds, self._left_seconds()), 0))
        self._renewed_at = None
        logger.warning("lease lost", extra={"lease": self._name.name, "identity": self._name.identity})

    async def release(self) -> None:
        """Allow others to take over immediately."""
        try:
            manifest = await self._client.get(LEASES, self._name.namespace, self._name.name)
            if (manifest.get("spec") or {}).get("holderIdentity") == self._name.identity:
                manifest["spec"]["holderIdentity"] = ""
                await self._client.replace(LEASES, self._name.namespace, self._name.name, manifest)
        except ClusterError as error:
            logger.info("lease could not be released", extra={"lease": self._name.name, "error": str(error)})

    def _left_seconds(self) -> float:
        """Seconds for which the Lease still counts as held."""
        if self._renewed_at is None:
            return 0.0
        return self._renewed_at + self._times.give_up_seconds - time.monotonic()

    async def _try(self, limit_seconds: float, *, create: bool = True) -> bool:
        started_at = time.monotonic()
        try:
            held = await asyncio.wait_for(self._acquire_or_renew(create), limit_seconds)
        except (ClusterError, TimeoutError) as error:
            reason = str(error) or "request timed out"
            logger.warning("lease could not be renewed", extra={"lease": self._name.name, "error": reason})
            return False
        if held:
            # The time of the request, not of the answer: other candidates may count from then.
            self._renewed_at = started_at
        return held

    async def _acquire_or_renew(self, create: bool) -> bool:
        name = self._name
        try:
            manifest = await self._client.get(LEASES, name.namespace, name.name)
        except NotFoundError:
            if not create:
                raise
            body: Manifest = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": name.name, "namespace": name.namespace},
                "spec": self._spec({}),
            }
            await self._client.create(LEASES, name.namespace, body)
            return True
        spec = manifest.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        holder = spec.get("holderIdentity")
        duration_seconds = spec.get("leaseDurationSeconds") or self._times.duration_seconds
        if holder not in ("", None, name.identity) and now - self._seen_at < duration_seconds:
            return False
        # The resourceVersion is part of the body: if two candidates write, one gets a conflict.
        await self._client.replace(LEASES, name.namespace, name.name, {**manifest, "spec": self._spec(spec)})
        return True

    def _spec(self, before: Manifest) -> Manifest:
        now = format_time(datetime.now(UTC), timespec="microseconds")
        same = before.get("holderIdentity") == self._name.identity
        transitions = int(before.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._name.identity,
            "leaseDurationSeconds": self._times.duration_seconds,
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": transitions if same or not before else transitions + 1,
        }
