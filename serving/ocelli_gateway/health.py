"""Whether a create would succeed now, found out by trying what it rests on, and whether requests should come at all.

It must not know HTTP.

What all tenants share decides: the API server, the object store, the folder of uploads. A namespace that is missing, closed to
the gateway or full is its tenant's affair, which the log names, as long as a create would succeed in another one.
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

from ocelli_cluster.client import ApiError, ClusterError, QuotaError

from ocelli_api.classifier import ClassifierSpec, ExampleClass, Source
from ocelli_api.names import build_classifier_id
from ocelli_gateway.auth import Authenticator, CredentialsFolder
from ocelli_gateway.classifier_store import ClassifierStore, ClassifierStoreError, NameTakenError
from ocelli_gateway.classifiers import build_classifier
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

HEALTHY_LIFE_SECONDS = 5.0
UNHEALTHY_LIFE_SECONDS = 0.1
TIMEOUT_SECONDS = 3.0
NAMESPACE_TIMEOUT_SECONDS = 1.0
"""What checks creates in one namespace alone, such as a webhook, may hang."""
MAX_CONCURRENT_NAMESPACES = 8
"""So many namespaces are tried at a time, and no more in one check once a create would succeed in one of them."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether a create would succeed now; `reason` says why not."""

    healthy: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Foundations:
    """What a create rests on."""

    authenticator: Authenticator
    credentials: CredentialsFolder
    store: ClassifierStore
    objects: ObjectStore
    upload_folder: Path


class HealthCheck:
    """Finds out anew at most once in five seconds while a create would succeed, and much sooner while it would not."""

    def __init__(self, foundations: Foundations) -> None:
        self._foundations = foundations
        self._creatable: set[str] = set()
        self._problems: dict[str, str] = {}
        """By namespace: why a create would not succeed in it. The one tried longest ago comes first."""
        self._health = Health(healthy=False, reason="not checked yet")
        self._health_until = 0.0
        self._check = asyncio.Lock()
        self._was_healthy = False

    async def readiness(self) -> Health:
        """Whether requests should come.

        What was healthy once stays ready while anybody can log in: predictions, by far the most requests, need neither object
        store nor upload folder, and no other gateway has better ones.
        """
        if self._was_healthy and self._foundations.authenticator.has_sets:
            return Health(healthy=True, reason="")
        return await self.health()

    async def watch(self) -> None:
        """Find out regularly, though nobody asks: what changes is logged."""
        while True:
            await self.health()
            await asyncio.sleep(HEALTHY_LIFE_SECONDS)

    async def health(self) -> Health:
        """The answer, at most `HEALTHY_LIFE_SECONDS` old."""
        async with self._check:
            if time.monotonic() > self._health_until:
                before, self._health = self._health, await self._find_out()
                if self._was_healthy and self._health.reason != before.reason:
                    logger.warning("health changed", extra={"healthy": self._health.healthy, "reason": self._health.reason})
                self._was_healthy = self._was_healthy or self._health.healthy
                life_seconds = HEALTHY_LIFE_SECONDS if self._health.healthy else UNHEALTHY_LIFE_SECONDS
                self._health_until = time.monotonic() + life_seconds
            return self._health

    async def _find_out(self) -> Health:
        foundations = self._foundations
        if not foundations.authenticator.has_sets:
            problems = "; ".join(foundations.credentials.problems) or "the credentials folder holds no credential set"
            return Health(healthy=False, reason=problems)
        namespaces = foundations.authenticator.namespaces
        self._creatable &= namespaces
        self._problems = {key: problem for key, problem in self._problems.items() if key in namespaces}
        # Reads from the API server stand in for what is not listed yet: a new tenant takes nobody's gateway away.
        unsynced = [] if self._creatable else foundations.store.unsynced()
        if unsynced:
            return Health(healthy=False, reason=f"Classifiers and Pods of namespace {unsynced[0]} have not been listed yet")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                asked = "Kubernetes API"
                await self._probe_cluster()
                asked = "Object store"
                await self._probe_objects()
                asked = f"Upload folder {foundations.upload_folder}"
                await asyncio.to_thread(_probe_folder, foundations.upload_folder)
        except TimeoutError:
            return Health(healthy=False, reason=f"{asked}: no answer in time")
        except (ClusterError, ObjectStoreError) as error:
            return Health(healthy=False, reason=str(error))
        except OSError as error:
            folder = foundations.upload_folder
            return Health(healthy=False, reason=f"Upload folder {folder}: cannot be written: {error.strerror}; make room in it")
        return Health(healthy=True, reason="")

    async def _probe_cluster(self) -> None:
        """Raises ClusterError where a create would succeed in no namespace."""
        # A create that is only tried shows at once whether namespace, rights and schema are there. Later a read is enough.
        answers = await self._can_read()
        untried = self._foundations.authenticator.namespaces - self._creatable - self._problems.keys()
        waiting = [*sorted(untried), *self._problems]
        for start in range(0, len(waiting), MAX_CONCURRENT_NAMESPACES):
            await asyncio.gather(*map(self._try_create, waiting[start : start + MAX_CONCURRENT_NAMESPACES]))
            if answers or self._creatable:
                return
        if not answers:
            raise ClusterError("; ".join(itertools.islice(self._problems.values(), MAX_CONCURRENT_NAMESPACES)))

    async def _can_read(self) -> bool:
        """Whether Classifiers can be read in a namespace in which a create would have succeeded earlier."""
        for namespace in sorted(self._creatable):
            try:
                await self._foundations.store.find_live(namespace, build_classifier_id("probe", 1))
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
            # A namespace that is full is as it should be: its tenant is told at a create.
            with contextlib.suppress(NameTakenError, QuotaError):
                async with asyncio.timeout(NAMESPACE_TIMEOUT_SECONDS):
                    await self._foundations.store.create(manifest, dry_run=True)
        except (ApiError, ClassifierStoreError) as error:
            self._note(namespace, str(error))
        except TimeoutError:
            self._note(namespace, f"Creating a Classifier in namespace {namespace} takes too long; look at its webhooks")
        else:
            self._problems.pop(namespace, None)
            self._creatable.add(namespace)

    def _note(self, namespace: str, problem: str) -> None:
        if self._problems.pop(namespace, None) != problem:
            logger.warning("tenant cannot create classifiers", extra={"namespace": namespace, "problem": problem})
        self._problems[namespace] = problem

    async def _probe_objects(self) -> None:
        key = f"probes/gateway-{os.uname().nodename}-{os.getpid()}"
        await self._foundations.objects.put(key, b"")
        await self._foundations.objects.delete(key)


def _probe_folder(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"probe")
