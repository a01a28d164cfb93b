"""The installation that this operator belongs to: its identity, and Events about it.

The Lease stands for the installation: its UID is the identity, and Events about the installation are Events about the Lease.
"""

from __future__ import annotations

import logging

from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import LEASES, ObjectKey, ObjectReference
from ocelli_operator.events import EventRecorder
from ocelli_operator.status import Occurrence

logger = logging.getLogger(__name__)


class Installation:
    """Identity and Events of one installation."""

    def __init__(self, client: ClusterClient, events: EventRecorder, lease: ObjectKey) -> None:
        self._client = client
        self._events = events
        self._lease = lease

    async def identify(self) -> str:
        """The name of this installation: the UID of its Lease. Raises ClusterError."""
        return (await self._read_lease()).uid

    async def report(self, occurrence: Occurrence) -> None:
        """Send an Event about the installation. An error is only logged."""
        try:
            lease = await self._read_lease()
        except ClusterError as error:
            logger.warning("event could not be sent", extra={"reason": occurrence.reason, "error": str(error)})
        else:
            await self._events.record_about(lease, occurrence)

    async def _read_lease(self) -> ObjectReference:
        return ObjectReference.of(LEASES, await self._client.get(LEASES, *self._lease))
