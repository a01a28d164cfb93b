"""The usage of a tenant: its classifiers and its stored examples, counted in cluster and store, with those being added.

Only tenants with a quota are counted. It must not know HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ocelli_gateway.auth import Caller
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.quotas import check_classifiers, check_stored
from ocelli_storage.layout import uploads_prefix
from ocelli_storage.object_store import ObjectStore


class TenantUsage:
    """Counts against quotas. Additions of this replica count from the moment they are checked."""

    def __init__(self, store: ClassifierStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._creating: Counter[str] = Counter()
        self._storing_bytes: Counter[str] = Counter()

    async def check_create(self, caller: Caller) -> None:
        """Check before an upload is read whether the quota allows another classifier.

        Raises:
            TooManyRequestsError: it does not.
            ClusterError: the classifiers cannot be counted.
        """
        if caller.quota.classifiers:
            known = await self._store.find_all(caller.namespace)
            check_classifiers(caller.quota, len(known) + self._creating[caller.namespace])

    @asynccontextmanager
    async def adding_classifier(self, caller: Caller) -> AsyncIterator[None]:
        """Count a classifier while it is created; see `check_create`."""
        tenant = caller.namespace
        self._creating[tenant] += 1
        try:
            if caller.quota.classifiers:
                living, unreadable = await self._store.read_all(tenant)
                # The classifier that is being created does not count for itself.
                check_classifiers(caller.quota, len(living) + len(unreadable) + self._creating[tenant] - 1)
            yield
        finally:
            self._creating[tenant] -= 1

    @asynccontextmanager
    async def adding_bytes(self, caller: Caller, added_bytes: int) -> AsyncIterator[None]:
        """Count examples while they are stored.

        Raises:
            TooLargeError: the quota does not allow them.
            ObjectStoreError: the stored bytes cannot be counted.
        """
        tenant = caller.namespace
        if not caller.quota.stored_megabytes:
            yield
            return
        self._storing_bytes[tenant] += added_bytes
        try:
            stored_bytes = sum(item.size_bytes for item in await self._objects.list_objects(uploads_prefix(tenant)))
            # Bytes that are being stored may count twice: refusing too early is better than exceeding the quota.
            check_stored(caller.quota, stored_bytes + self._storing_bytes[tenant] - added_bytes, added_bytes)
            yield
        finally:
            self._storing_bytes[tenant] -= added_bytes
