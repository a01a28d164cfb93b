"""Zips of images, and a web server that answers what a test says."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., bytes]
MakeZip = Callable[[Mapping[str, bytes]], bytes]
MakeExampleZip = Callable[..., bytes]


@dataclass
class Answer:
    """What the web server answers to one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared_bytes: int | None = None
    """What `Content-Length` says, where it is not the truth: the connection is closed after the body."""


class WebServer:
    """Answers each path with the answers set for it, one after the other; the last one stays. Others are not found."""

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
    """Bytes of a small image of one hue with noise; every seed another one."""

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
