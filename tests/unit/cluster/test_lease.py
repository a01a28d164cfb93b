"""The holder of a Lease stops before another candidate may take it, however its requests fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ClusterClient, ConflictError, NotFoundError, UnreachableError
from ocelli_cluster.lease import LeaderLease, LeaseName, LeaseTimes
from ocelli_cluster.resources import Resource

NAME = LeaseName(namespace="ocelli-system", name="ocelli-operator", identity="one")
TIMES = LeaseTimes(duration_seconds=1, renew_seconds=0.25, give_up_seconds=0.7)
"""The operator's times divided by six."""


class Leases:
    """One Lease. `fault` is awaited before each request, with the seconds since the last renewal."""

    def __init__(self) -> None:
        self.renewed_at = 0.0
        self.fault: Callable[[float], Any] | None = None
        self._lease: Manifest | None = None

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        await self._apply_fault()
        if self._lease is None:
            raise NotFoundError(404, "no such Lease")
        return self._lease

    async def create(self, resource: Resource, namespace: str, body: Manifest) -> Manifest:
        return self._store(body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        await self._apply_fault()
        assert self._lease is not None
        if body["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "it was changed")
        return self._store(body)

    async def _apply_fault(self) -> None:
        if self.fault is not None:
            await self.fault(time.monotonic() - self.renewed_at)

    def _store(self, body: Manifest) -> Manifest:
        self.renewed_at = time.monotonic()
        version = str(int(body["metadata"].get("resourceVersion", "0")) + 1)
        self._lease = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return self._lease


async def hang(_: float) -> None:
    await asyncio.sleep(60)


async def refuse(_: float) -> None:
    raise UnreachableError("connection refused")


async def refuse_then_hang(age_seconds: float) -> None:
    # The last attempt before the holder gives up starts late and gets no answer.
    if age_seconds < 0.45:
        raise UnreachableError("connection refused")
    await asyncio.sleep(60)


def lose(fault: Callable[[float], Any]) -> float:
    """Seconds from the last renewal to when the holder stops."""

    async def scenario() -> float:
        leases = Leases()
        lease = LeaderLease(cast(ClusterClient, leases), NAME, TIMES)
        await lease.acquire()
        leases.fault = fault
        await asyncio.wait_for(lease.keep(), timeout=10)
        return time.monotonic() - leases.renewed_at

    return asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("fault", [hang, refuse, refuse_then_hang], ids=lambda fault: fault.__name__)
def test_the_holder_stops_before_another_may_take_over(fault: Callable[[float], Any]) -> None:
    assert lose(fault) < TIMES.duration_seconds - 0.2


@pytest.mark.slow
def test_a_renewal_that_fails_once_is_retried_in_time() -> None:
    async def scenario() -> bool:
        leases = Leases()
        lease = LeaderLease(cast(ClusterClient, leases), NAME, TIMES)
        await lease.acquire()
        failures = iter([True])

        async def fail_once(_: float) -> None:
            if next(failures, False):
                raise UnreachableError("connection reset")

        leases.fault = fail_once
        keep = asyncio.create_task(lease.keep())
        done, _ = await asyncio.wait({keep}, timeout=2 * TIMES.duration_seconds)
        keep.cancel()
        return not done

    assert asyncio.run(scenario())


@pytest.mark.slow
def test_a_holder_that_was_paused_for_too_long_no_longer_holds_the_lease() -> None:
    async def scenario() -> tuple[bool, bool, bool]:
        lease = LeaderLease(cast(ClusterClient, Leases()), NAME, TIMES)
        before = lease.is_held
        await lease.acquire()
        held = lease.is_held
        # Blocks the whole process, as on a paused machine.
        time.sleep(TIMES.give_up_seconds)  # noqa: ASYNC251
        return before, held, lease.is_held

    assert asyncio.run(scenario()) == (False, True, False)
