"""Sources in a real S3 server: what is read, and what happens when the server or the credentials are bad."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import secrets
import tarfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from ocelli_api.classifier import SecretReference, Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.outcome import OutcomeReason
from ocelli_http.guarded_client import ConnectionRules
from ocelli_storage.archives import MEGABYTE, ArchiveImage, ArchiveLimits, EntryFault, SkippedEntry
from ocelli_storage.obstore_store import ObstoreStore
from ocelli_training.cloud_identity import CloudIdentity
from ocelli_training.source_buckets import Buckets, PodIdentity
from ocelli_training.source_secrets import load_source_secret
from ocelli_training.sources import SourceLimits
from tests.integration.storage.conftest import ADMINISTRATOR, BucketServer
from tests.unit.training.conftest import Reading, make_example_zip, make_image, make_zip, reading

# The fixtures of the trainer's tests.
__all__ = ["make_example_zip", "make_image", "make_zip", "reading"]

ANYBODY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": ["arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"],
        }
    ],
}


class Bucket:
    """A bucket, the reader of sources, and a Secret for the bucket."""

    def __init__(self, server: BucketServer, reading: Reading) -> None:
        self.server = server
        self.reading = reading
        self.name = f"training-{secrets.token_hex(4)}"
        (server.folder / self.name).mkdir()
        self.secret = self.mount("s3-read")

    def mount(self, name: str, **values: str) -> SecretReference:
        keys = {
            "hosts": f"s3://{self.name}",
            "AWS_ACCESS_KEY_ID": ADMINISTRATOR[0],
            "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR[1],
            "AWS_ENDPOINT_URL": self.server.url,
        }
        return self.reading.mount_secret(name, **{**keys, **values})

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store objects by S3, so that they have ETags."""
        variables = self.server.environment(*ADMINISTRATOR)
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            store = ObstoreStore.open_bucket(f"s3://{self.name}")
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

        async def put() -> None:
            for key, data in files.items():
                await store.put(key, data)

        asyncio.run(put())

    def source(self, key: str, secret: SecretReference | None = None, **fields: Any) -> Source:
        return Source(url=f"s3://{self.name}/{key}", secret_ref=secret or self.secret, **fields)


@pytest.fixture
def bucket(bucket_server: BucketServer, reading: Reading) -> Bucket:
    return Bucket(bucket_server, reading)


