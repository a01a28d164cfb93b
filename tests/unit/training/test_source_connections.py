"""The installation's proxy and certificates, and the trainer's own guarded proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_http.guarded_proxy import GuardedProxy, ProxyLimits
from ocelli_local.certificates import Authority, Subject
from tests.unit.training.conftest import Reading

LOOPBACK = NetworkRules.parse(allowed="127.0.0.0/8", denied="")


@pytest.fixture
def zip_bytes(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(3)
    return data


@contextmanager
def running_proxy(networks: NetworkRules = LOOPBACK) -> Iterator[GuardedProxy]:
    """A proxy in a thread of its own, as the installation's."""
    loop = asyncio.new_event_loop()
    proxy = GuardedProxy(networks)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def tls_server(folder: Path, body: bytes) -> Iterator[tuple[str, str]]:
    """The address of a server with a certificate of its own authority, and that authority's certificate (PEM)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    authority = Authority(folder, "authority")
    pair = authority.issue("server", Subject(name="server", serves=("127.0.0.1",)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}", authority.pair.certificate.read_text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_with_a_certificate_of_the_installation_is_trusted(reading: Reading, tmp_path: Path, zip_bytes: bytes) -> None:
    with tls_server(tmp_path, zip_bytes) as (url, certificates):
        reading.certificates = certificates
        assert len(reading.read(Source(url=f"{url}/a.zip"))) == 3


def test_another_certificate_is_not_trusted(reading: Reading, tmp_path: Path, zip_bytes: bytes) -> None:
    with tls_server(tmp_path, zip_bytes) as (url, _):
        error = reading.refusal(Source(url=f"{url}/a.zip"))
    assert "the server's certificate is not trusted" in str(error)
    assert not error.transient


def test_sources_are_fetched_through_the_proxy(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    with running_proxy() as proxy:
        reading.proxy_url = proxy.url
        assert len(reading.read(Source(url=web_server.answer("/a.zip", body=zip_bytes)))) == 3
        served = proxy.served
    assert served == 1


def test_encrypted_sources_are_fetched_through_the_proxy(reading: Reading, tmp_path: Path, zip_bytes: bytes) -> None:
    with running_proxy() as proxy, tls_server(tmp_path, zip_bytes) as (url, certificates):
        reading.proxy_url, reading.certificates = proxy.url, certificates
        assert len(reading.read(Source(url=f"{url}/a.zip"))) == 3
        served = proxy.served
    assert served == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/a.zip",
        "https://10.0.0.1/a.zip",
        "http://10.0.0.1/a.zip",
        "https://[fd00::1]/a.zip",
        "https://10.1/a.zip",
        "http://0xa000001/a.zip",
    ],
)
def test_the_proxy_is_not_asked_for_private_addresses(reading: Reading, url: str) -> None:
    with running_proxy() as proxy:
        reading.proxy_url = proxy.url
        error = reading.refusal(Source(url=url))
        served = proxy.served
    assert "is in a private or denied network" in str(error)
    assert served == 0


@pytest.mark.parametrize("name", ["kubernetes.default.svc", "metadata.google.internal", "localhost"])
def test_the_proxy_is_not_asked_for_internal_names(reading: Reading, name: str) -> None:
    reading.networks = NetworkRules()
    with running_proxy() as proxy:
        reading.proxy_url = proxy.url
        error = reading.refusal(Source(url=f"https://{name}/a.zip"))
        served = proxy.served
    assert "is in a private or denied network" in str(error)
    assert served == 0


def test_a_redirect_to_a_private_address_is_not_followed_through_the_proxy(reading: Reading, web_server: Any) -> None:
    with running_proxy() as proxy:
        reading.proxy_url = proxy.url
        location = {"Location": "http://10.0.0.1/latest"}
        error = reading.refusal(Source(url=web_server.answer("/a.zip", status=302, headers=location)))
    assert "is in a private or denied network" in str(error)


def test_a_proxy_that_is_down_is_transient(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        reading.proxy_url = f"http://127.0.0.1:{free.getsockname()[1]}"
        error = reading.refusal(Source(url=web_server.answer("/a.zip", body=zip_bytes)))
    assert error.transient
    assert "the connection failed (" in str(error)


# --- the guarded proxy by itself


@asynccontextmanager
async def asked(proxy: GuardedProxy, request: str, *, login: bool = True) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """The head of the proxy's answer, and what follows."""
    host, _, port = proxy.url.rpartition("@")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    header = f"Proxy-Authorization: {proxy.authorization}\r\n" if login else ""
    writer.write(f"{request} HTTP/1.1\r\n{header}\r\n".encode())
    try:
        yield await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10), reader
    finally:
        writer.close()


def answer(request: str, *, login: bool = True, networks: NetworkRules = LOOPBACK) -> bytes:
    async def ask() -> bytes:
        async with GuardedProxy(networks) as proxy, asked(proxy, request, login=login) as (head, _):
            return head

    return asyncio.run(ask())


def test_a_client_without_the_password_gets_nothing(web_server: Any) -> None:
    assert answer(f"GET {web_server.url}/a", login=False).startswith(b"HTTP/1.1 407 ")
    assert web_server.requests == []


def test_an_address_that_is_not_allowed_is_not_connected_to(web_server: Any) -> None:
    assert answer(f"GET {web_server.url}/a", networks=NetworkRules()).startswith(b"HTTP/1.1 403 ")
    assert web_server.requests == []


def test_a_request_reaches_the_server_as_one_for_itself(web_server: Any) -> None:
    web_server.answer("/a", body=b"x")
    answer(f"GET {web_server.url}/a?b=c%20d")
    assert web_server.requests == ["/a?b=c%20d"]
    assert "Proxy-Authorization" not in web_server.headers[0]


def test_a_server_that_sends_too_much_is_cut_off(web_server: Any) -> None:
    web_server.answer("/a", body=bytes(1 << 20))

    async def ask() -> int:
        limits = ProxyLimits(received_bytes=100_000)
        async with GuardedProxy(LOOPBACK, limits=limits) as proxy, asked(proxy, f"GET {web_server.url}/a") as (head, reader):
            return len(head) + len(await asyncio.wait_for(reader.read(-1), 10))

    assert asyncio.run(ask()) <= 100_000


@pytest.mark.parametrize("request_line", ["", "CONNECT", "GET http://[::1/ x y"])
def test_what_is_no_request_ends_the_connection(request_line: str) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        answer(request_line)
