"""What stands in for nodes and for the controllers of Jobs and Deployments in `make benchmark-cluster`.

The API server and etcd are real, and so are the objects: each Job gets a Pod that runs and succeeds, each Deployment its Pods,
which are ready, all with the labels, owners and containers of their templates. What a trainer would store is stored. Nothing is
computed: what is measured is the operator, and a machine with two cores cannot run 5,000 trainings next to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from ocelli_api.outcome import Outcome, OutcomeReason
from ocelli_local.api_client import ApiClient, ApiError, WatchExpiredError
from ocelli_local.manifest import Manifest
from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, OUTCOME, ClassifierLocation

JOBS = "/apis/batch/v1/jobs"
DEPLOYMENTS = "/apis/apps/v1/deployments"
CLASSIFIERS = "/apis/ocelli.dev/v1alpha1/classifiers"
MERGE_PATCH = "application/merge-patch+json"
CONCURRENT = 32


def read_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def object_path(collection: str, manifest: Manifest, subresource: str = "") -> str:
    """Path of an object, by that of all objects of its kind."""
    prefix, plural = collection.rsplit("/", 1)
    metadata = manifest["metadata"]
    return f"{prefix}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}" + (
        f"/{subresource}" if subresource else ""
    )


async def follow(client: ApiClient, path: str) -> AsyncIterator[tuple[str, Manifest]]:
    """Yields every object of a kind and then every change, endlessly: type of the event, object."""
    while True:
        listing = await client.get(path, {"limit": "500"})
        version = listing["metadata"]["resourceVersion"]
        while True:
            for item in listing.get("items") or ():
                yield "ADDED", item
            following = listing["metadata"].get("continue")
            if not following:
                break
            listing = await client.get(path, {"limit": "500", "continue": following})
        try:
            while True:
                async for event in client.watch(path, resource_version=version):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        yield event.type, event.object
        except (WatchExpiredError, ApiError, aiohttp.ClientError, TimeoutError):
            # The last two: an API server on a busy machine may be silent for longer than a watch waits.
            continue


@dataclass
class StandIns:
    """Run `run()` as a task."""

    client: ApiClient
    store_folder: Path
    on_job: Callable[[Manifest], None]
    """Called when a Job is seen for the first time."""
    nodes_start_pods: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, no Pod is made."""
    _seen_jobs: set[str] = field(default_factory=set)
    _rolled_out: dict[str, int] = field(default_factory=dict)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))

    async def run(self) -> None:
        self.nodes_start_pods.set()
        async with asyncio.TaskGroup() as tasks:

            def start(work: Coroutine[Any, Any, None]) -> None:
                tasks.create_task(self._bounded(work))

            tasks.create_task(self._follow_jobs(start))
            tasks.create_task(self._follow_deployments(start))

    async def _bounded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self.nodes_start_pods.wait()
            async with self._room:
                await work
        except ApiError as error:
            # Deleted meanwhile.
            if error.status not in (404, 409):
                raise
        finally:
            work.close()

    async def _follow_jobs(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        async for kind, job in follow(self.client, JOBS):
            uid = job["metadata"]["uid"]
            if kind == "DELETED" or uid in self._seen_jobs:
                continue
            self._seen_jobs.add(uid)
            self.on_job(job)
            start(self._train(job))

    async def _follow_deployments(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        async for kind, deployment in follow(self.client, DEPLOYMENTS):
            metadata = deployment["metadata"]
            if kind == "DELETED" or self._rolled_out.get(metadata["uid"]) == metadata["generation"]:
                continue
            is_new = metadata["uid"] not in self._rolled_out
            self._rolled_out[metadata["uid"]] = metadata["generation"]
            start(self._roll_out(deployment, is_new))

    async def _train(self, job: Manifest) -> None:
        pod = await self._create_pod(job, "Job", {"batch.kubernetes.io/job-name": job["metadata"]["name"]}, "0")
        await self._set_pod(pod, {"phase": "Running", "startTime": read_time()})
        self._store_artifact(job)
        container = {"state": {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": read_time()}}}
        await self._set_pod(pod, {"phase": "Succeeded", "containerStatuses": [{**self._container(pod), **container}]})
        conditions = [
            {"type": kind, "status": "True", "lastProbeTime": read_time(), "lastTransitionTime": read_time()}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        now = read_time()
        status = {"startTime": now, "completionTime": now, "succeeded": 1, "ready": 0, "conditions": conditions}
        path = object_path(JOBS, job, "status")
        await self.client.patch(path, {"status": {**status, "uncountedTerminatedPods": {}}}, patch_type=MERGE_PATCH)

    async def _roll_out(self, deployment: Manifest, is_new: bool) -> None:
        replicas = deployment["spec"].get("replicas", 1)
        for number in range(replicas) if is_new else ():
            pod = await self._create_pod(deployment, "ReplicaSet", {}, str(number))
            ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
            container = {
                **self._container(pod),
                "ready": True,
                "started": True,
                "state": {"running": {"startedAt": read_time()}},
            }
            running = {"phase": "Running", "startTime": read_time(), "conditions": ready, "containerStatuses": [container]}
            await self._set_pod(pod, running)
        conditions = [
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "simulated"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "simulated"},
        ]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
        status = {"observedGeneration": deployment["metadata"]["generation"], **counts, "conditions": conditions}
        await self.client.patch(object_path(DEPLOYMENTS, deployment, "status"), {"status": status}, patch_type=MERGE_PATCH)

    async def _create_pod(self, owner: Manifest, kind: str, labels: dict[str, str], suffix: str) -> Manifest:
        template, metadata = owner["spec"]["template"], owner["metadata"]
        api_version = "batch/v1" if kind == "Job" else "apps/v1"
        # ReplicaSets are named after their Deployment; the object itself is not read.
        reference = {
            "apiVersion": api_version,
            "kind": kind,
            "name": metadata["name"] if kind == "Job" else f"{metadata['name']}-simulated",
            "uid": metadata["uid"],
            "controller": True,
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{metadata['name']}-{suffix}",
                "labels": {**template["metadata"]["labels"], **labels},
                "ownerReferences": [reference],
            },
            # The scheduler and the nodes must ignore it.
            "spec": {**template["spec"], "nodeName": "simulated"},
        }
        return await self.client.create(f"/api/v1/namespaces/{metadata['namespace']}/pods", body)

    async def _set_pod(self, pod: Manifest, status: Manifest) -> None:
        await self.client.patch(object_path("/api/v1/pods", pod, "status"), {"status": status})

    def _container(self, pod: Manifest) -> Manifest:
        container = pod["spec"]["containers"][0]
        image = container["image"]
        return {"name": container["name"], "image": image, "imageID": image, "restartCount": 0, "ready": False}

    def _store_artifact(self, job: Manifest) -> None:
        """The part of a trainer's output that the operator reads."""
        labels = job["metadata"]["labels"]
        location = ClassifierLocation(namespace=job["metadata"]["namespace"], classifier_id=labels["ocelli.dev/classifier-id"])
        revision, attempt = labels["ocelli.dev/revision"], int(labels["ocelli.dev/attempt"])
        definition = (self.store_folder / location.training_key(revision, attempt, DEFINITION)).read_bytes()
        outcome = Outcome(
            reason=OutcomeReason.SUCCEEDED,
            message="every class was learned",
            revision=revision,
            attempt=attempt,
            accuracy=0.934,
            accuracy_interval=(0.871, 0.967),
            judged_images=100,
            backbone="EfficientNetLite0 (Auto)",
            finished_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        )
        metrics = {"accuracy": 0.934, "accuracyInterval": [0.871, 0.967], "images": 100}
        metadata = {"formatVersion": 2, "backbone": {"name": "EfficientNetLite0"}, "metrics": metrics}
        for key, content in (
            (location.definition_key(revision), definition),
            (location.training_key(revision, attempt, OUTCOME), json.dumps(outcome.to_json()).encode()),
            (location.artifact_key(revision, ARTIFACT_METADATA), json.dumps(metadata).encode()),
        ):
            path = self.store_folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
