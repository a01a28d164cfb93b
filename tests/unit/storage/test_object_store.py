"""Every kind of object store keeps the same promises: a folder, and the embedded store over HTTP."""

import asyncio
import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_storage.object_store import ObjectStore, StoreConfigurationError, StoreQuotaError, StoreUnavailableError
from ocelli_store.folder import ObjectFolder
from tests.unit.storage.running_store import open_embedded, raw_request, running_store, wait_until
from tests.unit.storage.store_promises import LARGE, LIMIT_BYTES, StorePromises, run

OWN = "tenants/team-a/artifacts/dogs_1/0123456789"
"""Where the tenant's trainers write, and whoever has a token of its namespace."""


@pytest.fixture
def embedded_url(tmp_path: Path) -> Iterator[str]:
    with running_store(tmp_path / "volume") as url:
        yield url


class TestFolder(StorePromises):
    """A folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return ObjectStore.from_url((tmp_path / "store").as_uri())


class TestEmbedded(StorePromises):
    """The embedded store over HTTP, and what only it does."""

    @pytest.fixture
    def store(self, embedded_url: str, tmp_path: Path) -> ObjectStore:
        return open_embedded(embedded_url, tmp_path)

    @pytest.mark.parametrize("token", ["writer", "reader"])
    def test_another_tenant_cannot_read(self, embedded_url: str, tmp_path: Path, token: str) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-b/x", b"abc"))
        with pytest.raises(StoreUnavailableError, match=r"403 .*team-a:default may not read 'tenants/team-b/x'"):
            run(open_embedded(embedded_url, tmp_path, token).get("tenants/team-b/x", limit_bytes=LIMIT_BYTES))

    def test_a_refusal_does_not_say_whether_something_is_there(self, embedded_url: str, tmp_path: Path) -> None:
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

    def test_uploads_are_the_gateways_to_delete(self, embedded_url: str, tmp_path: Path) -> None:
        key = "tenants/team-a/uploads/dogs_1/ab.zip"
        run(open_embedded(embedded_url, tmp_path).put(key, b"abc"))
        with pytest.raises(StoreUnavailableError, match="403 "):
            run(open_embedded(embedded_url, tmp_path, "writer").delete(key))

    @pytest.mark.parametrize("name", ["x#1", "#7", "x#", "x.tmp", ".x", "x%231", "x y", "ü"])
    def test_whatever_was_written_is_listed_and_can_be_deleted(self, embedded_url: str, tmp_path: Path, name: str) -> None:
        run(open_embedded(embedded_url, tmp_path, "writer").put(f"{OWN}/{name}", b"abc"))
        store = open_embedded(embedded_url, tmp_path)
        assert [item.key for item in run(store.list_objects("tenants"))] == [f"{OWN}/{name}"]
        assert run(store.delete_prefix("tenants/team-a/artifacts/dogs_1")) == 1
        assert not run(store.exists(f"{OWN}/{name}"))

    def test_what_has_no_key_is_not_listed(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("backbones/a/x", b"abc"))
        (tmp_path / "volume" / "objects" / "backbones" / "a\\b").mkdir()
        (tmp_path / "volume" / "objects" / "backbones" / "a" / os.fsdecode(b"\xff")).write_bytes(b"abc")
        assert [item.key for item in run(store.list_objects("backbones"))] == ["backbones/a/x"]
        assert run(store.list_folders("backbones")) == ["a"]

    def test_a_listing_that_the_volume_fails_is_no_complete_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def scandir(path: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with running_store(tmp_path / "volume") as url:
            store = open_embedded(url, tmp_path)
            run(store.put("backbones/a/x", b"abc"))
            monkeypatch.setattr(os, "scandir", scandir)
            with pytest.raises(StoreUnavailableError, match=r"500 the volume of the store cannot be read: Input/output error"):
                run(store.list_objects("backbones"))

    @pytest.mark.parametrize("key", ["tenants", "tenants/team-a", "tenants/team-a/uploads", "tenants/team-a/artifacts/dogs_1"])
    def test_no_object_takes_the_place_of_a_folder(self, embedded_url: str, tmp_path: Path, key: str) -> None:
        store = open_embedded(embedded_url, tmp_path)
        with pytest.raises(StoreUnavailableError, match=r"409 .*is a prefix of other keys"):
            run(store.put(key, b"abc"))
        run(store.put("tenants/team-a/uploads/dogs_1/ab.zip", b"abc"))

    def test_dots_lead_to_nobody_elses_part(self, embedded_url: str, tmp_path: Path) -> None:
        run(open_embedded(embedded_url, tmp_path).put("tenants/team-b/x", b"abc"))
        answer = raw_request(embedded_url, "GET /objects/tenants/team-a/../team-b/x HTTP/1.1", token="writer")
        assert answer.startswith("HTTP/1.1 400 ")

    def test_escaped_dots_lead_to_nobody_elses_part(self, embedded_url: str, tmp_path: Path) -> None:
        answer = raw_request(embedded_url, "GET /objects/tenants/team-a/%2e%2e%2fteam-b/x HTTP/1.1", token="writer")
        assert answer.startswith("HTTP/1.1 400 ")

    @pytest.mark.parametrize(("path", "words"), [("/livez", "ok"), ("/readyz", "ok"), ("/metrics", "ocelli_store_free_bytes")])
    def test_probes_and_metrics_ask_for_no_token(self, embedded_url: str, path: str, words: str) -> None:
        answer = raw_request(embedded_url, f"GET {path} HTTP/1.1")
        assert answer.startswith("HTTP/1.1 200 ")
        assert words in answer

    def test_metrics_say_how_much_of_the_volume_is_left(self, embedded_url: str) -> None:
        answer = raw_request(embedded_url, "GET /metrics HTTP/1.1")
        free, size = (float(re.findall(rf"^ocelli_store_{what}_bytes (\S+)", answer, re.M)[0]) for what in ("free", "size"))
        assert 0 < free <= size

    def test_a_store_whose_volume_cannot_be_written_is_not_ready(self, embedded_url: str, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "volume" / "incoming")
        answer = raw_request(embedded_url, "GET /readyz HTTP/1.1")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "the volume of the store cannot be written" in answer

    def test_an_unknown_token_is_refused(self, embedded_url: str, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match=r"401 .*another audience"):
            run(open_embedded(embedded_url, tmp_path, "stranger").get("tenants/team-a/x", limit_bytes=LIMIT_BYTES))

    def test_without_a_token_nothing_is_answered(self, embedded_url: str) -> None:
        assert raw_request(embedded_url, "GET /objects/tenants/team-a/x HTTP/1.1").startswith("HTTP/1.1 401 ")

    def test_a_declared_length_may_have_any_number_of_zeros_before_it(self, embedded_url: str, tmp_path: Path) -> None:
        head = f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: {'3':0>6000}"
        assert raw_request(embedded_url, head, token="writer", body=b"abc").startswith("HTTP/1.1 204 ")
        assert run(open_embedded(embedded_url, tmp_path).get(f"{OWN}/x", limit_bytes=3)) == b"abc"

    def test_an_upload_that_breaks_off_leaves_nothing(self, embedded_url: str, tmp_path: Path) -> None:
        head = f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: 3000000"
        raw_request(embedded_url, head, token="writer", body=b"x" * 2_000_000, wait=False)
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("tenants/team-a/y", b"abc"))
        wait_until(lambda: not list((tmp_path / "volume" / "incoming").iterdir()))
        assert [item.key for item in run(store.list_objects("tenants/team-a"))] == ["tenants/team-a/y"]

    def test_an_upload_of_which_nothing_comes_any_more_is_given_up(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", stall_seconds=0.05) as url:
            answer = raw_request(url, f"PUT /objects/{OWN}/x HTTP/1.1\r\nContent-Length: 30", token="writer", body=b"x")
        assert answer.startswith("HTTP/1.1 408 ")
        assert list((tmp_path / "volume" / "incoming").iterdir()) == []

    @pytest.mark.parametrize("kind", ["file", "bytes"])
    def test_a_write_over_the_quota_is_told_in_the_stores_words_and_not_sent_again(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "large").write_bytes(LARGE)
        with running_store(tmp_path / "volume", namespace_quota_bytes=len(LARGE)) as url:
            store = open_embedded(url, tmp_path, "writer", retry_limit_seconds=30)
            with pytest.raises(StoreQuotaError, match=r'namespace "team-a" has no room .* of its quota of 12.0 MiB .*; delete'):
                run(store.put(f"{OWN}/x", tmp_path / "large" if kind == "file" else LARGE))
            assert 'code="413",method="PUT"} 1.0' in raw_request(url, "GET /metrics HTTP/1.1")

    def test_what_an_administrator_writes_counts_for_the_tenant(self, tmp_path: Path) -> None:
        with running_store(tmp_path / "volume", namespace_quota_bytes=1_000_000) as url:
            run(open_embedded(url, tmp_path).put("tenants/team-a/x", b"x" * 900_000))
            with pytest.raises(StoreQuotaError):
                run(open_embedded(url, tmp_path, "writer").put(f"{OWN}/y", b"x" * 100_000))

    def test_what_a_killed_store_was_writing_is_gone_at_the_next_start(self, tmp_path: Path) -> None:
        (tmp_path / "incoming").mkdir()
        (tmp_path / "incoming" / "half").write_bytes(b"abc")
        ObjectFolder(tmp_path)
        assert list((tmp_path / "incoming").iterdir()) == []

    def test_a_key_below_an_object_is_refused(self, embedded_url: str, tmp_path: Path) -> None:
        store = open_embedded(embedded_url, tmp_path)
        run(store.put("tenants/team-a/x", b"abc"))
        with pytest.raises(StoreUnavailableError, match=r"409 .*is a prefix of other keys, or goes through one"):
            run(store.put("tenants/team-a/x/y", b"abc"))

    def test_a_store_that_restarts_is_waited_for(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        store = open_embedded(f"http://127.0.0.1:{port}", tmp_path, retry_limit_seconds=30)

        async def put_while_it_starts() -> None:
            writing = asyncio.create_task(store.put("tenants/team-a/x", b"abc"))
            await asyncio.sleep(0)
            with running_store(tmp_path / "volume", port=port):
                await writing

        run(put_while_it_starts())

    def test_a_store_that_does_not_answer_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError, match=f"could not read 'tenants/a/x': no answer of {url}"):
            run(open_embedded(url, tmp_path).get("tenants/a/x", limit_bytes=LIMIT_BYTES))

    def test_without_a_token_file_the_store_is_not_opened(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OCELLI_STORE_TOKEN_FILE", str(tmp_path / "missing"))
        with pytest.raises(StoreConfigurationError, match="OCELLI_STORE_TOKEN_FILE"):
            ObjectStore.from_url("http://ocelli-store")


@pytest.mark.parametrize("url", ["", "ftp://host/x", "/folder", "file://elsewhere/folder", "s3:///prefix", "http://"])
def test_a_url_of_no_store_is_refused_with_what_to_set(url: str) -> None:
    with pytest.raises(StoreConfigurationError, match="set "):
        ObjectStore.from_url(url)
