"""A gateway on real sockets, over a fake of the Kubernetes API, stubs of inference servers and a folder as object store."""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from aiohttp.abc import AbstractResolver
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Manifest, parse_classifier
from ocelli_api.documents import build_document
from ocelli_api.names import build_object_name
from ocelli_api.pods import CLASSIFIER_LABEL, COMPONENT_LABEL, INFERENCE_PORT, REVISION_LABEL
from ocelli_api.prediction import LANGUAGE_HEADER, THRESHOLD_HEADER, ClassScore, Prediction
from ocelli_api.revision import definition, spec_revision
from ocelli_cluster.resources import CLASSIFIERS, PODS, SECRETS
from ocelli_gateway.app import build_app, build_internal_app
from ocelli_gateway.credential_sets import build_credential_set
from ocelli_gateway.gateway import Gateway, running_gateway
from ocelli_gateway.http_protocol import build_protocol
from ocelli_gateway.settings import GatewaySettings
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.store_url import open_store
from tests.gateway_harness.in_memory_cluster import InMemoryCluster

T = TypeVar("T")
NAMESPACE = "team-a"
SYSTEM_NAMESPACE = "ocelli-system"
OWNER = "7d9f0c5e-33c1-4f0e-9a6c-0b6a6f1d2c11"
USER = "anna"
PASSWORD = "pass:word"
OTHER_USER = "bert"
OTHER_KEY = "the-key-of-bert"
START_TIMEOUT_SECONDS = 20.0
_STAGE_NUMBERS = itertools.count(random.randrange(250))


@dataclass(kw_only=True)
class StubInferenceServer:
    """Answers the prediction call like a Pod, without a model: with the given scores."""

    classifier_id: str
    revision: str
    scores: dict[str, float]
    address: str
    name: str
    refusal: tuple[int, str] | None = None
    """HTTP status and kind of its refusals."""
    asked: int = 0
    languages: list[str | None] = field(default_factory=list)
    """Of each request."""
    thresholds: list[str | None] = field(default_factory=list)
    """Of each request. It still returns every class, like a server of an older version."""
    hierarchies: dict[str, str] = field(default_factory=dict)
    """The type hierarchy of classes."""
    namespace: str = NAMESPACE
    delay_seconds: float = 0.0
    may_answer: asyncio.Event | None = None
    """If present, it hangs until the event is set."""

    async def predict(self, request: Request) -> Response:
        image = await request.body()
        self.asked += 1
        self.languages.append(request.headers.get(LANGUAGE_HEADER))
        self.thresholds.append(request.headers.get(THRESHOLD_HEADER))
        await asyncio.sleep(self.delay_seconds)
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.refusal is not None:
            status, kind = self.refusal
            return JSONResponse({"error": {"kind": kind, "message": "refused"}}, status, {"Retry-After": "7"})
        if request.headers["ocelli-revision"] != self.revision:
            return JSONResponse({"error": {"kind": "OtherRevision", "message": "another revision"}}, 421)
        try:
            with Image.open(io.BytesIO(image)) as opened:
                if min(opened.size) < 10:
                    return JSONResponse({"error": {"kind": "TooSmall", "message": "too small"}}, 400)
                opened.load()
        except (OSError, SyntaxError, ValueError):
            return JSONResponse({"error": {"kind": "Corrupt", "message": "cannot be decoded"}}, 400)
        prediction = Prediction(
            classifier_id=self.classifier_id,
            revision=self.revision,
            scores=tuple(
                ClassScore(class_name=name, score=score, type_hierarchy=self.hierarchies.get(name))
                for name, score in self.scores.items()
            ),
        )
        return JSONResponse(build_document(prediction))


class _Server(uvicorn.Server):
    """A server among others of one process: signals belong to the test runner."""

    def capture_signals(self) -> Any:
        return threading.Lock()


@dataclass(kw_only=True)
class _Running:
    server: uvicorn.Server
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.server.should_exit = True
        await self.task


async def _start_server(app: Any, host: str, port: int, **options: Any) -> _Running:
    config = uvicorn.Config(
        app, host=host, port=port, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1, **options
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.005)
    return _Running(server=server, task=task)


@dataclass(kw_only=True)
class GatewayInstance:
    """One running gateway."""

    address: str
    port: int
    internal_address: str
    """Of probes and metrics."""
    gateway: Gateway
    settings: GatewaySettings


@functools.cache
def _first_credentials() -> Mapping[str, str]:
    """The credential sets of every stage, by the names of their files. Hashing passwords is slow by design."""
    sets = {
        "anna.json": build_credential_set(user=USER, password=PASSWORD, namespace=NAMESPACE, owner=OWNER),
        "bert.json": build_credential_set(
            user=OTHER_USER, password="other", namespace="team-b", owner="owner-b", api_key=OTHER_KEY
        ),
    }
    return {file: json.dumps(item.to_json()) for file, item in sets.items()}


