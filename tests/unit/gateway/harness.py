"""A gateway on real sockets, over a fake of the Kubernetes API, stubs of inference servers and a folder as object store."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import os
import random
import re
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import uvicorn
from aiohttp.abc import AbstractResolver
from ocelli_cluster.resources import CLASSIFIERS, PODS, SECRETS
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
from ocelli_gateway.app import Dependencies, Gateway, build_app, build_internal_app, running_gateway
from ocelli_gateway.credentials import build_credential_set
from ocelli_gateway.http_protocol import build_protocol
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.settings import GatewaySettings
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.store_url import open_store
from tests.unit.gateway.in_memory_cluster import InMemoryCluster

T = TypeVar("T")

NAMESPACE = "team-a"
SYSTEM_NAMESPACE = "ocelli-system"
OWNER = "7d9f0c5e-33c1-4f0e-9a6c-0b6a6f1d2c11"
USER = "anna"
PASSWORD = "pass:word"
OTHER_USER = "bert"
OTHER_KEY = "the-key-of-bert"
VERSION = {"version": "2018-03-19"}
START_TIMEOUT_SECONDS = 20.0
_STAGE_NUMBERS = itertools.count(random.randrange(250))


def png(seed: int = 0, size: tuple[int, int] = (32, 32)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), "PNG")


def plain(color: tuple[int, ...], *, mode: str = "RGB", format_name: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    return encode(Image.new(mode, size, color if len(color) > 1 else color[0]), format_name)


def encode(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def build_zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def examples(seed: int = 0, count: int = 10) -> bytes:
    """A zip that may be learned from."""
    return build_zip({f"{index}.png": png(seed * 1000 + index, (12, 12)) for index in range(count)})


@dataclass(kw_only=True)
class StubInferenceServer:
    """Answers the prediction call as a Pod does, without a model: the scores are those it is given."""

    classifier_id: str
    revision: str
    scores: dict[str, float]
    address: str
    name: str
    refusal: tuple[int, str] | None = None
    """HTTP status and kind of the refusal that it answers with."""
    asked: int = 0
    languages: list[str | None] = field(default_factory=list)
    """Of each question."""
    thresholds: list[str | None] = field(default_factory=list)
    """Of each question. It answers every class all the same, as a server of an older version does."""
    hierarchies: dict[str, str] = field(default_factory=dict)
    """By class: where it stands."""
    namespace: str = NAMESPACE
    delay_seconds: float = 0.0
    may_answer: asyncio.Event | None = None
    """Where there is one it hangs until that is set."""

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
    """One gateway. `folder` is the store's."""

    address: str
    port: int
    internal_address: str
    """Of probes and metrics."""
    gateway: Gateway
    settings: GatewaySettings


@dataclass(kw_only=True)
class Stage:
    """A cluster with gateways, in a thread of its own. Every method may be called from the test's thread."""

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
        self.write_credentials("anna.json", user=USER, password=PASSWORD, namespace=NAMESPACE, owner=OWNER)
        self.write_credentials(
            "bert.json", user=OTHER_USER, password="other", namespace="team-b", owner="owner-b", api_key=OTHER_KEY
        )
        self.objects = open_store(self.store_folder.as_uri())
        # As deploy/ ships it: empty.
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
        metrics = Metrics()
        dependencies = Dependencies(
            settings=settings,
            client=self.cluster,  # type: ignore[arg-type]
            objects=self.objects,
            metrics=metrics,
            resolver=resolver,
        )
        gateway = await self._resources.enter_async_context(running_gateway(dependencies))
        app, internal_app = build_app(gateway, metrics), build_internal_app(gateway, metrics)
        http = build_protocol(stall_seconds=settings.body_timeout_seconds)
        running = await _start_server(app, "127.0.0.1", 0, http=http, ws="none", server_header=False)
        self._resources.push_async_callback(running.stop)
        internal = await _start_server(internal_app, "127.0.0.1", 0, ws="none")
        self._resources.push_async_callback(internal.stop)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while healthy and not (health := await gateway.health()).healthy:
            assert time.monotonic() < deadline, health.reason
            await asyncio.sleep(0.01)
        port, internal_port = (item.server.servers[0].sockets[0].getsockname()[1] for item in (running, internal))
        return GatewayInstance(
            address=f"http://127.0.0.1:{port}",
            port=port,
            internal_address=f"http://127.0.0.1:{internal_port}",
            gateway=gateway,
            settings=settings,
        )

    # What the operator does, as far as the gateway can see it.

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
        """The spec as it stands was learned and is served, by stubs that give these scores. `figures` of it go into status."""
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
        """A web server on an address of its own; returns its address, `http://127.x.y.z:port`."""
        number = next(self._numbers)
        host = f"{self._network}.{number}"

        async def start() -> int:
            running = await _start_server(app, host, 0)
            self._servers[f"web-{number}"] = running
            return int(running.server.servers[0].sockets[0].getsockname()[1])

        return f"http://{host}:{self.run(start())}"

    def kill_server(self, server: StubInferenceServer) -> None:
        """The process is gone; the Pod still looks Ready."""
        self.run(self._servers.pop(server.name).stop())

    def remove_pod(self, server: StubInferenceServer, namespace: str = NAMESPACE) -> None:
        self.call(lambda: self.cluster.remove(PODS, namespace, server.name))


