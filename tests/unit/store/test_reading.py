"""A read returns the bytes of the object as it was when the read began, also if the key changes meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocelli_store.app import Store, build_app
from tests.unit.storage.running_store import build_store

KEY = "backbones/ab/model.onnx"
OLD = b"old bytes" * 30_000
NEW = b"new"


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = build_store(tmp_path)
    asyncio.run(put(store, OLD))
    return store


async def put(store: Store, data: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield data

    await store.folder.write(KEY, body())


async def replace(store: Store) -> None:
    await put(store, NEW)


async def delete(store: Store) -> None:
    await store.folder.delete(KEY)


async def leave(store: Store) -> None:
    """Nothing changes it."""


def read(
    store: Store,
    meanwhile: Callable[[Store], Coroutine[Any, Any, None]] = leave,
    method: str = "GET",
    key: str = KEY,
    **headers: str,
) -> Answer:
    """An answer of the store: `meanwhile` is called after its status and headers are sent."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.start":
            await meanwhile(store)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("the client does not disconnect")

    fields = {"authorization": "Bearer reader", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": method,
        "path": f"/objects/{key}",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }
    asyncio.run(build_app(store)(scope, receive, send))  # type: ignore[arg-type]
    return Answer(
        status=sent[0]["status"],
        headers={name.decode(): value.decode() for name, value in sent[0]["headers"]},
        body=b"".join(message.get("body", b"") for message in sent[1:]),
    )


@pytest.mark.parametrize("meanwhile", [leave, replace, delete])
def test_read_returns_the_object_as_it_was_at_its_beginning(
    store: Store, meanwhile: Callable[[Store], Coroutine[Any, Any, None]]
) -> None:
    answer = read(store, meanwhile)
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(OLD)))
    assert answer.body == OLD


@pytest.mark.parametrize("meanwhile", [leave, replace, delete])
def test_partial_read_returns_the_object_as_it_was_at_its_beginning(
    store: Store, meanwhile: Callable[[Store], Coroutine[Any, Any, None]]
) -> None:
    answer = read(store, meanwhile, range="bytes=100000-200000")
    assert (answer.status, answer.headers["content-range"]) == (206, f"bytes 100000-200000/{len(OLD)}")
    assert answer.body == OLD[100_000:200_001]


def test_range_beyond_the_object_is_refused(store: Store) -> None:
    assert read(store, range=f"bytes={len(OLD)}-").status == 416


def test_look_up_returns_the_size_without_a_body(store: Store) -> None:
    answer = read(store, method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(OLD)), b"")


@pytest.mark.parametrize("key", ["backbones/ab", "backbones/ab/missing", f"{KEY}/x"])
def test_missing_object_is_not_found(store: Store, key: str) -> None:
    assert read(store, key=key).status == 404


@pytest.mark.parametrize(("method", "headers"), [("GET", {}), ("HEAD", {}), ("GET", {"range": "bytes=9999999-"})])
def test_a_read_leaves_no_file_open(store: Store, method: str, headers: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "objects" / KEY).open("rb"):
        assert open_files(tmp_path) == [str(tmp_path / "objects" / KEY)]
    read(store, method=method, **headers)
    assert open_files(tmp_path) == []


def open_files(folder: Path) -> list[str]:
    """The files of a folder that this process has open. Other tests may open some of theirs meanwhile."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            # It was closed meanwhile, as that of this list is.
            continue
    return [path for path in found if path.startswith(str(folder))]
