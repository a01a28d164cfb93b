"""What people see of their classifiers: the cards of all and the details of one; and their session.

It must not know HTTP.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from ocelli_api.classifier import Classifier
from ocelli_gateway.auth import Caller
from ocelli_gateway.builtin import BUILT_IN_IDS
from ocelli_gateway.cards import Card
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classifiers import Classifiers
from ocelli_gateway.details import StoredFacts, build_details
from ocelli_gateway.limits import LIMITS
from ocelli_gateway.namespace_watch import NamespaceWatch
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore


class Overview:
    """Reads for authenticated callers."""

    def __init__(self, store: ClassifierStore, objects: ObjectStore, classifiers: Classifiers) -> None:
        self._store = store
        self._objects = objects
        self._classifiers = classifiers

    def describe_session(self, caller: Caller) -> dict[str, Any]:
        """Who the caller is, and what applies to it. Quotas without a limit are left out."""
        quota = caller.quota
        quotas = {
            "classifiers": quota.classifiers,
            "stored_megabytes": quota.stored_megabytes,
            "upload_megabytes_per_hour": quota.upload_megabytes_per_hour,
            "requests_per_second": quota.requests_per_second,
        }
        return {
            "user": caller.user,
            "namespace": caller.namespace,
            "owner": caller.owner,
            "version": version("ocelli"),
            "built_ins": [name for name in BUILT_IN_IDS if self._store.find_built_in(name) is not None],
            "limits": LIMITS,
            "quota": {name: limit for name, limit in quotas.items() if limit},
        }

    def find_watch(self, caller: Caller) -> NamespaceWatch | None:
        """The watch of the caller's namespace; None once its credentials are withdrawn."""
        return self._store.find_watch(caller.namespace)

    async def list_cards(self, caller: Caller) -> list[Card]:
        """The card of every classifier of the caller, oldest first, from the watch cache. Raises ClusterError."""
        return await self._store.list_cards(caller.namespace)

    async def read_details(self, caller: Caller, classifier_id: str) -> dict[str, Any]:
        """The body of the details, as up to date as those of v3.

        Raises:
            NotFoundError: there is no such classifier.
            ClusterError, ObjectStoreError: cluster or store cannot be read.
        """
        return await self.describe(await self._classifiers.read_shown(caller, classifier_id))

    async def describe(self, classifier: Classifier) -> dict[str, Any]:
        """The same of a Classifier that was just read or written. Raises ObjectStoreError."""
        location = ClassifierLocation.of(classifier)
        uploads, revisions = await asyncio.gather(
            self._objects.list_objects(location.uploads_prefix), self._objects.list_folders(location.artifacts_prefix)
        )
        sizes = {location.find_upload_digest(item.key): item.size_bytes for item in uploads}
        return build_details(
            classifier,
            StoredFacts(
                upload_bytes={digest: size for digest, size in sizes.items() if digest is not None},
                revisions=frozenset(revisions),
            ),
        )
