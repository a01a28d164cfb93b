"""Every kind of object store keeps the same promises: a folder, and the embedded store over HTTP."""

import asyncio
import contextlib
import errno
import itertools
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocelli_http.body_pace import BodyPace
from ocelli_storage.object_store import (
    ObjectStore,
    StoreConfigurationError,
    StoreQuotaError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ocelli_storage.store_url import open_store
from ocelli_store.folder import ObjectFolder
from ocelli_store.write_slots import WriteSlots
from tests.unit.storage.running_store import StoreURL, breaking_off, open_embedded, raw_request, running_store, wait_until
from tests.unit.storage.store_promises import LARGE, LIMIT_BYTES, StorePromises, read_all, run

OWN = "tenants/team-a/artifacts/dogs_1/0123456789"
"""A key that the tenant's trainers, and other holders of a token of its namespace, can write."""


def before_each_read(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> None:
    """Call a function before each read of a local file."""
    to_thread = asyncio.to_thread

    async def watched(function: Callable[..., Any], *arguments: Any) -> Any:
        if function.__name__ == "read":
            work()
        return await to_thread(function, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", watched)


def one_write() -> WriteSlots:
    """A limit of one concurrent write per namespace."""
    return WriteSlots(concurrent=1, waiting=1, wait_seconds=0.05)


@contextlib.contextmanager
def slow_write(url: str, token: str, namespace: str, size_bytes: int = 30) -> Iterator[socket.socket]:
    """A write whose body has not been sent yet."""
    host, port = url.removeprefix("http://").split(":")
    key = f"{OWN.replace('team-a', namespace)}/slow"
    head = f"PUT /objects/{key} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size_bytes}\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}Authorization: Bearer {token}\r\nExpect: 100-continue\r\n\r\n".encode())
        # Now it is being read.
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        yield connection


@pytest.fixture
def embedded_url(tmp_path: Path) -> Iterator[StoreURL]:
    with running_store(tmp_path / "volume") as url:
        yield url


class TestFolder(StorePromises):
    """A folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store((tmp_path / "store").as_uri())


class TestEmbedded(StorePromises):
    """The embedded store over HTTP, and promises of its own."""

    @pytest.fixture
    def store(self, embedded_url: str, tmp_path: Path) -> ObjectStore:
        return open_embedded(embedded_url, tmp_path)

    @pytest.mark.parametrize("token", ["writer", "reader"])
    def test_another_tenant_cannot_read(self, embedded_url: str, tmp_path: Path, token: str) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-b/x", b"abc"))
        with pytest.raises(StoreUnavailableError, match=r"403 .*team-a:default is not allowed to read 'tenants/team-b/x'"):
            run(open_embedded(embedded_url, tmp_path, token).get("tenants/team-b/x", limit_bytes=LIMIT_BYTES))

    def test_a_refusal_does_not_reveal_whether_an_object_exists(self, embedded_url: str, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match="403 "):
            run(open_embedded(embedded_url, tmp_path, "writer").get("tenants/team-b/missing", limit_bytes=LIMIT_BYTES))

    def test_another_tenant_cannot_list(self, embedded_url: str, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match="403 "):
            run(open_embedded(embedded_url, tmp_path, "writer").list_objects("tenants"))

    def test_another_tenant_cannot_delete(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-b/x", b"abc"))
        with pytest.raises(StoreUnavailableError, match="403 "):
            run(open_embedded(embedded_url, tmp_path, "writer").delete("tenants/team-b/x"))
        assert run(open_embedded(embedded_url, tmp_path).exists("tenants/team-b/x"))

    def test_a_trainer_writes_and_deletes_in_the_part_of_its_tenant(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path, "writer")
        run(store.put(f"{OWN}/artifact.json", b"abc"))
        run(store.delete(f"{OWN}/artifact.json"))
        assert not run(store.exists(f"{OWN}/artifact.json"))

    def test_only_the_gateway_can_delete_uploads(self, embedded_url: str, tmp_path: Path) -> None:
        key = "tenants/team-a/uploads/dogs_1/ab.zip"
        run(open_embedded(embedded_url, tmp_path).put(key, b"abc"))
        with pytest.raises(StoreUnavailableError, match="403 "):
            run(open_embedded(embedded_url, tmp_path, "writer").delete(key))

    @pytest.mark.parametrize("name", ["x#1", "#7", "x#", "x.tmp", ".x", "x%231", "x y", "ü"])
    def test_every_written_object_is_listed_and_can_be_deleted(self, embedded_url: str, tmp_path: Path, name: str) -> None:
        run(open_embedded(embedded_url, tmp_path, "writer").put(f"{OWN}/{name}", b"abc"))
        store = open_embedded(embedded_url, tmp_path)
        assert [item.key for item in run(store.list_objects("tenants"))] == [f"{OWN}/{name}"]
        assert run(store.delete_prefix("tenants/team-a/artifacts/dogs_1")) == 1
        assert not run(store.exists(f"{OWN}/{name}"))

    def test_files_without_a_valid_key_are_not_listed(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("backbones/a/x", b"abc"))
        (tmp_path / "volume" / "objects" / "backbones" / "a\\b").mkdir()
        (tmp_path / "volume" / "objects" / "backbones" / "a" / os.fsdecode(b"\xff")).write_bytes(b"abc")
        assert [item.key for item in run(store.list_objects("backbones"))] == ["backbones/a/x"]
        assert run(store.list_folders("backbones")) == ["a"]

    def test_a_listing_fails_if_the_volume_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def scandir(path: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with running_store(tmp_path / "volume") as url:
            store = open_embedded(url, tmp_path)
            run(store.put("backbones/a/x", b"abc"))
            monkeypatch.setattr(os, "scandir", scandir)
            with pytest.raises(StoreUnavailableError, match=r"500 the volume of the store cannot be read: Input/output error"):
                run(store.list_objects("backbones"))

    @pytest.mark.parametrize("key", ["tenants", "tenants/team-a", "tenants/team-a/uploads", "tenants/team-a/artifacts/dogs_1"])
    def test_an_object_cannot_replace_a_folder(self, embedded_url: str, tmp_path: Path, key: str) -> None:
        store = open_embedded(embedded_url, tmp_path)
        with pytest.raises(StoreUnavailableError, match=r"409 .*is a folder of the layout; use another key"):
            run(store.put(key, b"abc"))
        run(store.put("tenants/team-a/uploads/dogs_1/ab.zip", b"abc"))

    def test_dots_in_a_path_do_not_give_access_to_another_tenants_part(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-b/x", b"abc"))
        answer = raw_request(embedded_url, "GET /objects/tenants/team-a/../team-b/x HTTP/1.1", token="writer")
        assert answer.startswith("HTTP/1.1 400 ")

    def test_escaped_dots_in_a_path_do_not_give_access_to_another_tenants_part(self, embedded_url: str, tmp_path: Path) -> None:
        answer = raw_request(embedded_url, "GET /objects/tenants/team-a/%2e%2e%2fteam-b/x HTTP/1.1", token="writer")
        assert answer.startswith("HTTP/1.1 400 ")

    @pytest.mark.parametrize(("path", "words"), [("/livez", "ok"), ("/readyz", "ok"), ("/metrics", "ocelli_store_free_bytes")])
    def test_probes_and_metrics_need_no_token(self, embedded_url: StoreURL, path: str, words: str) -> None:
        answer = raw_request(embedded_url.internal_url, f"GET {path} HTTP/1.1")
        assert answer.startswith("HTTP/1.1 200 ")
        assert words in answer

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
    def test_probes_and_metrics_are_not_at_the_port_of_objects(self, embedded_url: StoreURL, path: str) -> None:
        assert raw_request(embedded_url, f"GET {path} HTTP/1.1").startswith("HTTP/1.1 404 ")

    def test_metrics_show_the_free_space_of_the_volume(self, embedded_url: StoreURL) -> None:
        answer = raw_request(embedded_url.internal_url, "GET /metrics HTTP/1.1")
        free, size = (float(re.findall(rf"^ocelli_store_{what}_bytes (\S+)", answer, re.M)[0]) for what in ("free", "size"))
        assert 0 < free <= size

    def test_a_store_whose_volume_cannot_be_written_is_not_ready(self, embedded_url: StoreURL, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "volume" / "incoming")
        answer = raw_request(embedded_url.internal_url, "GET /readyz HTTP/1.1")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "the volume of the store cannot be written" in answer

    def test_an_unknown_token_is_refused(self, embedded_url: str, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match=r"401 .*another audience"):
            run(open_embedded(embedded_url, tmp_path, "stranger").get("tenants/team-a/x", limit_bytes=LIMIT_BYTES))

    def test_requests_without_a_token_are_refused(self, embedded_url: str) -> None:
        assert raw_request(embedded_url, "GET /objects/tenants/team-a/x HTTP/1.1").startswith("HTTP/1.1 401 ")

    def test_a_declared_length_can_have_leading_zeros(self, embedded_url: str, tmp_path: Path) -> None:
        head = f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: {'3':0>6000}"
        assert raw_request(embedded_url, head, token="writer", body=b"abc").startswith("HTTP/1.1 204 ")
        assert run(open_embedded(embedded_url, tmp_path).get(f"{OWN}/x", limit_bytes=3)) == b"abc"

    def test_an_interrupted_upload_leaves_nothing(self, embedded_url: str, tmp_path: Path) -> None:
        head = f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: 3000000"
        raw_request(embedded_url, head, token="writer", body=b"x" * 2_000_000, wait=False)
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("tenants/team-a/y", b"abc"))
        wait_until(lambda: not list((tmp_path / "volume" / "incoming").iterdir()))
        assert [item.key for item in run(store.list_objects("tenants/team-a"))] == ["tenants/team-a/y"]

    def test_a_stalled_upload_times_out(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", pace=BodyPace(stall_seconds=0.05, least_bytes_per_second=1024)) as url:
            answer = raw_request(url, f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: 30", token="writer", body=b"x")
        assert answer.startswith("HTTP/1.1 408 ")
        assert list((tmp_path / "volume" / "incoming").iterdir()) == []

    def test_concurrent_writes_of_a_namespace_are_limited_with_retry_after(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", writes=one_write()) as url, slow_write(url, "writer", "team-a"):
            answer = raw_request(url, f"PUT /objects/{OWN}/y HTTP/1.1\r\nContent-Length: 1", token="writer", body=b"x")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in answer
        assert "this namespace has 1 writes in flight" in answer

    @pytest.mark.parametrize("token", ["other", "administrator"])
    def test_writes_of_one_namespace_do_not_delay_others(self, tmp_path: Path, token: str) -> None:
        place = OWN.replace("team-a", "team-b") if token == "other" else OWN
        with running_store(tmp_path / "volume", writes=one_write()) as url, slow_write(url, "writer", "team-a"):
            run(open_embedded(url, tmp_path, token).put(f"{place}/y", b"x"))

    @pytest.mark.slow
    def test_a_write_refused_for_its_namespaces_limit_is_retried(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", writes=one_write()) as url:
            store = open_embedded(url, tmp_path, "writer", retry_limit_seconds=30)
            (tmp_path / "large").write_bytes(LARGE)
            with slow_write(url, "writer", "team-a") as connection:
                finishing = threading.Timer(0.5, connection.sendall, [b"x" * 30])
                finishing.start()
                run(store.put(f"{OWN}/y", tmp_path / "large"))
                finishing.join()
            assert run(store.get(f"{OWN}/y", limit_bytes=LIMIT_BYTES)) == LARGE
            assert 'code="503",method="PUT"}' in raw_request(url.internal_url, "GET /metrics HTTP/1.1")

    def test_a_slow_write_uses_little_memory(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume") as url, slow_write(url, "writer", "team-a", 1_000_000) as connection:
            connection.sendall(b"x" * 500_000)
            incoming = tmp_path / "volume" / "incoming"
            wait_until(lambda: sum(path.stat().st_size for path in incoming.iterdir()) > 300_000)

    @pytest.mark.parametrize("kind", ["file", "bytes"])
    def test_write_over_the_quota_has_the_message_of_the_store_and_is_not_retried(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "large").write_bytes(LARGE)
        with running_store(tmp_path / "volume", namespace_quota_bytes=len(LARGE)) as url:
            store = open_embedded(url, tmp_path, "writer", retry_limit_seconds=30)
            with pytest.raises(StoreQuotaError, match=r'namespace "team-a" exceeds its quota .* of 12.0 MiB are used'):
                run(store.put(f"{OWN}/x", tmp_path / "large" if kind == "file" else LARGE))
            assert 'code="413",method="PUT"} 1.0' in raw_request(url.internal_url, "GET /metrics HTTP/1.1")

    def test_writes_of_an_administrator_count_against_the_tenant(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", namespace_quota_bytes=1_000_000) as url:
            run(open_embedded(url, tmp_path).put("tenants/team-a/x", b"x" * 900_000))
            with pytest.raises(StoreQuotaError):
                run(open_embedded(url, tmp_path, "writer").put(f"{OWN}/y", b"x" * 100_000))

    def test_unfinished_writes_of_a_killed_store_are_removed_at_the_next_start(self, tmp_path: Path) -> None:
        (tmp_path / "incoming").mkdir()
        (tmp_path / "incoming" / "half").write_bytes(b"abc")
        ObjectFolder(tmp_path)
        assert list((tmp_path / "incoming").iterdir()) == []

    def test_a_key_below_an_object_is_refused(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("tenants/team-a/x", b"abc"))
        with pytest.raises(StoreUnavailableError, match=r"409 .*is a prefix of another key, or"):
            run(store.put("tenants/team-a/x/y", b"abc"))

    def test_clients_wait_for_a_restarting_store(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        store = open_embedded(f"http://127.0.0.1:{port}", tmp_path, retry_limit_seconds=30)

        async def put_while_it_starts() -> None:
            writing = asyncio.create_task(store.put("tenants/team-a/x", b"abc"))
            await asyncio.sleep(0)
            with running_store(tmp_path / "volume", port=port):
                await writing

        run(put_while_it_starts())

    def test_a_missing_local_file_fails_immediately(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path, retry_limit_seconds=30)
        started = time.monotonic()
        with pytest.raises(FileNotFoundError):
            run(store.put("tenants/team-a/x", tmp_path / "missing"))
        assert time.monotonic() - started < 5

    def test_a_local_file_that_fails_while_it_is_sent_is_reported_and_not_retried(
        self, embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "large").write_bytes(LARGE)
        reads = itertools.count()

        def fail() -> None:
            if next(reads) == 2:
                raise OSError(errno.EIO, "the disk fails")

        before_each_read(monkeypatch, fail)
        started = time.monotonic()
        with pytest.raises(OSError, match="the disk fails"):
            run(open_embedded(embedded_url, tmp_path, retry_limit_seconds=30).put("tenants/team-a/x", tmp_path / "large"))
        assert time.monotonic() - started < 5

    def test_a_local_file_that_becomes_shorter_is_reported(
        self, embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "large").write_bytes(LARGE)
        before_each_read(monkeypatch, lambda: os.truncate(tmp_path / "large", 2_000_000))
        with pytest.raises(OSError, match="became shorter while it was being sent"):
            run(open_embedded(embedded_url, tmp_path, retry_limit_seconds=30).put("tenants/team-a/x", tmp_path / "large"))

    @pytest.mark.slow
    def test_an_interrupted_read_is_retried(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-a/x", LARGE))
        with breaking_off(embedded_url, after_bytes=1_000_000) as url:
            assert (
                run(open_embedded(url, tmp_path, retry_limit_seconds=30).get("tenants/team-a/x", limit_bytes=LIMIT_BYTES))
                == LARGE
            )

    def test_a_read_that_is_interrupted_for_too_long_is_reported(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-a/x", LARGE))
        with (
            breaking_off(embedded_url, after_bytes=1_000_000, times=99) as url,
            pytest.raises(StoreUnavailableError, match="could not read 'tenants/team-a/x': the connection was interrupted"),
        ):
            run(open_embedded(url, tmp_path, retry_limit_seconds=0.2).get("tenants/team-a/x", limit_bytes=LIMIT_BYTES))

    @pytest.mark.slow
    def test_a_long_read_continues_where_it_was_interrupted(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-a/x", LARGE))
        with breaking_off(embedded_url, after_bytes=3_000_001, times=3) as url:
            store = open_embedded(url, tmp_path, retry_limit_seconds=30)
            assert run(read_all(store.open_read("tenants/team-a/x"))) == LARGE

    def test_a_long_read_does_not_continue_in_another_object(self, embedded_url: str, tmp_path: Path) -> None:
        def replace() -> None:
            run(open_embedded(embedded_url, tmp_path).put("tenants/team-a/x", LARGE[::-1]))

        run(open_embedded(embedded_url, tmp_path).put("tenants/team-a/x", LARGE))
        with breaking_off(embedded_url, after_bytes=3_000_000, meanwhile=replace) as url:
            store = open_embedded(url, tmp_path, retry_limit_seconds=30)
            with pytest.raises(StoreUnavailableError, match="interrupted, and the object has changed since"):
                run(read_all(store.open_read("tenants/team-a/x")))

    def test_a_store_that_does_not_answer_is_named_in_the_error(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError, match=f"could not read 'tenants/a/x': no answer from {url}"):
            run(open_embedded(url, tmp_path).get("tenants/a/x", limit_bytes=LIMIT_BYTES))

    def test_opening_the_store_fails_without_a_token_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OCELLI_STORE_TOKEN_FILE", str(tmp_path / "missing"))
        with pytest.raises(StoreConfigurationError, match="OCELLI_STORE_TOKEN_FILE"):
            open_store("http://ocelli-store")


@pytest.mark.parametrize("url", ["", "ftp://host/x", "/folder", "file://elsewhere/folder", "s3:///prefix", "http://"])
def test_invalid_store_url_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(StoreConfigurationError, match="set "):
        open_store(url)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_store_that_cannot_be_reached_is_reported_as_unreachable_in_time(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    token = tmp_path / "token"
    token.write_text("reader")
    for name, value in {
        "OCELLI_STORE_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "here",
    }.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket" if scheme == "s3" else address, retry_limit_seconds=0.3)

    async def read() -> None:
        await store.get(OWN, limit_bytes=LIMIT_BYTES)

    started_at = time.monotonic()
    with pytest.raises(StoreUnreachableError, match=rf"could not read '{OWN}': no answer.*; check that"):
        run(read())
    assert time.monotonic() - started_at < 5


def test_error_of_a_folder_has_fact_and_remedy(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    run(store.put("a", b"1"))
    with pytest.raises(StoreUnavailableError) as caught:
        run(store.put("a/b/c", b"1"))
    assert str(caught.value) == (
        "object store: could not write 'a/b/c': the folder cannot be used (Not a directory); check its volume and "
        "its permissions"
    )