@dataclass(kw_only=True)
class Stage:
    """A cluster with gateways, in a separate thread. Every method may be called from the test's thread."""

    folder: Path
    cluster: InMemoryCluster = field(default_factory=InMemoryCluster)
    servers: list[StubInferenceServer] = field(default_factory=list)
    """Every inference server that was started."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _resources: AsyncExitStack = field(default_factory=AsyncExitStack)
    _servers: dict[str, _Running] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        # Inference servers have a fixed port, so each stage has loopback addresses of its own, below those of local clusters.
        self._network = f"127.{1 + os.getpid() % 15}.{1 + next(_STAGE_NUMBERS) % 250}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.credentials_folder.mkdir(parents=True)
        self.upload_folder.mkdir()
        for file, document in _first_credentials().items():
            (self.credentials_folder / file).write_text(document)
        self.objects = open_store(self.store_folder.as_uri())
        # As in deploy/: empty.
        self.call(lambda: self.cluster.put(SECRETS, SYSTEM_NAMESPACE, {"metadata": {"name": "ocelli-token-keys"}}))

    @property
    def credentials_folder(self) -> Path:
        return self.folder / "credentials"

    @property
    def upload_folder(self) -> Path:
        return self.folder / "uploads"

    @property
    def store_folder(self) -> Path:
        return self.folder / "store"

    def stored_uploads(self) -> list[str]:
        return sorted(str(path.relative_to(self.store_folder)) for path in self.store_folder.rglob("*.zip"))

    def write_credentials(self, file: str, **values: Any) -> None:
        quota = values.pop("quota", None)
        document = build_credential_set(**values).to_json() | ({} if quota is None else {"quota": quota})
        temporary = self.credentials_folder / (file + ".new")
        temporary.write_text(json.dumps(document))
        temporary.replace(self.credentials_folder / file)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    def call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return self.run(called())

    def close(self) -> None:
        async def stop() -> None:
            for running in self._servers.values():
                await running.stop()
            await self._resources.aclose()

        self.run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def start_gateway(
        self, *, resolver: AbstractResolver | None = None, healthy: bool = True, **settings: Any
    ) -> GatewayInstance:
        values = {
            "store_url": self.store_folder.as_uri(),
            "credentials_folder": self.credentials_folder,
            "upload_folder": self.upload_folder,
            "replica_delay_seconds": 0.0,
            "credentials_poll_seconds": 0.05,
            "prediction_timeout_seconds": 5.0,
            **settings,
        }
        return self.run(self._start_gateway(GatewaySettings(**values), resolver, healthy))

    async def _start_gateway(
        self, settings: GatewaySettings, resolver: AbstractResolver | None, healthy: bool
    ) -> GatewayInstance:
        running = running_gateway(settings, self.cluster, self.objects, resolver=resolver)  # type: ignore[arg-type]
        gateway = await self._resources.enter_async_context(running)
        app, internal_app = build_app(gateway), build_internal_app(gateway)
        http = build_protocol(stall_seconds=settings.body_timeout_seconds)
        public = await _start_server(app, "127.0.0.1", 0, http=http, ws="none", server_header=False)
        self._resources.push_async_callback(public.stop)
        internal = await _start_server(internal_app, "127.0.0.1", 0, ws="none")
        self._resources.push_async_callback(internal.stop)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while healthy and not (health := await gateway.health.health()).healthy:
            assert time.monotonic() < deadline, health.reason
            await asyncio.sleep(0.01)
        port, internal_port = (item.server.servers[0].sockets[0].getsockname()[1] for item in (public, internal))
        return GatewayInstance(
            address=f"http://127.0.0.1:{port}",
            port=port,
            internal_address=f"http://127.0.0.1:{internal_port}",
            gateway=gateway,
            settings=settings,
        )

    # Effects of the operator that the gateway can see.

    def classifier(self, classifier_id: str, namespace: str = NAMESPACE) -> Manifest:
        found = self.call(lambda: self.cluster.find(CLASSIFIERS, namespace, build_object_name(classifier_id)))
        assert found is not None
        return found

    def put_classifier(self, manifest: Manifest, namespace: str = NAMESPACE) -> Manifest:
        return self.call(lambda: self.cluster.put(CLASSIFIERS, namespace, manifest))

    def finish_training(
        self,
        classifier_id: str,
        scores: Mapping[str, float] | None = None,
        *,
        retrained_at: str | None = None,
        replicas: int = 1,
        namespace: str = NAMESPACE,
        figures: Mapping[str, Any] | None = None,
    ) -> list[StubInferenceServer]:
        """Mark the current spec as trained and served, by stubs with these scores. `figures` are added to status."""
        manifest = self.classifier(classifier_id, namespace)
        spec = parse_classifier(manifest).spec
        revision = spec_revision(spec)
        location = ClassifierLocation(namespace=namespace, classifier_id=classifier_id)
        self.run(self.objects.put(location.definition_key(revision), json.dumps(definition(spec)).encode()))
        given = dict(scores) if scores is not None else {item.name: 0.9 - index / 10 for index, item in enumerate(spec.classes)}
        servers = [self.start_server(classifier_id, revision, given, namespace=namespace) for _ in range(replicas)]
        manifest["status"] = {
            "observedGeneration": 1,
            "classifierID": classifier_id,
            "servedRevision": revision,
            "settledRevision": revision,
            "observedRetrainNonce": spec.retrain_nonce,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Served"}],
            **(figures or {}),
        }
        if retrained_at is not None:
            manifest["status"]["retrainedAt"] = retrained_at
        self.put_classifier(manifest, namespace)
        return servers

    def fail_training(self, classifier_id: str, message: str) -> None:
        manifest = self.classifier(classifier_id)
        spec = parse_classifier(manifest).spec
        manifest["status"] = {
            **(manifest.get("status") or {"classifierID": classifier_id}),
            "failedRevision": spec_revision(spec),
            "observedRetrainNonce": spec.retrain_nonce,
            "conditions": [{"type": "Stalled", "status": "True", "reason": "TrainingFailed", "message": message}],
        }
        self.put_classifier(manifest)

    def await_approval(self, classifier_id: str, message: str) -> None:
        """Mark the current spec as trained. It waits until a person approves it, and an earlier revision serves on."""
        manifest = self.classifier(classifier_id)
        spec = parse_classifier(manifest).spec
        condition = {"status": "False", "reason": "AwaitingApproval", "message": message}
        manifest["status"] = {
            **(manifest.get("status") or {"classifierID": classifier_id}),
            "history": [{"revision": spec_revision(spec), "trainedAt": "2026-05-04T11:50:00.000Z"}],
            "conditions": [{"type": name, **condition} for name in ("Ready", "Promoted")],
        }
        self.put_classifier(manifest)

    def start_server(
        self, classifier_id: str, revision: str, scores: Mapping[str, float], *, namespace: str = NAMESPACE
    ) -> StubInferenceServer:
        """A Pod that is Ready, with a stub behind its address."""
        number = next(self._numbers)
        server = StubInferenceServer(
            classifier_id=classifier_id,
            revision=revision,
            scores=dict(scores),
            address=f"{self._network}.{number}",
            name=f"pod-{number}",
            namespace=namespace,
        )
        self.servers.append(server)

        async def start() -> None:
            app = Starlette(routes=[Route("/predictions", server.predict, methods=["POST"])])
            self._servers[server.name] = await _start_server(app, server.address, INFERENCE_PORT)

        self.run(start())
        self.put_pod(server)
        return server

    def put_pod(self, server: StubInferenceServer, *, ready: bool = True, made_by_us: bool = True) -> None:
        labels = {
            CLASSIFIER_ID_LABEL: server.classifier_id,
            REVISION_LABEL: server.revision,
            COMPONENT_LABEL: "inference",
            CLASSIFIER_LABEL: "any",
        }
        maker = {"kind": "ReplicaSet", "name": f"any-{server.revision}-5d4f8c", "controller": True}
        pod = {
            "metadata": {"name": server.name, "labels": labels, "uid": server.name, "ownerReferences": [maker] * made_by_us},
            "status": {"podIP": server.address, "conditions": [{"type": "Ready", "status": str(ready)}]},
        }
        self.call(lambda: self.cluster.put(PODS, server.namespace, pod))

    def start_web_server(self, app: Starlette) -> str:
        """Start a web server on a new address, and return it: `http://127.x.y.z:port`."""
        number = next(self._numbers)
        host = f"{self._network}.{number}"

        async def start() -> int:
            running = await _start_server(app, host, 0)
            self._servers[f"web-{number}"] = running
            return int(running.server.servers[0].sockets[0].getsockname()[1])

        return f"http://{host}:{self.run(start())}"

    def kill_server(self, server: StubInferenceServer) -> None:
        """End the process; the Pod still looks Ready."""
        self.run(self._servers.pop(server.name).stop())

    def remove_pod(self, server: StubInferenceServer, namespace: str = NAMESPACE) -> None:
        self.call(lambda: self.cluster.remove(PODS, namespace, server.name))


def wait_for(condition: Callable[[], bool], what: str, timeout_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
