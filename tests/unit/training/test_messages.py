"""Messages have object, fact and remedy: none shows the name or the text of a Python exception."""

from __future__ import annotations

import errno
import socket
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from ocelli_api.classifier import Source
from ocelli_model.backbones import published_weights
from ocelli_storage import embedded_store
from ocelli_storage.object_store import ObjectStoreError
from ocelli_storage.store_url import open_store
from ocelli_training.failure import describe_failure
from ocelli_training.pretrained_labels import LabelError, Text, parse_translations
from tests.unit.training.conftest import Reading

PYTHON = ("Error", "Errno", "Exception", "codec", "Traceback", "null byte", "Expecting", "None", "secret")
"""Words of an exception's name or text; the last is used as the text of exceptions."""


def assert_plain(message: str) -> None:
    assert message
    assert [word for word in PYTHON if word in message] == []


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("secret"),
        KeyError("secret"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "secret"),
        RuntimeError("secret"),
        OSError(errno.EIO, "secret"),
        TimeoutError(),
        MemoryError("secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_training_is_described_without_an_exception(error: Exception) -> None:
    assert_plain(describe_failure("team-a/dogs", error).message)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("secret"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("secret"),
        aiohttp.ClientOSError(),
        aiohttp.ServerTimeoutError("secret"),
        aiohttp.ClientError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_connection_to_the_store_is_described_without_an_exception(error: Exception) -> None:
    assert_plain(embedded_store._describe_cause(error))


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError(TimeoutError("secret")),
        urllib.error.URLError(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
        urllib.error.URLError("secret"),
        urllib.error.HTTPError("http://x", 404, "secret", None, None),  # type: ignore[arg-type]
        ValueError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_weights_that_cannot_be_fetched_are_described_without_an_exception(error: Exception) -> None:
    assert_plain(f"not fetched{published_weights._describe_cause(error)}")


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff", b""])
def test_a_broken_translation_is_described_without_an_exception(data: bytes) -> None:
    with pytest.raises(LabelError) as caught:
        parse_translations(Text(name="translations", data=data))
    assert_plain(str(caught.value))


@pytest.fixture
def answer_once() -> Iterator[Callable[[bytes], str]]:
    """Start a server that answers every client with these bytes and closes. Returns its address."""
    servers: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/a.zip"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe nothing of HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nPK",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    ],
    ids=["nothing", "no HTTP", "cut off", "bad chunk", "bad redirect"],
)
def test_a_source_whose_answer_fails_is_described_without_an_exception(
    reading: Reading, answer_once: Callable[[bytes], str], answer: bytes
) -> None:
    assert_plain(str(reading.refusal(Source(url=answer_once(answer)))))


@pytest.mark.parametrize("path", ["a%00b.zip", "loop", "x" * 300, "%ff%fe.zip", "missing.zip"])
def test_a_file_source_that_cannot_be_read_is_described_without_an_exception(reading: Reading, path: str) -> None:
    (reading.jail / "loop").symlink_to("loop")

    assert_plain(str(reading.refusal(Source(url=f"file:///{path}"))))


def test_a_store_folder_that_cannot_be_made_is_described_without_an_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ObjectStoreError) as caught:
        open_store((tmp_path / "file" / "store").as_uri())

    assert_plain(str(caught.value))
