"""The embedded store on a port of its own, in this process, for callers by known tokens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ocelli_storage.embedded_store import EmbeddedStore
from ocelli_store.access import Caller
from ocelli_store.app import Store, build_app
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
    """Stands for the API server's TokenReview, which integration tests ask for real."""

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


@contextlib.contextmanager
def running_store(root: Path, *, port: int = 0, namespace_quota_bytes: int | None = None, **fields: Any) -> Iterator[str]:
    """The store at a URL; keyword arguments are fields of `Store`."""
    store = build_store(root, namespace_quota_bytes=namespace_quota_bytes, **fields)
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(build_app(store), ws="none", lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def open_embedded(url: str, tmp_path: Path, token: str = "administrator", retry_limit_seconds: float = 0) -> EmbeddedStore:
    file = tmp_path / f"token-{token}"
    file.write_text(token + "\n")
    return EmbeddedStore(url, file, retry_limit_seconds=retry_limit_seconds)


def raw_request(url: str, head: str, *, token: str | None = None, body: bytes = b"", wait: bool = True) -> str:
    """A request as clients would not send it; the answer, if it is waited for."""
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


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = threading.Event()
    for _ in range(int(seconds * 50)):
        if condition():
            return
        deadline.wait(0.02)
    raise AssertionError("it did not come about in time")
