"""Zips of images, a web server with answers that a test sets, and a trainer."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocelli_api.classifier import SecretReference, Source
from ocelli_api.documents import parse_fields
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.outcome import ExitCode, Outcome, ProgressReport
from ocelli_api.pods import Environment, TrainingStep
from ocelli_api.settings import load_settings
from ocelli_storage.archives import ArchiveImage, SkippedEntry
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    CHECK_PAGE,
    CHECK_REPORT,
    DEFINITION,
    OUTCOME,
    PROGRESS,
    REPORT,
    REPORT_PAGE,
    ClassifierLocation,
)
from ocelli_storage.store_url import open_store
from ocelli_training.attempt import run_attempt
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import SourceAccess, SourceReader
from ocelli_training.sources import SourceError, SourceLimits
from ocelli_training.stop_request import StopRequest
from tests.installed_backbone import install_backbone

MakeImage = Callable[..., bytes]
MakeZip = Callable[[Mapping[str, bytes]], bytes]
MakeExampleZip = Callable[..., bytes]


@dataclass
class Answer:
    """The web server's answer to one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared_bytes: int | None = None
    """A wrong `Content-Length`: the connection is closed after the body."""
    delay_seconds: float = 0


class WebServer:
    """Answers each path with the answers set for it, in order; the last one is repeated. Other paths are not found."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        web_server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web_server.requests.append(self.path)
                web_server.headers.append(dict(self.headers.items()))
                answers = web_server.answers.get(self.path.split("?")[0], [Answer(status=404)])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                time.sleep(answer.delay_seconds)
                self.send_response(answer.status)
                length = len(answer.body) if answer.declared_bytes is None else answer.declared_bytes
                self.send_header("Content-Length", str(length))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = answer.declared_bytes is not None

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, **answer: Any) -> str:
        """Append an answer (the fields of `Answer`) to those of a path; returns the address."""
        self.answers.setdefault(path, []).append(Answer(**answer))
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Bytes of a small image of one hue with noise, different for every seed."""

    def make(seed: int = 0, *, red: int = 0, size: tuple[int, int] = (24, 24), kind: str = "PNG") -> bytes:
        noise = np.random.default_rng(seed).integers(0, 60, size=(size[1], size[0], 3))
        pixels = np.clip(noise + np.array([red, 60, 60]), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def make_zip() -> MakeZip:
    def make(files: Mapping[str, bytes]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def make_example_zip(make_image: MakeImage, make_zip: MakeZip) -> MakeExampleZip:
    """A zip of `count` images with seeds from `first_seed`, and further files."""

    def make(count: int = 12, *, first_seed: int = 0, red: int = 0, others: Mapping[str, bytes] | None = None) -> bytes:
        images = {f"{seed}.png": make_image(seed, red=red) for seed in range(first_seed, first_seed + count)}
        return make_zip({**images, **(others or {})})

    return make


def _refuse_to_end(number: int) -> None:
    raise AssertionError(f"signal {number} must not reach the process of the tests")


class Trainer:
    """A trainer with a store and folders of its own, run in this process or as the program that a Job starts."""

    revision = "0123456789"

    def __init__(
        self, folder: Path, *, namespace: str = "team-a", classifier_id: str = "dogs_1", store_folder: Path | None = None
    ) -> None:
        """`folder` exists and is empty. `store_folder` is that of an existing store; None: it has its own."""
        self.location = ClassifierLocation(namespace=namespace, classifier_id=classifier_id)
        self.folder = folder
        self.file_sources = folder / "examples"
        self.scratch = folder / "scratch"
        self.termination_message = folder / "termination-log"
        for path in (self.file_sources, self.scratch):
            path.mkdir()
        self.store = open_store((store_folder or folder / "store").as_uri())
        self.backbone = install_backbone(store_folder or folder / "store")
        self.environment: dict[str, str] = {
            Environment.STORE_URL: self.store.url,
            Environment.CLASSIFIER: f"{namespace}/dogs",
            Environment.NAMESPACE: self.location.namespace,
            Environment.CLASSIFIER_ID: self.location.classifier_id,
            Environment.REVISION: self.revision,
            Environment.BACKBONES: str(self.backbone),
            Environment.FILE_SOURCES_FOLDER: str(self.file_sources),
            Environment.SOURCES_ALLOWED_NETWORKS: "127.0.0.0/8",
            Environment.SCRATCH_FOLDER: str(self.scratch),
            Environment.TERMINATION_MESSAGE_PATH: str(self.termination_message),
            Environment.ATTEMPT: "1",
        }
        self.definition: dict[str, Any] = {"classes": []}

    def add_class(self, name: str, *sources: bytes | Mapping[str, Any]) -> None:
        """Add a class with sources: the bytes of zips, which become files, or sources as a definition has them."""
        self.definition["classes"].append({"name": name, "examples": [self._source(source) for source in sources]})

    def add_negatives(self, *sources: bytes | Mapping[str, Any]) -> None:
        self.definition["negativeExamples"] = [self._source(source) for source in sources]

    def upload(self, data: bytes, **fields: Any) -> dict[str, Any]:
        """A source whose zip is in the store, as after an upload."""
        digest = hashlib.sha256(data).hexdigest()
        self.put(self.location.upload_key(digest), data)
        return {"upload": digest, **fields}

    def check(self, attempt: int = 1) -> tuple[Outcome, ExitCode]:
        """Run the check of an attempt in this process."""
        self.environment[Environment.STEP] = TrainingStep.CHECK
        try:
            return self.run(attempt)
        finally:
            del self.environment[Environment.STEP]

    def run(self, attempt: int = 1) -> tuple[Outcome, ExitCode]:
        """Run an attempt in this process."""
        self.environment[Environment.ATTEMPT] = str(attempt)
        self.put_definition()
        settings = load_settings(TrainerSettings, {**self.environment, Environment.CPU_LIMIT: "2"})
        scratch = self.scratch / f"attempt-{attempt}-{settings.step}"
        scratch.mkdir()
        return asyncio.run(run_attempt(settings, self.store, scratch, StopRequest(_refuse_to_end)))

    def start(
        self, attempt: int = 1, *, arguments: Sequence[str] = ("-m", "ocelli_training"), **environment: str
    ) -> subprocess.Popen[str]:
        """Start the program, with the environment that an operator sets."""
        self.environment[Environment.ATTEMPT] = str(attempt)
        self.put_definition()
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**kept, **self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def put_definition(self) -> None:
        key = self.location.training_key(self.revision, self._attempt, DEFINITION)
        self.put(key, json.dumps(self.definition).encode())

    def put(self, key: str, data: bytes) -> None:
        asyncio.run(self.store.put(key, data))

    def get(self, key: str) -> bytes:
        return asyncio.run(self.store.get(key, limit_bytes=1 << 25))

    def exists(self, key: str) -> bool:
        return asyncio.run(self.store.exists(key))

    @property
    def outcome_key(self) -> str:
        return self.location.training_key(self.revision, self._attempt, OUTCOME)

    @property
    def progress_key(self) -> str:
        return self.location.training_key(self.revision, self._attempt, PROGRESS)

    @property
    def artifact_key(self) -> str:
        return self.location.artifact_key(self.revision, ARTIFACT_METADATA)

    @property
    def outcome(self) -> Outcome:
        return parse_fields(Outcome, json.loads(self.get(self.outcome_key)))

    @property
    def progress(self) -> ProgressReport:
        return parse_fields(ProgressReport, json.loads(self.get(self.progress_key)))

    @property
    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get(self.location.artifact_key(self.revision, REPORT)))
        return document

    @property
    def check_report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get(self._training_key(CHECK_REPORT)))
        return document

    @property
    def check_page(self) -> str:
        return self.get(self._training_key(CHECK_PAGE)).decode()

    def keys(self, part: str) -> list[str]:
        """The keys of stored objects that contain a text."""
        return sorted(item.key for item in asyncio.run(self.store.list_objects("tenants")) if part in item.key)

    def _training_key(self, file: str) -> str:
        return self.location.training_key(self.revision, self._attempt, file)

    @property
    def report_page(self) -> str:
        return self.get(self.location.artifact_key(self.revision, REPORT_PAGE)).decode()

    def delete_artifact(self) -> None:
        asyncio.run(self.store.delete_prefix(self.location.artifacts_prefix))

    @property
    def _attempt(self) -> int:
        return int(self.environment[Environment.ATTEMPT])

    def _source(self, source: bytes | Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(source, bytes):
            return dict(source)
        name = f"{len(list(self.file_sources.iterdir()))}.zip"
        (self.file_sources / name).write_bytes(source)
        return {"url": f"file:///{name}"}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, as the trainer has it while a training blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


@pytest.fixture
def make_trainer() -> type[Trainer]:
    """For tests with several installations."""
    return Trainer


class Reading:
    """A `SourceReader` with its own folders, used synchronously."""

    location = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "scratch"
        self.jail = folder / "jail"
        self.store_folder = folder / "store"
        for path in (self.scratch, self.jail, self.store_folder):
            path.mkdir()
        self.limits = SourceLimits(retry_delays_seconds=(0, 0), connect_seconds=2, silence_seconds=1)
        self.file_sources_enabled = True
        self.networks = NetworkRules.parse(allowed="127.0.0.0/8,::1/128", denied="")
        self.proxy_url = ""
        self.keeps_copies = False
        self.certificates = ""
        self.secrets_folder = folder / "secrets"
        self.secrets_folder.mkdir()

    def read(self, source: Source) -> list[ArchiveImage | SkippedEntry]:
        return asyncio.run(self._read(source))

    def read_file(self, source: Source) -> bytes:
        """The bytes of one file, as the import of pretrained weights reads them."""

        async def read() -> bytes:
            async with self._open() as reader, reader.fetch_file(source) as fetched:
                return fetched.path.read_bytes()

        return asyncio.run(read())

    def refusal(self, source: Source) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.read(source)
        return caught.value

    def store_upload(self, sha256: str, data: bytes) -> None:
        store = open_store(self.store_folder.as_uri())
        asyncio.run(store.put(self.location.upload_key(sha256), data))

    def mount_secret(self, name: str, **values: str) -> SecretReference:
        """Mount a Secret with these keys as a kubelet does; returns the reference to it."""
        (self.secrets_folder / name).mkdir()
        for key, value in values.items():
            (self.secrets_folder / name / key).write_text(value)
        return SecretReference(name=name)

    def _open(self) -> SourceReader:
        access = SourceAccess(
            store=open_store(self.store_folder.as_uri()),
            location=self.location,
            file_sources_folder=self.jail if self.file_sources_enabled else None,
            networks=self.networks,
            proxy_url=self.proxy_url,
            keeps_copies=self.keeps_copies,
            certificates=self.certificates,
            secrets_folder=self.secrets_folder,
        )
        return SourceReader(access, self.scratch, self.limits)

    async def _read(self, source: Source) -> list[ArchiveImage | SkippedEntry]:
        async with self._open() as reader, reader.fetch(source) as fetched:
            with fetched.refusals(), fetched.open() as images:
                return list(images)


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(tmp_path)
