"""Sources, fetched from a real web server, a folder and a store."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import ArchiveImage, ArchiveLimits, EntryFault, SkippedEntry
from ocelli_training.source_reader import SCHEMES
from ocelli_training.sources import SourceLimits, shown_source
from tests.unit.training.conftest import Reading


@pytest.fixture
def zip_bytes(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(3)
    return data


def make_source(url: str, **fields: Any) -> Source:
    return Source(url=url, **fields)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_zip_is_fetched_by_http(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    assert len(reading.read(make_source(web_server.answer("/a.zip", body=zip_bytes)))) == 3


def test_copies_are_deleted_after_reading(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.read(make_source(web_server.answer("/a.zip", body=zip_bytes)))
    assert list(reading.scratch.iterdir()) == []


def test_a_correct_pin_is_accepted(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    url = web_server.answer("/a.zip", body=zip_bytes)
    assert len(reading.read(make_source(url, sha256=sha256(zip_bytes)))) == 3


def test_a_wrong_pin_is_refused_with_both_digests(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes), sha256="0" * 64))
    assert (error.reason, error.transient) == (OutcomeReason.INVALID_DATA, False)
    assert sha256(zip_bytes) in str(error)
    assert "0" * 64 in str(error)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 204])
def test_a_permanent_error_of_the_server_is_not_retried(reading: Reading, web_server: Any, status: int) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", status=status)))
    assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, False)
    assert f"answered {status}" in str(error)
    assert len(web_server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_transient_error_is_retried(reading: Reading, web_server: Any, zip_bytes: bytes, status: int) -> None:
    url = web_server.answer("/a.zip", status=status, headers={"Retry-After": "0"})
    web_server.answer("/a.zip", body=zip_bytes)
    assert len(reading.read(make_source(url))) == 3


@pytest.mark.slow
def test_the_delay_that_a_server_asks_for_is_kept_up_to_a_limit(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.limits = SourceLimits(retry_delays_seconds=(0,), longest_retry_delay_seconds=0.4)
    url = web_server.answer("/a.zip", status=429, headers={"Retry-After": "1000"})
    web_server.answer("/a.zip", body=zip_bytes)
    started = time.monotonic()
    reading.read(make_source(url))
    assert time.monotonic() - started >= 0.4


def test_a_lasting_server_error_is_transient_after_all_attempts(reading: Reading, web_server: Any) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", status=502)))
    assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, True)
    assert len(web_server.requests) == 3


def test_an_interrupted_answer_is_retried(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    url = web_server.answer("/a.zip", body=zip_bytes[:100], declared_bytes=len(zip_bytes))
    web_server.answer("/a.zip", body=zip_bytes)
    assert len(reading.read(make_source(url))) == 3


def test_a_refused_connection_is_transient(reading: Reading) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = reading.refusal(make_source(f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"))
    assert error.transient
    assert "the connection failed (" in str(error)


def test_an_unknown_host_is_named(reading: Reading) -> None:
    error = reading.refusal(make_source("http://no-such-host.invalid/a.zip"))
    assert error.transient
    assert "http://no-such-host.invalid/a.zip: the host name is not known" in str(error)


def test_a_silent_server_times_out(reading: Reading, web_server: Any) -> None:
    reading.limits = SourceLimits(retry_delays_seconds=(), silence_seconds=0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = reading.refusal(make_source(f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"))
    assert error.transient
    assert "did not answer in time" in str(error)


def test_redirects_are_followed(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    web_server.answer("/b.zip", body=zip_bytes)
    url = web_server.answer("/a.zip", status=302, headers={"Location": "/b.zip"})
    assert len(reading.read(make_source(url))) == 3


def test_ten_redirects_are_followed_and_not_eleven(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    for number in range(11):
        web_server.answer(f"/{number}", status=302, headers={"Location": f"/{number + 1}"})
    web_server.answer("/11", body=zip_bytes)
    assert len(reading.read(make_source(f"{web_server.url}/1"))) == 3
    error = reading.refusal(make_source(f"{web_server.url}/0"))
    assert not error.transient
    assert "more than 10 times" in str(error)


@pytest.mark.parametrize("location", ["ftp://example.com/a.zip", "file:///etc/passwd"])
def test_a_redirect_to_another_scheme_is_refused(reading: Reading, web_server: Any, location: str) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", status=302, headers={"Location": location})))
    assert not error.transient


@pytest.mark.parametrize("url", ["http://", "http://[::1/a.zip", "https://host:99999/a.zip", "gopher://host/a.zip"])
def test_an_impossible_address_is_refused(reading: Reading, url: str) -> None:
    assert not reading.refusal(make_source(url)).transient


def test_every_scheme_that_the_crd_allows_is_in_the_table(reading: Reading) -> None:
    crd = (Path(__file__).parents[3] / "crds" / "classifier.yaml").read_text()
    assert set(re.findall(r"startsWith\('(\w+)://", crd)) == SCHEMES.keys() - {"upload"}
    assert "use one that begins with https://" in str(reading.refusal(make_source("ftp://host/a.zip")))


def test_an_address_is_sent_unchanged(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    web_server.answer("/a%2Fb.zip", body=zip_bytes)
    reading.read(make_source(f"{web_server.url}/a%2Fb.zip?signature=a%2Bb%2F%3D"))
    assert web_server.requests == ["/a%2Fb.zip?signature=a%2Bb%2F%3D"]


def test_an_address_that_is_not_ascii_is_quoted(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    web_server.answer("/k%C3%A4fer%201.zip", body=zip_bytes)
    assert len(reading.read(make_source(f"{web_server.url}/käfer 1.zip"))) == 3


def test_credentials_and_queries_are_never_shown() -> None:
    shown = shown_source(make_source("https://user:pa55@host.example:8443/a.zip?sig=s3cret"))
    assert shown == "https://host.example:8443/a.zip?…"


def test_a_web_page_in_place_of_a_zip_is_named_as_such(reading: Reading, web_server: Any) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", body=b"\n<!doctype html><html>")))
    assert error.reason is OutcomeReason.INVALID_DATA
    assert "is a web page, not a zip" in str(error)


def test_a_single_image_in_place_of_a_zip_is_named_as_such(reading: Reading, web_server: Any, make_image: Any) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.png", body=make_image())))
    assert "a single PNG image; pack at least 10" in str(error)


def test_a_zip_that_is_cut_off_at_its_origin_is_refused(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    error = reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes[:-30])))
    assert (error.reason, error.transient) == (OutcomeReason.INVALID_DATA, False)
    assert "cut off or damaged" in str(error)


def test_an_empty_answer_is_refused(reading: Reading, web_server: Any) -> None:
    assert "the file is empty" in str(reading.refusal(make_source(web_server.answer("/a.zip"))))


def test_a_zip_above_the_limit_is_refused_by_its_declared_size(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.limits = SourceLimits(zip_bytes=1024 * 1024)
    error = reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes, declared_bytes=2 * 1024 * 1024)))
    assert error.reason is OutcomeReason.INVALID_DATA
    assert "more than 1 MB" in str(error)


def test_an_upload_is_read_from_the_store(reading: Reading, zip_bytes: bytes) -> None:
    reading.store_upload(sha256(zip_bytes), zip_bytes)
    assert len(reading.read(Source(upload=sha256(zip_bytes)))) == 3


def test_a_missing_upload_is_unreadable(reading: Reading) -> None:
    error = reading.refusal(Source(upload="ab" * 32))
    assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, False)
    assert "upload abababababab: it is no longer in the object store" in str(error)


def test_an_upload_that_was_altered_in_the_store_is_refused(reading: Reading, zip_bytes: bytes) -> None:
    reading.store_upload("cd" * 32, zip_bytes)
    assert reading.refusal(Source(upload="cd" * 32)).reason is OutcomeReason.INVALID_DATA


def test_a_zip_is_read_from_the_folder_of_file_sources(reading: Reading, zip_bytes: bytes) -> None:
    (reading.jail / "käfer 1.zip").write_bytes(zip_bytes)
    assert len(reading.read(make_source("file:///k%C3%A4fer%201.zip", sha256=sha256(zip_bytes)))) == 3


def test_a_zip_in_the_folder_is_not_deleted(reading: Reading, zip_bytes: bytes) -> None:
    (reading.jail / "a.zip").write_bytes(zip_bytes)
    reading.read(make_source("file:///a.zip"))
    assert (reading.jail / "a.zip").exists()


def test_a_wrong_pin_of_a_file_is_refused(reading: Reading, zip_bytes: bytes) -> None:
    (reading.jail / "a.zip").write_bytes(zip_bytes)
    assert reading.refusal(make_source("file:///a.zip", sha256="0" * 64)).reason is OutcomeReason.INVALID_DATA


def test_a_folder_is_read_at_any_depth(reading: Reading, make_image: Any) -> None:
    (reading.jail / "cats/sub").mkdir(parents=True)
    (reading.jail / "cats/b.png").write_bytes(make_image(1))
    (reading.jail / "cats/sub/a.jpg").write_bytes(make_image(2, kind="JPEG"))
    names = [item.name for item in reading.read(make_source("file:///cats/"))]
    assert names == ["b.png", "sub/a.jpg"]


def test_hidden_and_empty_files_of_a_folder_are_ignored(reading: Reading, make_image: Any) -> None:
    for name in (".git/a.png", ".hidden.png", "Thumbs.db", "a.png"):
        (reading.jail / "cats" / name).parent.mkdir(parents=True, exist_ok=True)
        (reading.jail / "cats" / name).write_bytes(make_image(1))
    (reading.jail / "cats/empty.png").touch()
    assert [item.name for item in reading.read(make_source("file:///cats/"))] == ["a.png"]


def test_files_of_a_folder_that_are_not_images_are_skipped(reading: Reading, make_image: Any) -> None:
    (reading.jail / "cats").mkdir()
    (reading.jail / "cats/notes.txt").write_text("notes")
    os.mkfifo(reading.jail / "cats/pipe.png")
    assert reading.read(make_source("file:///cats/")) == [
        SkippedEntry(name="notes.txt", fault=EntryFault.NOT_AN_IMAGE),
        SkippedEntry(name="pipe.png", fault=EntryFault.NOT_AN_IMAGE),
    ]


def test_an_image_of_a_folder_above_the_limit_is_skipped(reading: Reading, make_image: Any) -> None:
    (reading.jail / "cats").mkdir()
    (reading.jail / "cats/a.png").write_bytes(make_image())
    reading.limits = SourceLimits(archive=ArchiveLimits(image_bytes=100))
    assert reading.read(make_source("file:///cats/")) == [SkippedEntry(name="a.png", fault=EntryFault.TOO_LARGE)]


def test_a_folder_of_too_many_images_is_refused(reading: Reading, make_image: Any) -> None:
    (reading.jail / "cats").mkdir()
    for number in range(4):
        (reading.jail / f"cats/{number}.png").write_bytes(make_image(number))
    reading.limits = SourceLimits(archive=ArchiveLimits(images=3))
    assert "more than 3 images" in str(reading.refusal(make_source("file:///cats/")))


def test_links_of_a_folder_that_lead_out_of_the_jail_are_skipped(reading: Reading, make_image: Any, tmp_path: Path) -> None:
    (reading.jail / "cats").mkdir()
    (reading.jail / "cats/inside.png").write_bytes(make_image(1))
    (reading.jail / "cats/link.png").symlink_to("inside.png")
    (tmp_path / "secret.png").write_bytes(make_image(2))
    (reading.jail / "cats/out.png").symlink_to(tmp_path / "secret.png")
    (reading.jail / "cats/folder").symlink_to(tmp_path)
    found = {item.name: isinstance(item, ArchiveImage) for item in reading.read(make_source("file:///cats/"))}
    assert found == {"inside.png": True, "link.png": True, "out.png": False}


@pytest.mark.parametrize(
    "url",
    [
        "file:///../secret.zip",
        "file:///%2e%2e/secret.zip",
        "file:///a/../../secret.zip",
        "file:///out.zip",
        "file:///outside/secret.zip",
        "file:///outside/",
        "file://otherhost/a.zip",
    ],
)
def test_no_url_gives_access_outside_of_the_folder(reading: Reading, zip_bytes: bytes, tmp_path: Path, url: str) -> None:
    (tmp_path / "secret.zip").write_bytes(zip_bytes)
    (reading.jail / "out.zip").symlink_to(tmp_path / "secret.zip")
    (reading.jail / "outside").symlink_to(tmp_path)
    error = reading.refusal(make_source(url))
    assert error.reason is OutcomeReason.SOURCE_UNREADABLE
    assert "leads out of the folder of file sources" in str(error)


def test_an_absolute_path_begins_at_the_folder(reading: Reading) -> None:
    assert "no such file" in str(reading.refusal(make_source("file:///etc/passwd")))


def test_file_sources_that_are_not_enabled_are_refused(reading: Reading) -> None:
    reading.file_sources_enabled = False
    assert "not enabled" in str(reading.refusal(make_source("file:///a.zip")))


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("file:///cats", "end the address with /"),
        ("file:///a.zip/", "remove the / at the end"),
        ("file:///missing.zip", "no such file"),
        ("file:///a.zip/b.zip", "no such file"),
        ("file:///pipe", "give a zip or a folder"),
        ("file:///%00", "cannot be read"),
        ("file:///loop", "cannot be read"),
        ("file:///empty/", "holds no files"),
    ],
)
def test_a_wrong_file_address_is_refused_with_a_remedy(reading: Reading, zip_bytes: bytes, url: str, remedy: str) -> None:
    (reading.jail / "cats").mkdir()
    (reading.jail / "empty").mkdir()
    (reading.jail / "a.zip").write_bytes(zip_bytes)
    (reading.jail / "loop").symlink_to("loop")
    os.mkfifo(reading.jail / "pipe")
    assert remedy in str(reading.refusal(make_source(url)))


def test_a_pinned_folder_is_refused(reading: Reading) -> None:
    (reading.jail / "cats").mkdir()
    assert "a folder has no digest" in str(reading.refusal(make_source("file:///cats/", sha256="0" * 64)))


NOT_ALLOWED = "private or denied network"


def test_a_source_in_a_private_network_is_not_connected_to(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.networks = NetworkRules()
    error = reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes)))
    assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, False)
    assert NOT_ALLOWED in str(error)
    assert "sources.allowedNetworks" in str(error)
    assert web_server.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "168.63.129.16",
        "[::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_addresses_that_lead_into_the_cluster_are_refused(reading: Reading, host: str) -> None:
    reading.networks = NetworkRules()
    assert NOT_ALLOWED in str(reading.refusal(make_source(f"http://{host}/a.zip")))


@pytest.mark.parametrize("host", ["2130706433", "0", "0x7f000001", "127.1"])
def test_unusual_spellings_of_addresses_are_refused(reading: Reading, web_server: Any, host: str) -> None:
    reading.networks = NetworkRules()
    address = web_server.answer("/a.zip").replace("127.0.0.1", host)
    assert reading.refusal(make_source(address)).reason is OutcomeReason.SOURCE_UNREADABLE
    assert web_server.requests == []


@pytest.mark.parametrize("host", ["localhost", "kubernetes.default.svc", "nothing", "nothing.svc.cluster.local", "localhost."])
def test_names_of_the_cluster_are_refused_whether_they_exist_or_not(reading: Reading, host: str) -> None:
    reading.networks = NetworkRules()
    assert NOT_ALLOWED in str(reading.refusal(make_source(f"http://{host}/a.zip")))


def test_a_redirect_into_a_private_network_is_not_followed(reading: Reading, web_server: Any) -> None:
    url = web_server.answer("/a.zip", status=302, headers={"Location": "http://127.0.0.2:9/b.zip"})
    reading.networks = NetworkRules.parse(allowed="127.0.0.1/32", denied="")
    assert NOT_ALLOWED in str(reading.refusal(make_source(url)))


def test_a_denied_network_is_refused_even_if_it_is_allowed(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.networks = NetworkRules.parse(allowed="0.0.0.0/0", denied="127.0.0.0/8")
    assert NOT_ALLOWED in str(reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes))))


def test_a_pinned_source_is_fetched_once_if_copies_are_kept(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.keeps_copies = True
    source = make_source(web_server.answer("/a.zip", body=zip_bytes), sha256=sha256(zip_bytes))
    assert [len(reading.read(source)) for _ in range(2)] == [3, 3]
    assert len(web_server.requests) == 1


@pytest.mark.parametrize(("keeps_copies", "pinned"), [(False, True), (True, False)])
def test_other_sources_are_fetched_each_time(
    reading: Reading, web_server: Any, zip_bytes: bytes, keeps_copies: bool, pinned: bool
) -> None:
    reading.keeps_copies = keeps_copies
    source = make_source(web_server.answer("/a.zip", body=zip_bytes), sha256=sha256(zip_bytes) if pinned else None)
    for _ in range(2):
        reading.read(source)
    assert len(web_server.requests) == 2


def test_pinned_files_of_pretrained_weights_have_no_copies(reading: Reading, web_server: Any) -> None:
    reading.keeps_copies = True
    source = make_source(web_server.answer("/labels.txt", body=b"cat"), sha256=sha256(b"cat"))
    assert reading.read_file(source) == b"cat"
    assert not [path for path in reading.store_folder.rglob("*") if path.is_file()]


def test_a_damaged_copy_is_replaced(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.keeps_copies = True
    source = make_source(web_server.answer("/a.zip", body=zip_bytes), sha256=sha256(zip_bytes))
    kept = reading.store_folder / reading.location.source_key(sha256(zip_bytes))
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged")
    assert [len(reading.read(source)) for _ in range(2)] == [3, 3]
    assert len(web_server.requests) == 1


def test_bytes_with_a_wrong_digest_are_not_kept(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    reading.keeps_copies = True
    reading.refusal(make_source(web_server.answer("/a.zip", body=zip_bytes), sha256="0" * 64))
    assert not [path for path in reading.store_folder.rglob("*") if path.is_file()]