ERROR_IDS = {
    "parameter_error",
    "input_error",
    "limit_exceeded",
    "classifier_not_ready",
    "not_found",
    "conflict",
    "unavailable",
    "unauthorized",
    "internal_error",
}


def assert_error(response: httpx.Response, status: int, error_id: str | None = None, *words: str) -> None:
    """The body of section 0.5, whole, with these words in its sentence."""
    assert response.status_code == status, response.text[:500]
    body = response.json()
    assert body["code"] == status
    assert isinstance(body["error"], str)
    assert body["error_id"] in ERROR_IDS
    assert error_id in (None, body["error_id"])
    assert [word for word in words if word not in body["error"]] == [], body["error"]
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["x-global-transaction-id"]


Files = Iterable[tuple[str, tuple[str, bytes] | bytes]]


@dataclass(kw_only=True)
class V3Client:
    """Calls of one user."""

    http: httpx.Client
    stage: Stage

    def create(self, name: str | None = "birds", files: Files | None = None, **options: Any) -> httpx.Response:
        parts = files if files is not None else TWO_SETS
        data = {} if name is None else {"name": name}
        return self.http.post("/v3/classifiers", data=data, files=list(parts), **options)

    def created(self, name: str = "birds", files: Files | None = None) -> str:
        response = self.create(name, files)
        assert response.status_code == 200, response.text[:500]
        classifier_id: str = response.json()["classifier_id"]
        return classifier_id

    def ready(self, name: str = "birds", scores: Mapping[str, float] | None = None, files: Files | None = None) -> str:
        """The id of a classifier that answers."""
        classifier_id = self.created(name, files)
        self.stage.finish_training(classifier_id, scores)
        return classifier_id

    def get(self, classifier_id: str) -> httpx.Response:
        return self.http.get(f"/v3/classifiers/{classifier_id}")

    def retrain(self, classifier_id: str, files: Files) -> httpx.Response:
        return self.http.post(f"/v3/classifiers/{classifier_id}", files=list(files))

    def delete(self, classifier_id: str) -> httpx.Response:
        return self.http.delete(f"/v3/classifiers/{classifier_id}")

    def classify(
        self, *images: tuple[str, bytes], part: str = "images_file", params: Mapping[str, str] | None = None, **fields: str
    ) -> httpx.Response:
        files = [(part, image) for image in images]
        return self.http.post("/v3/classify", data=fields, files=files, params={**VERSION, **(params or {})})


TWO_SETS: list[tuple[str, tuple[str, bytes]]] = [
    ("heron_positive_examples", ("heron.zip", examples(1))),
    ("owl_positive_examples", ("owl.zip", examples(2))),
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def connect(instance: GatewayInstance, stage: Stage, user: str = USER, password: str = PASSWORD) -> V3Client:
    headers = {"Authorization": basic(user, password)}
    return V3Client(http=httpx.Client(base_url=instance.address, headers=headers, params=VERSION, timeout=30), stage=stage)


def wait_for(condition: Callable[[], bool], what: str, timeout_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def exchange(instance: GatewayInstance, request: bytes, *, finish: bool = False, timeout_seconds: float = 10.0) -> bytes:
    """Send bytes over a connection of their own and read until the gateway closes it, or the answer is whole.

    `finish` closes the sending half afterwards, as a client that was cut off.
    """
    with socket.create_connection(("127.0.0.1", instance.port), timeout=timeout_seconds) as connection:
        connection.sendall(request)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    """One answer, or what came of it before the gateway closed the connection."""
    answer = b""
    while not _is_whole(answer):
        chunk = connection.recv(65536)
        if not chunk:
            break
        answer += chunk
    return answer


def _is_whole(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(separator) and length is not None and len(body) >= int(length[1])


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def head(method: str, target: str, *headers: str, user: str = USER, password: str = PASSWORD) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway", f"Authorization: {basic(user, password)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def multipart(parts: Iterable[tuple[str, bytes]], *, boundary: str = "BOUNDARY", closed: bool = True) -> bytes:
    """A body of parts, each given by its raw headers and its bytes."""
    body = b"".join(f"--{boundary}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n" for headers, data in parts)
    return body + (f"--{boundary}--\r\n".encode() if closed else b"")


MULTIPART_TYPE = "multipart/form-data; boundary=BOUNDARY"
