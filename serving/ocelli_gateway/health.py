"""Whether a create would succeed now, found out by trying what it rests on. It must not know HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import ClassifierSpec, ExampleClass, Source
from ocelli_api.names import build_classifier_id
from ocelli_cluster.client import ClusterError
from ocelli_gateway.auth import Authenticator, CredentialsFolder
from ocelli_gateway.classifier_store import ClassifierStore, NameTakenError
from ocelli_gateway.classifiers import build_classifier
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

HEALTHY_LIFE_SECONDS = 5.0
UNHEALTHY_LIFE_SECONDS = 0.1
TIMEOUT_SECONDS = 3.0


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
        self._health = Health(healthy=False, reason="not checked yet")
        self._health_until = 0.0
        self._check = asyncio.Lock()

    async def health(self) -> Health:
        """The answer, at most `HEALTHY_LIFE_SECONDS` old."""
        async with self._check:
            if time.monotonic() > self._health_until:
                self._health = await self._find_out()
                life_seconds = HEALTHY_LIFE_SECONDS if self._health.healthy else UNHEALTHY_LIFE_SECONDS
                self._health_until = time.monotonic() + life_seconds
            return self._health

    async def _find_out(self) -> Health:
        foundations = self._foundations
        if not foundations.authenticator.has_sets:
            problems = "; ".join(foundations.credentials.problems) or "the credentials folder holds no credential set"
            return Health(healthy=False, reason=problems)
        unsynced = foundations.store.unsynced()
        if unsynced:
            return Health(healthy=False, reason=f"Classifiers and Pods of namespace {unsynced[0]} have not been listed yet")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._probe_cluster()
                await self._probe_objects()
                await asyncio.to_thread(_probe_folder, foundations.upload_folder)
        except TimeoutError:
            return Health(healthy=False, reason="Kubernetes API, object store or upload folder did not answer in time")
        except (ClusterError, ObjectStoreError) as error:
            return Health(healthy=False, reason=str(error))
        except OSError as error:
            folder = foundations.upload_folder
            return Health(healthy=False, reason=f"Upload folder {folder}: cannot be written: {error.strerror}; make room in it")
        return Health(healthy=True, reason="")

    async def _probe_cluster(self) -> None:
        store, namespaces = self._foundations.store, self._foundations.authenticator.namespaces
        # A create that is only tried shows at once whether namespace, rights and schema are there. Later a read is enough.
        for namespace in namespaces - self._creatable:
            probe = ClassifierSpec(
                display_name="probe",
                classes=(ExampleClass(name="probe", examples=(Source(upload="0" * 64),)),),
                negative_examples=(Source(upload="0" * 64),),
            )
            with contextlib.suppress(NameTakenError):
                await store.create(build_classifier(namespace, build_classifier_id("probe", 1), probe), dry_run=True)
            self._creatable.add(namespace)
        await store.find_live(next(iter(namespaces)), build_classifier_id("probe", 1))

    async def _probe_objects(self) -> None:
        key = f"probes/gateway-{os.uname().nodename}-{os.getpid()}"
        await self._foundations.objects.put(key, b"")
        await self._foundations.objects.delete(key)


def _probe_folder(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"probe")
