"""The embedded store in this process, on its own port, with callers identified by known tokens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ocelli_http.server import ServerSettings, build_config
from ocelli_storage.embedded_store import EmbeddedStore
from ocelli_store.access import Caller
from ocelli_store.app import Store, build_app, build_internal_app
from ocelli_store.folder import ObjectFolder
from ocelli_store.metrics import Metrics

TENANT = "system:serviceaccount:team-a:default"
ADMINISTRATOR = "system:serviceaccount:ocelli-system:ocelli-operator"
CALLERS = {
    "writer": Caller(user_name=TENANT, may_write=True),
    "other": Caller(user_name="system:serviceaccount:team-b:default", may_write=True),
    "reader": Caller(user_name=TENANT, may_write=False),
    "administrator": Caller(user_name=ADMINISTRATOR, may_write=True),
}


class KnownTokens:
    """Stands in for the API server's TokenReview, which integration tests use."""

    async def identify(self, token: str) -> Caller | None:
        return CALLERS.get(token)


def build_store(root: Path, *, namespace_quota_bytes: int | None = None, **fields: Any) -> Store:
    """A store in a folder; keyword arguments are fields of `Store`."""
    folder = ObjectFolder(root, namespace_quota_bytes)
    return Store(
        folder=folder,
        reviewer=KnownTokens(),  # type: ignore[arg-type]
        administrators={ADMINISTRATOR},
        metrics=Metrics(free_bytes=folder.free_bytes, size_bytes=folder.size_bytes),
        **fields,
    )


class StoreURL(str):
    """The URL of objects."""

    internal_url: str
    """The URL of probes and metrics."""


@contextlib.contextmanager
def running_store(
    root: Path,
    *,
    port: int = 0,
    namespace_quota_bytes: int | None = None,
    server_settings: ServerSettings | None = None,
    **fields: Any,
) -> Iterator[StoreURL]:
    """The store at a URL, with the limits that its process has; further keyword arguments are fields of `Store`."""
    store = build_store(root, namespace_quota_bytes=namespace_quota_bytes, **fields)
    listener = socket.create_server(("127.0.0.1", port))
    # Not `ocelli_http`'s server: signals belong to the test runner.
    server = uvicorn.Server(build_config(build_app(store), **(server_settings or {})))
    internal_listener = socket.create_server(("127.0.0.1", 0))
    internal_server = uvicorn.Server(build_config(build_internal_app(store)))

    async def serve() -> None:
        await asyncio.gather(server.serve(sockets=[listener]), internal_server.serve(sockets=[internal_listener]))

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    url = StoreURL(f"http://127.0.0.1:{listener.getsockname()[1]}")
    url.internal_url = f"http://127.0.0.1:{internal_listener.getsockname()[1]}"
    try:
        yield url
    finally:
        server.should_exit = internal_server.should_exit = True
        thread.join(10)


def open_embedded(url: str, tmp_path: Path, token: str = "administrator", retry_limit_seconds: float = 0) -> EmbeddedStore:
    file = tmp_path / f"token-{token}"
    file.write_text(token + "\n")
    return EmbeddedStore(url, file, retry_limit_seconds=retry_limit_seconds)


def raw_request(url: str, head: str, *, token: str | None = None, body: bytes = b"", wait: bool = True) -> str:
    """A request that clients would not send; returns the answer, unless it does not wait for it."""
    host, port = url.removeprefix("http://").split(":")
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}\r\nHost: {host}\r\nConnection: close\r\n{authorization}\r\n".encode() + body)
        if not wait:
            return ""
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode()


@contextlib.contextmanager
def breaking_off(url: str, after_bytes: int, times: int = 1, meanwhile: Callable[[], None] | None = None) -> Iterator[str]:
    """A proxy to a store that cuts off the first answers after this many bytes, and runs `meanwhile` before each cut."""
    host, port = url.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(client: socket.socket, limit_bytes: int | None) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        with socket.create_connection((host, int(port)), timeout=10) as upstream:
            upstream.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            left_bytes = limit_bytes
            while chunk := upstream.recv(65536):
                client.sendall(chunk[:left_bytes])
                if left_bytes is not None:
                    left_bytes = max(0, left_bytes - len(chunk))
                    if not left_bytes:
                        break
        if limit_bytes is not None and meanwhile is not None:
            meanwhile()

    def serve() -> None:
        left = times
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as client:
                    relay(client, after_bytes if left > 0 else None)
                    left -= 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
