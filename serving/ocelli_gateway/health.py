"""Whether a create would succeed now, checked by trying what it depends on, and whether the gateway should get requests.

Health depends on what all tenants share: the API server, the object store, the folder of uploads. If one namespace is missing,
forbidden to the gateway or full, only the log names it, as long as a create would succeed in another. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import ClassifierSpec, ExampleClass, Source
from ocelli_api.names import build_classifier_id
from ocelli_cluster.client import ApiError, ClusterError, QuotaError
from ocelli_gateway.classifier_errors import ClassifierStoreError, NameTakenError
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.credentials_folder import CredentialsFolder
from ocelli_gateway.manifests import build_classifier
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

HEALTHY_LIFE_SECONDS = 5.0
UNHEALTHY_LIFE_SECONDS = 0.1
TIMEOUT_SECONDS = 3.0
NAMESPACE_TIMEOUT_SECONDS = 1.0
"""Checks of one namespace alone, such as a webhook, may hang."""
MAX_CONCURRENT_NAMESPACES = 8
"""So many namespaces are tried concurrently; a check ends once a create would succeed in one of them."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether a create would succeed now; `reason` says why not."""

    healthy: bool
    reason: str


class HealthCheck:
    """Checks at most every five seconds while a create would succeed, and more often while it would not."""

    def __init__(
        self, credentials: CredentialsFolder, store: ClassifierStore, objects: ObjectStore, upload_folder: Path
    ) -> None:
        self._credentials = credentials
        self._store = store
        self._objects = objects
        self._upload_folder = upload_folder
        self._creatable: set[str] = set()
        self._problems: dict[str, str] = {}
        """By namespace: why a create would fail in it. The one tried longest ago is first."""
        self._health = Health(healthy=False, reason="not checked yet")
        self._health_until = 0.0
        self._checking = asyncio.Lock()
        self._was_healthy = False

    async def readiness(self) -> Health:
        """Whether the gateway should get requests.

        A gateway that was healthy once stays ready while any user can log in: predictions, by far the most requests, need
        neither the object store nor the upload folder, and other gateways share both.
        """
        if self._was_healthy and self._credentials.namespaces:
            return Health(healthy=True, reason="")
        return await self.health()

    async def watch(self) -> None:
        """Check regularly, so that changes are logged without a probe."""
        while True:
            await self.health()
            await asyncio.sleep(HEALTHY_LIFE_SECONDS)

    async def health(self) -> Health:
        """The answer, at most `HEALTHY_LIFE_SECONDS` old."""
        async with self._checking:
            if time.monotonic() > self._health_until:
                before, self._health = self._health, await self._check_all()
                if self._was_healthy and self._health.reason != before.reason:
                    logger.warning("health changed", extra={"healthy": self._health.healthy, "reason": self._health.reason})
                self._was_healthy = self._was_healthy or self._health.healthy
                life_seconds = HEALTHY_LIFE_SECONDS if self._health.healthy else UNHEALTHY_LIFE_SECONDS
                self._health_until = time.monotonic() + life_seconds
            return self._health

    async def _check_all(self) -> Health:
        namespaces = self._credentials.namespaces
        if not namespaces:
            problems = "; ".join(self._credentials.problems) or "the credentials folder has no credential set"
            return Health(healthy=False, reason=problems)
        self._creatable &= namespaces
        self._problems = {key: problem for key, problem in self._problems.items() if key in namespaces}
        # Live reads replace lists that are not complete yet: a new tenant does not make the gateway unhealthy.
        unsynced = [] if self._creatable else self._store.unsynced()
        if unsynced:
            return Health(healthy=False, reason=f"Classifiers and Pods of namespace {unsynced[0]} are not listed yet")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                probed = "Kubernetes API"
                await self._probe_cluster()
                probed = "Object store"
                await self._probe_objects()
                probed = f"Upload folder {self._upload_folder}"
                await asyncio.to_thread(_probe_folder, self._upload_folder)
        except TimeoutError:
            return Health(healthy=False, reason=f"{probed}: no answer in time")
        except (ClusterError, ObjectStoreError) as error:
            return Health(healthy=False, reason=str(error))
        except OSError as error:
            return Health(healthy=False, reason=f"{probed}: cannot be written: {error.strerror}; make room in it")
        return Health(healthy=True, reason="")

    async def _probe_cluster(self) -> None:
        """Raises ClusterError if a create would not succeed in any namespace."""
        # A dry-run create checks namespace, rights and schema. After the first success a read is enough.
        answers = await self._can_read()
        untried = self._credentials.namespaces - self._creatable - self._problems.keys()
        waiting = [*sorted(untried), *self._problems]
        for start in range(0, len(waiting), MAX_CONCURRENT_NAMESPACES):
            await asyncio.gather(*map(self._try_create, waiting[start : start + MAX_CONCURRENT_NAMESPACES]))
            if answers or self._creatable:
                return
        if not answers:
            raise ClusterError("; ".join(itertools.islice(self._problems.values(), MAX_CONCURRENT_NAMESPACES)))

    async def _can_read(self) -> bool:
        """Whether Classifiers can be read in a namespace where a create would have succeeded earlier."""
        for namespace in sorted(self._creatable):
            try:
                await self._store.find_live(namespace, build_classifier_id("probe", 1))
            except ApiError as error:
                if error.status >= 500:
                    raise
                self._creatable.discard(namespace)
                self._note(namespace, str(error))
            else:
                return True
        return False

    async def _try_create(self, namespace: str) -> None:
        probe = ClassifierSpec(
            display_name="probe",
            classes=(ExampleClass(name="probe", examples=(Source(upload="0" * 64),)),),
            negative_examples=(Source(upload="0" * 64),),
        )
        manifest = build_classifier(namespace, build_classifier_id("probe", 1), probe)
        try:
            # A full namespace is not a problem of the gateway: the answer to a create reports it.
            with contextlib.suppress(NameTakenError, QuotaError):
                async with asyncio.timeout(NAMESPACE_TIMEOUT_SECONDS):
                    await self._store.create(manifest, dry_run=True)
        except (ApiError, ClassifierStoreError) as error:
            self._note(namespace, str(error))
        except TimeoutError:
            self._note(namespace, f"Creating a Classifier in namespace {namespace} takes too long; check its webhooks")
        else:
            self._problems.pop(namespace, None)
            self._creatable.add(namespace)

    def _note(self, namespace: str, problem: str) -> None:
        if self._problems.pop(namespace, None) != problem:
            logger.warning("tenant cannot create classifiers", extra={"namespace": namespace, "problem": problem})
        self._problems[namespace] = problem

    async def _probe_objects(self) -> None:
        key = f"probes/gateway-{os.uname().nodename}-{os.getpid()}"
        await self._objects.put(key, b"")
        await self._objects.delete(key)


def _probe_folder(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"probe")
