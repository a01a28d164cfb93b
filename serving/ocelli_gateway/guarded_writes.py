"""Writes of a Classifier that follow from what was read of it, and are planned again where another write was faster.

It must not know what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ocelli_api.classifier import Classifier, Manifest
from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_errors import ClassifierChangedError
from ocelli_gateway.classifier_store import ClassifierStore

WRITE_ATTEMPTS = 10

Plan = Callable[[Classifier], Awaitable[Manifest | None]]
"""The merge patch for a Classifier; None: nothing needs to be written. It raises a GatewayError where it is not possible."""


class GuardedWrites:
    """Writes for authenticated callers."""

    def __init__(self, store: ClassifierStore, *, replica_delay_seconds: float) -> None:
        self._store = store
        self._replica_delay_seconds = replica_delay_seconds

    async def apply(self, caller: Caller, classifier_id: str, plan: Plan) -> Classifier:
        """The Classifier after the planned write, once every replica knows; as it was read where nothing is written.

        Raises:
            NotFoundError: there is none.
            ClassifierChangedError: other writes were faster each time.
            ClusterError: it could not be stored.
        """
        for _ in range(WRITE_ATTEMPTS):
            classifier = await self._store.read(caller.namespace, classifier_id)
            patch = await plan(classifier)
            if patch is None:
                return classifier
            try:
                changed = await self._store.change(classifier, patch)
            except ClassifierChangedError:
                continue
            # Clients that poll another replica must not take the earlier revision for the outcome.
            await asyncio.sleep(self._replica_delay_seconds)
            return changed
        raise ClassifierChangedError(f"the classifier {classifier_id} was changed before each of {WRITE_ATTEMPTS} writes")
