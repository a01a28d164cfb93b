"""A whole operator in this process, with a Kubernetes API in memory and a store that can be brought down."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from ocelli_api.classifier import API_VERSION, CLASSIFIER_ID_LABEL, Manifest
from ocelli_api.names import build_classifier_id
from ocelli_api.pods import COMPONENT_LABEL, Component
from ocelli_api.settings import load_settings
from ocelli_cluster.client import ClusterClient, ConflictError, NotFoundError
from ocelli_cluster.resources import CLASSIFIERS, DEPLOYMENTS, JOBS, LEASES, PODS, Resource
from ocelli_operator.operation import Operation
from ocelli_operator.settings import OperatorSettings
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectStore, StoredObject, StoreUnreachableError
from ocelli_storage.store_url import open_store
from tests.gateway_harness.in_memory_cluster import InMemoryCluster
from tests.integration.operator.operator_process import find_free_port
from tests.unit.operator.factories import make_spec

T = TypeVar("T")

NAMESPACE = "team-a"
HANGS_SECONDS = 30.0
"""As long as a client of the store retries."""


class Leases(InMemoryCluster):
    """The Kubernetes API for the client of the Lease."""

    def __init__(self) -> None:
        super().__init__()
        self.on_write: Callable[[str, str], None] | None = None

    def take_over(self, config: OperatorSettings) -> None:
        """Another operator takes the Lease."""
        lease = self.find(LEASES, config.lease_namespace, config.lease_name)
        assert lease is not None
        lease["spec"]["holderIdentity"] = "another"
        self.put(LEASES, config.lease_namespace, lease)


class OperatorCluster(InMemoryCluster):
    """With the server-side apply that the operator needs, and a list of writes."""

    def __init__(self) -> None:
        super().__init__()
        self.on_write: Callable[[str, str], None] | None = None
        self.writes: list[str] = []
        """`status NAME` for a status, `apply PLURAL/NAME` and so on for others; no Leases and Events."""
        self.hold_writes: asyncio.Event | None = None
        """Creates and applies wait for it."""
        self.leases = Leases()

    def with_own_pool(self) -> Leases:
        return self.leases

    async def create(
        self, resource: Resource, namespace: str, body: Manifest, *, field_manager: str | None = None, dry_run: bool = False
    ) -> Manifest:
        if resource.plural in ("events", "leases"):
            return await super().create(resource, namespace, body)
        if self.on_write is not None:
            self.on_write("POST", resource.plural)
        if self.hold_writes is not None:
            await self.hold_writes.wait()
        self.writes.append(f"create {resource.plural}/{body['metadata']['name']}")
        return await super().create(resource, namespace, {**body, "metadata": {**body["metadata"], "generation": 1}})

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Manifest,
        *,
        field_manager: str,
        subresource: str | None = None,
    ) -> Manifest:
        if self.on_write is not None:
            self.on_write("PATCH", resource.plural)
        if self.hold_writes is not None:
            await self.hold_writes.wait()
        self.writes.append(f"{subresource} {name}" if subresource else f"apply {resource.plural}/{name}")
        current = self.find(resource, namespace, name)
        wanted = body.get("metadata", {})
        if current is None:
            if subresource:
                raise NotFoundError(404, f"{name} not found")
            return self.put(resource, namespace, {**body, "metadata": {**wanted, "name": name, "generation": 1}})
        metadata = current["metadata"]
        if wanted.get("uid", metadata["uid"]) != metadata["uid"]:
            raise ConflictError(409, "another uid")
        if wanted.get("resourceVersion", metadata["resourceVersion"]) != metadata["resourceVersion"]:
            raise ConflictError(409, "it was changed")
        if subresource:
            return self.put(resource, namespace, {**current, "status": body["status"]})
        return self.edit(
            resource,
            name,
            spec=body.get("spec", current.get("spec")),
            **{field: {**metadata.get(field, {}), **wanted.get(field, {})} for field in ("labels", "annotations")},
        )

    async def delete(self, resource: Resource, namespace: str, name: str, **conditions: Any) -> None:
        self.writes.append(f"delete {resource.plural}/{name}")
        await super().delete(resource, namespace, name, **conditions)

    def edit(self, resource: Resource, name: str, *, spec: Any = None, status: Any = None, **metadata: Any) -> Manifest:
        """Change an object; a changed spec increases the generation."""
        current = self.find(resource, NAMESPACE, name)
        assert current is not None
        changed = copy.deepcopy(current)
        changed["metadata"].update(metadata)
        if spec is not None and spec != current.get("spec"):
            changed["spec"] = spec
            changed["metadata"]["generation"] = current["metadata"].get("generation", 1) + 1
        if status is not None:
            changed["status"] = status
        return self.put(resource, NAMESPACE, changed)


class OutageStore(ObjectStore):
    """A folder that can be brought down: `refuses` fails immediately, `hangs` after half a minute."""

    def __init__(self, folder: Path) -> None:
        self._store = open_store(folder.as_uri())
        self.url = "http://ocelli-store.ocelli-system"
        self.reads = ""
        self.writes = ""
        """`refuses` or `hangs`; empty: it answers."""
        self.requests = 0

    def bring_down(self, how: str) -> None:
        self.reads = self.writes = how
        self.requests = 0

    def bring_up(self) -> None:
        self.bring_down("")

    async def _fail(self, how: str) -> None:
        self.requests += 1
        if how == "hangs":
            await asyncio.sleep(HANGS_SECONDS)
        if how:
            raise StoreUnreachableError(f"object store: no answer, number {self.requests}")

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        await self._fail(self.reads)
        return await self._store.get(key, limit_bytes=limit_bytes)

    async def get_range(self, key: str, *, offset: int, length: int) -> bytes:
        await self._fail(self.reads)
        return await self._store.get_range(key, offset=offset, length=length)

    def open_read(self, key: str, chunk_bytes: int = 1024) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def put(self, key: str, data: bytes | Path) -> None:
        await self._fail(self.writes)
        await self._store.put(key, data)

    async def size_of(self, key: str) -> int:
        await self._fail(self.reads)
        return await self._store.size_of(key)

    async def list_objects(self, prefix: str) -> list[StoredObject]:
        await self._fail(self.reads)
        return await self._store.list_objects(prefix)

    async def list_folders(self, prefix: str) -> list[str]:
        await self._fail(self.reads)
        return await self._store.list_folders(prefix)

    async def delete(self, key: str) -> None:
        await self._fail(self.writes)
        await self._store.delete(key)


class Stage:
    """Classifiers, their children, and what nodes and controllers would do."""

    def __init__(self, folder: Path) -> None:
        self.cluster = OperatorCluster()
        self.store = OutageStore(folder)
        self.config: OperatorSettings
        """The settings of the running operator."""

    @asynccontextmanager
    async def operator(self, **settings: str) -> AsyncIterator[Operation]:
        """Run an operator during the block. Its sweep spares everything, because it is younger than an hour."""
        environment = {"OCELLI_STORE_URL": self.store.url, "OCELLI_METRICS_PORT": str(find_free_port())}
        self.config = load_settings(OperatorSettings, {**environment, **settings})
        operation = Operation(cast(ClusterClient, self.cluster), self.store, self.config)
        running = asyncio.create_task(operation.run())
        try:
            yield operation
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def add(self, name: str, **spec: Any) -> None:
        manifest: Manifest = {
            "apiVersion": API_VERSION,
            "kind": "Classifier",
            "metadata": {"name": name, "generation": 1, "labels": {CLASSIFIER_ID_LABEL: build_classifier_id(name, 1)}},
            "spec": make_spec(**spec),
        }
        self.cluster.put(CLASSIFIERS, NAMESPACE, manifest)

    def change(self, name: str, **spec: Any) -> None:
        self.cluster.edit(CLASSIFIERS, name, spec=make_spec(**spec))

    def status(self, name: str) -> dict[str, Any]:
        classifier = self.cluster.find(CLASSIFIERS, NAMESPACE, name)
        return {} if classifier is None else dict(classifier.get("status") or {})

    def condition(self, name: str, condition_type: str) -> dict[str, Any]:
        """Empty if it is absent."""
        conditions = self.status(name).get("conditions", ())
        return next((item for item in conditions if item["type"] == condition_type), {})

    def find(self, resource: Resource, name: str) -> Manifest | None:
        """The child of a Classifier."""
        made = (item for item in self.cluster.all(resource, NAMESPACE) if item["metadata"]["name"].startswith(f"{name}-"))
        return next(made, None)

    def add_trainer(self, name: str, **status: Any) -> None:
        """Create the Pod of the training Job, as the Job controller does."""
        job = self.find(JOBS, name)
        assert job is not None
        template = job["spec"]["template"]
        metadata = {
            "name": f"{job['metadata']['name']}-pod",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [_controller("Job", job["metadata"]["name"], job["metadata"]["uid"])],
        }
        status = {"phase": "Pending", **status}
        self.cluster.put(PODS, NAMESPACE, {"metadata": metadata, "spec": template["spec"], "status": status})

    def end_job(self, name: str, condition: str) -> None:
        """`Complete` or `Failed`."""
        job = self.find(JOBS, name)
        assert job is not None
        status = {"conditions": [{"type": condition, "status": "True"}]}
        self.cluster.edit(JOBS, job["metadata"]["name"], status=status)

    async def learn(self, name: str, then: Callable[[], None] = lambda: None) -> None:
        """End the training successfully. `then` is called before the operator can notice it."""
        status = self.status(name)
        location = ClassifierLocation(namespace=NAMESPACE, classifier_id=status["classifierID"])
        key = location.artifact_key(status["trainingRevision"], ARTIFACT_METADATA)
        await self.store.put(key, b'{"metrics": {"accuracy": 0.9}, "backbone": {"name": "EfficientNetLite0"}}')
        then()
        self.end_job(name, "Complete")

    async def serve(self, name: str) -> None:
        """Bring a Classifier with a training Job to a served revision."""
        await self.learn(name)
        deployment = await self.wait_for("its Deployment", lambda: self.find(DEPLOYMENTS, name))
        self.run_servers(deployment["metadata"]["name"])
        await self.wait_for("Ready", lambda: self.condition(name, "Ready").get("status") == "True")

    def run_servers(self, deployment_name: str) -> None:
        """Do what the Deployment controller and the nodes do."""
        deployment = self.cluster.find(DEPLOYMENTS, NAMESPACE, deployment_name)
        assert deployment is not None
        replicas = deployment["spec"]["replicas"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
        progressing = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
        generation = deployment["metadata"]["generation"]
        template = deployment["spec"]["template"]
        for number in range(replicas):
            ready = {"type": "Ready", "status": "True"}
            pod = {
                "metadata": {
                    "name": f"{deployment_name}-{number}",
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [_controller("ReplicaSet", f"{deployment_name}-5f6c", "replica-set")],
                },
                "spec": template["spec"],
                "status": {"phase": "Running", "conditions": [ready]},
            }
            assert template["metadata"]["labels"][COMPONENT_LABEL] == Component.INFERENCE
            self.cluster.put(PODS, NAMESPACE, pod)
        status = {"observedGeneration": generation, "conditions": [progressing], **counts}
        self.cluster.edit(DEPLOYMENTS, deployment_name, status=status)

    async def wait_for(self, what: str, found: Callable[[], T | None], timeout_seconds: float = 10.0) -> T:
        """The first true result."""
        deadline = time.monotonic() + timeout_seconds
        while not (result := found()):
            assert time.monotonic() < deadline, f"timed out waiting for: {what}"
            await asyncio.sleep(0.02)
        return result

    async def wait_until_quiet(self) -> None:
        """Wait until nothing has been written for a quarter of a second."""
        count = -1
        while count != len(self.cluster.writes):
            count = len(self.cluster.writes)
            await asyncio.sleep(0.25)


def _controller(kind: str, name: str, uid: str) -> Manifest:
    return {"kind": kind, "name": name, "uid": uid, "controller": True}