@pytest.fixture
def zip_bytes(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(3)
    return data


def images_of(make_image: Any, folder: str = "", count: int = 3) -> dict[str, bytes]:
    return {f"{folder}{seed}.png": make_image(seed) for seed in range(count)}


class ThreadServer(ABC):
    """A TCP server in a thread with an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._answer, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        async def close() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @abstractmethod
    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""


class Relay(ThreadServer):
    """A server in front of the bucket's that misbehaves after so many bytes of an answer.

    Its first connection calls `meanwhile` then; the behaviours "continue" and "cut once" relay everything else.
    """

    def __init__(
        self, target_port: int, behaviour: str, after_bytes: int, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self._target_port = target_port
        self._behaviour = behaviour
        self._after_bytes = after_bytes
        self._meanwhile = meanwhile
        self.connections = 0
        super().__init__()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            server_writer.write(await reader.readuntil(b"\r\n\r\n"))
            is_first = self.connections == 1
            writer.write(await server_reader.readexactly(self._after_bytes))
            await writer.drain()
            if is_first:
                await asyncio.to_thread(self._meanwhile)
            if self._behaviour == "silent":
                await asyncio.sleep(60)
            while self._behaviour == "continue" or (self._behaviour == "cut once" and not is_first):
                if not (chunk := await server_reader.read(MEGABYTE)):
                    writer.close()
                    await writer.wait_closed()
                    return
                writer.write(chunk)
                await writer.drain()
            while self._behaviour == "slow":
                writer.write(await server_reader.read(10))
                await writer.drain()
                await asyncio.sleep(0.05)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            server_writer.close()
            writer.transport.abort()


@contextmanager
def misbehaving(
    server: BucketServer, behaviour: str, *, after_bytes: int, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Relay]:
    relay = Relay(int(server.url.rpartition(":")[2]), behaviour, after_bytes, meanwhile)
    try:
        yield relay
    finally:
        relay.close()


# --- what is read


def test_a_zip_in_a_bucket_is_a_source(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats/a b%.zip": zip_bytes})
    assert len(bucket.reading.read(bucket.source("cats/a%20b%25.zip"))) == 3


def test_a_tar_in_a_bucket_is_a_source(bucket: Bucket, make_image: Any) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in images_of(make_image).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    bucket.put({"cats.tar.gz": file.getvalue()})
    assert len(bucket.reading.read(bucket.source("cats.tar.gz"))) == 3


def test_a_pin_is_verified(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats.zip": zip_bytes})
    assert len(bucket.reading.read(bucket.source("cats.zip", sha256=hashlib.sha256(zip_bytes).hexdigest()))) == 3
    error = bucket.reading.refusal(bucket.source("cats.zip", sha256="0" * 64))
    assert error.reason is OutcomeReason.INVALID_DATA


def test_every_image_below_a_prefix_is_an_example(bucket: Bucket, make_image: Any) -> None:
    bucket.put({**images_of(make_image, "cats/deep/"), "cats/ä b+%.png": make_image(9), "dogs/0.png": make_image(8)})
    bucket.put({"cats/.hidden.png": b"x", "cats/note.txt": b"text", "cats-2/0.png": make_image(7)})
    found = bucket.reading.read(bucket.source("cats/"))
    assert [item.name for item in found if isinstance(item, ArchiveImage)] == [
        "deep/0.png",
        "deep/1.png",
        "deep/2.png",
        "ä b+%.png",
    ]
    assert [(item.name, item.fault) for item in found if isinstance(item, SkippedEntry)] == [
        ("note.txt", EntryFault.NOT_AN_IMAGE)
    ]
    assert list(bucket.reading.scratch.iterdir()) == []


def test_a_whole_bucket_is_a_prefix(bucket: Bucket, make_image: Any) -> None:
    bucket.put(images_of(make_image, "cats/"))
    found = bucket.reading.read(bucket.source(""))
    assert [item.name for item in found] == ["cats/0.png", "cats/1.png", "cats/2.png"]


def test_a_listing_of_several_pages_is_complete(bucket: Bucket) -> None:
    folder = bucket.server.folder / bucket.name / "cats"
    folder.mkdir()
    for number in range(1100):
        (folder / f"{number:04}.png").write_bytes(b"x")

    async def list_all() -> list[str]:
        buckets = Buckets(
            ConnectionRules(networks=bucket.reading.networks), PodIdentity(buckets=frozenset(), cloud=CloudIdentity())
        )
        secret = load_source_secret(bucket.reading.secrets_folder, "team-a", bucket.secret.name)
        try:
            found = await buckets.list_objects(f"s3://{bucket.name}/cats/", SourceLimits(), secret)
        finally:
            await buckets.close()
        return [item.key for item in found]

    assert asyncio.run(list_all()) == [f"cats/{number:04}.png" for number in range(1100)]


def test_an_object_above_the_limit_of_an_image_is_not_fetched(bucket: Bucket, make_image: Any) -> None:
    bucket.put({"cats/0.png": make_image(), "cats/1.png": make_image() + bytes(5000)})
    bucket.reading.limits = SourceLimits(archive=ArchiveLimits(image_bytes=4000))
    found = bucket.reading.read(bucket.source("cats/"))
    assert [getattr(item, "fault", None) for item in found] == [None, EntryFault.TOO_LARGE]


def test_a_list_names_objects_next_to_it_and_elsewhere(bucket: Bucket, make_image: Any) -> None:
    bucket.put(images_of(make_image, "cats/"))
    bucket.put({"cats/list.csv": f"url\n1.png\ns3://{bucket.name}/cats/0.png\n".encode()})
    found = bucket.reading.read(bucket.source("cats/list.csv"))
    assert [item.data for item in found if isinstance(item, ArchiveImage)] == [make_image(1), make_image(0)]


def test_a_public_bucket_needs_no_secret(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats.zip": zip_bytes})
    bucket.server.put_policy(bucket.name, json.dumps(ANYBODY).replace("BUCKET", bucket.name))
    public = bucket.mount("public", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert len(bucket.reading.read(bucket.source("cats.zip", public))) == 3


def test_a_bucket_of_another_cloud_is_read_by_its_own_client(bucket: Bucket, make_image: Any) -> None:
    # Google's XML API and this server agree on how public objects are read and listed.
    bucket.put(images_of(make_image, "cats/"))
    bucket.server.put_policy(bucket.name, json.dumps(ANYBODY).replace("BUCKET", bucket.name))
    secret = bucket.reading.mount_secret("gs-read", hosts=f"gs://{bucket.name}", GOOGLE_ENDPOINT_URL=bucket.server.url)
    assert len(bucket.reading.read(Source(url=f"gs://{bucket.name}/cats/", secret_ref=secret))) == 3


# --- what is refused


def test_wrong_credentials_are_refused_at_once(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats.zip": zip_bytes})
    for name, values in {
        "wrong-key": {"AWS_SECRET_ACCESS_KEY": "not-the-secret"},
        "unknown-user": {"AWS_ACCESS_KEY_ID": "nobody"},
        "no-credentials": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    }.items():
        error = bucket.reading.refusal(bucket.source("cats.zip", bucket.mount(name, **values)))
        assert f'the server refuses the credentials in Secret "{name}"; correct them, or their permissions' in str(error)
        assert "not-the-secret" not in str(error)
        assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, False)


def test_a_user_without_rights_is_refused(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats.zip": zip_bytes})
    user = f"user-{bucket.name}"
    bucket.server.create_user(user, "secret-of-the-user")
    secret = bucket.mount("other-user", AWS_ACCESS_KEY_ID=user, AWS_SECRET_ACCESS_KEY="secret-of-the-user")
    assert "refuses the credentials" in str(bucket.reading.refusal(bucket.source("cats.zip", secret)))


def test_a_bucket_that_the_secret_does_not_list_gets_nothing(bucket: Bucket, bucket_server: BucketServer) -> None:
    with misbehaving(bucket_server, "cut", after_bytes=0) as relay:
        secret = bucket.mount("other", hosts="s3://another", AWS_ENDPOINT_URL=relay.url)
        error = bucket.reading.refusal(bucket.source("cats.zip", secret))
    assert 'Secret "other" does not list its host' in str(error)
    assert relay.connections == 0


def test_an_endpoint_in_a_private_network_is_refused(bucket: Bucket, zip_bytes: bytes) -> None:
    bucket.put({"cats.zip": zip_bytes})
    bucket.reading.networks = NetworkRules()
    for key in ("cats.zip", "cats/"):
        error = bucket.reading.refusal(bucket.source(key))
        assert "is in a private or denied network" in str(error)
        assert not error.transient


@pytest.mark.parametrize("key", ["none.zip", "none/"])
def test_what_does_not_exist_is_said(bucket: Bucket, key: str) -> None:
    error = bucket.reading.refusal(bucket.source(key))
    assert "there is no such object" in str(error) or "there are no images below this prefix" in str(error)
    assert not error.transient


def test_a_bucket_that_does_not_exist_is_said(bucket: Bucket) -> None:
    secret = bucket.mount("nothing", hosts="s3://nothing")
    for key in ("cats.zip", "cats/"):
        error = bucket.reading.refusal(Source(url=f"s3://nothing/{key}", secret_ref=secret))
        assert "no such bucket; correct the address" in str(error)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://UPPER/a.zip", "s3:///a.zip", "s3://-a/a.zip", "s3://a%2fb/a.zip", "s3://us er/a.zip"]
)
def test_an_impossible_bucket_is_refused(reading: Reading, url: str) -> None:
    error = reading.refusal(Source(url=url))
    assert "it has no valid bucket" in str(error)
    assert not error.transient


def test_an_address_without_an_object_is_refused(bucket: Bucket) -> None:
    error = bucket.reading.refusal(Source(url=f"s3://{bucket.name}", secret_ref=bucket.secret))
    assert "it names a bucket without an object" in str(error)


def test_a_prefix_has_no_pin(bucket: Bucket) -> None:
    assert "a prefix has no digest" in str(bucket.reading.refusal(bucket.source("cats/", sha256="0" * 64)))


def test_more_objects_than_a_source_may_have_are_refused(bucket: Bucket, make_image: Any) -> None:
    bucket.put(images_of(make_image, "cats/", 4))
    bucket.reading.limits = SourceLimits(archive=ArchiveLimits(images=3))
    assert "more than 3 objects below this prefix" in str(bucket.reading.refusal(bucket.source("cats/")))
    bucket.reading.limits = SourceLimits(archive=ArchiveLimits(entries=3))
    assert "more than 3 objects; split them" in str(bucket.reading.refusal(bucket.source("cats/")))


# --- a server that misbehaves


def test_an_answer_that_is_cut_off_is_transient(bucket: Bucket, make_image: Any) -> None:
    bucket.put({"cats.zip": bytes(2 * MEGABYTE)})
    with misbehaving(bucket.server, "cut", after_bytes=MEGABYTE) as relay:
        secret = bucket.mount("cut", AWS_ENDPOINT_URL=relay.url)
        error = bucket.reading.refusal(bucket.source("cats.zip", secret))
    assert error.transient
    assert "interrupted" in str(error)
    assert relay.connections == 3


def test_a_silent_server_times_out(bucket: Bucket) -> None:
    bucket.put({"cats.zip": bytes(MEGABYTE)})
    bucket.reading.limits = SourceLimits(retry_delays_seconds=(), silence_seconds=0.3)
    with misbehaving(bucket.server, "silent", after_bytes=1000) as relay:
        secret = bucket.mount("silent", AWS_ENDPOINT_URL=relay.url)
        started = time.monotonic()
        error = bucket.reading.refusal(bucket.source("cats.zip", secret))
    assert error.transient
    assert time.monotonic() - started < 5


def test_a_slow_server_times_out(bucket: Bucket) -> None:
    bucket.put({"cats.zip": bytes(MEGABYTE)})
    bucket.reading.limits = SourceLimits(retry_delays_seconds=(), fetch_seconds=0.5)
    with misbehaving(bucket.server, "slow", after_bytes=1000) as relay:
        secret = bucket.mount("slow", AWS_ENDPOINT_URL=relay.url)
        error = bucket.reading.refusal(bucket.source("cats.zip", secret))
    assert "did not answer in time" in str(error)
    assert error.transient


def test_an_object_above_the_limit_of_a_source_is_refused(bucket: Bucket) -> None:
    bucket.put({"cats.zip": bytes(3 * MEGABYTE)})
    bucket.reading.limits = SourceLimits(zip_bytes=2 * MEGABYTE)
    error = bucket.reading.refusal(bucket.source("cats.zip"))
    assert error.reason is OutcomeReason.INVALID_DATA
    assert "more than 2 MB" in str(error)


class EndlessServer(ThreadServer):
    """Answers every request with bytes that never end."""

    def __init__(self, head: bytes, chunk: bytes) -> None:
        self._head, self._chunk = head, chunk
        self.sent = 0
        super().__init__()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + b'ETag: "a"\r\n' + self._head + b"\r\n")
            while True:
                writer.write(f"{len(self._chunk):x}\r\n".encode() + self._chunk + b"\r\n")
                self.sent += len(self._chunk)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()


@contextmanager
def endless(chunk: bytes) -> Iterator[EndlessServer]:
    server = EndlessServer(b"Last-Modified: Mon, 30 Nov 2026 09:00:00 GMT\r\n", chunk)
    try:
        yield server
    finally:
        server.close()


def test_an_endless_object_is_refused(bucket: Bucket) -> None:
    bucket.reading.limits = SourceLimits(zip_bytes=2 * MEGABYTE, retry_delays_seconds=())
    with endless(bytes(MEGABYTE)) as server:
        secret = bucket.mount("endless", AWS_ENDPOINT_URL=server.url)
        error = bucket.reading.refusal(bucket.source("cats.zip", secret))
    assert "the server does not answer as a bucket does" in str(error)
    assert not error.transient
    assert server.sent < 64 * MEGABYTE


def test_an_endless_listing_is_refused(bucket: Bucket) -> None:
    bucket.reading.limits = SourceLimits(retry_delays_seconds=())
    with endless(b"<ListBucketResult>" + b" " * MEGABYTE) as server:
        secret = bucket.mount("endless", AWS_ENDPOINT_URL=server.url)
        error = bucket.reading.refusal(bucket.source("cats/", secret))
    assert "the server does not answer as a bucket does" in str(error)
    assert not error.transient
    assert server.sent < 64 * MEGABYTE


def test_a_server_that_redirects_gets_no_second_request(bucket: Bucket, bucket_server: BucketServer) -> None:
    with misbehaving(bucket_server, "cut", after_bytes=0) as relay:
        location = f"http://localhost:{relay.url.rpartition(':')[2]}/"

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()

        async def read() -> str:
            server = await asyncio.start_server(redirect, "127.0.0.1", 0)
            async with server:
                secret = bucket.mount("redirects", AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
                return str(await asyncio.to_thread(bucket.reading.refusal, bucket.source("cats.zip", secret)))

        message = asyncio.run(read())
    assert relay.connections == 0
    assert "the server redirects" in message


# --- bytes that change while they are read


def test_a_zip_that_is_replaced_while_it_is_read_is_never_a_mixture(bucket: Bucket, make_zip: Any, make_image: Any) -> None:
    before, after = (
        make_zip({f"{seed}.png": make_image(seed, size=(400, 400)) for seed in seeds}) for seeds in (range(4), range(4, 8))
    )
    images: dict[str, list[bytes]] = {}
    for behaviour in ("continue", "cut once"):
        bucket.put({"cats.zip": before})
        with misbehaving(
            bucket.server, behaviour, after_bytes=len(before) // 2, meanwhile=lambda: bucket.put({"cats.zip": after})
        ) as relay:
            read = bucket.reading.read(bucket.source("cats.zip", bucket.mount(behaviour[:3], AWS_ENDPOINT_URL=relay.url)))
        images[behaviour] = [item.data for item in read if isinstance(item, ArchiveImage)]
    # The server goes on with the file that it had opened; another try starts from the beginning.
    assert images == {
        "continue": [make_image(seed, size=(400, 400)) for seed in range(4)],
        "cut once": [make_image(seed, size=(400, 400)) for seed in range(4, 8)],
    }


def test_an_object_that_changed_after_the_listing_is_listed_again(
    bucket: Bucket, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(images_of(make_image, "cats/"))
    list_objects, listings = Buckets.list_objects, []

    async def list_then_change(self: Buckets, *arguments: Any) -> Any:
        found = await list_objects(self, *arguments)
        listings.append(len(found))
        if len(listings) == 1:
            await asyncio.to_thread(bucket.put, {"cats/1.png": make_image(50)})
            (bucket.server.folder / bucket.name / "cats" / "2.png").unlink()
        return found

    monkeypatch.setattr(Buckets, "list_objects", list_then_change)
    found = bucket.reading.read(bucket.source("cats/"))
    assert listings == [3, 2]
    assert [item.data for item in found if isinstance(item, ArchiveImage)] == [make_image(0), make_image(50)]


def test_objects_that_change_all_the_time_are_given_up(
    bucket: Bucket, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(images_of(make_image, "cats/"))
    list_objects, listings = Buckets.list_objects, []

    async def list_then_change(self: Buckets, *arguments: Any) -> Any:
        found = await list_objects(self, *arguments)
        listings.append(len(found))
        await asyncio.to_thread(bucket.put, {"cats/1.png": make_image(50 + len(listings))})
        return found

    monkeypatch.setattr(Buckets, "list_objects", list_then_change)
    error = bucket.reading.refusal(bucket.source("cats/"))
    assert error.transient
    assert "1.png: it was changed while the source was read" in str(error)
    assert len(listings) == 3
