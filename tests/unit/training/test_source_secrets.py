"""Credentials of sources: who gets them, and who never does."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_training.source_secrets import find_origin, load_source_secret
from ocelli_training.sources import SourceError
from tests.unit.training.conftest import Reading, WebServer

PASSWORD = {"username": "reader", "password": "pa55 wörd"}


@pytest.fixture
def zip_bytes(make_example_zip: Any) -> bytes:
    data: bytes = make_example_zip(3)
    return data


@pytest.fixture
def other_server() -> Any:
    server = WebServer()
    yield server
    server.close()


def load(folder: Path, **values: str) -> Any:
    (folder / "own").mkdir()
    for key, value in values.items():
        (folder / "own" / key).write_text(value)
    return load_source_secret(folder, "team-a", "own")


def authorizations(server: WebServer) -> list[str | None]:
    return [headers.get("Authorization") for headers in server.headers]


def test_a_password_is_sent_to_a_host_of_its_secret(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    secret = reading.mount_secret("own", hosts=web_server.url, **PASSWORD)
    reading.read(Source(url=web_server.answer("/a.zip", body=zip_bytes), secret_ref=secret))
    login = base64.b64encode("reader:pa55 wörd".encode()).decode()
    assert authorizations(web_server) == [f"Basic {login}"]


def test_a_token_is_sent_to_a_host_of_its_secret(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    secret = reading.mount_secret("own", hosts=f"data.example.com\n{web_server.url}/", token="t0ken\n")
    reading.read(Source(url=web_server.answer("/a.zip", body=zip_bytes), secret_ref=secret))
    assert authorizations(web_server) == ["Bearer t0ken"]


def test_nothing_is_sent_to_a_host_that_the_secret_does_not_list(reading: Reading, web_server: Any, zip_bytes: bytes) -> None:
    secret = reading.mount_secret("own", hosts="data.example.com", **PASSWORD)
    error = reading.refusal(Source(url=web_server.answer("/a.zip", body=zip_bytes), secret_ref=secret))
    assert 'Secret "own" does not list its host in the key hosts, so its credentials are not sent there' in str(error)
    assert web_server.requests == []


def test_a_redirect_to_another_host_gets_no_credentials(
    reading: Reading, web_server: Any, other_server: WebServer, zip_bytes: bytes
) -> None:
    secret = reading.mount_secret("own", hosts=web_server.url, **PASSWORD)
    there = other_server.answer("/b.zip", body=zip_bytes)
    url = web_server.answer("/a.zip", status=302, headers={"Location": there})
    reading.read(Source(url=url, secret_ref=secret))
    assert authorizations(other_server) == [None]


def test_a_list_gets_its_credentials_only_to_their_hosts(
    reading: Reading, web_server: Any, other_server: WebServer, make_image: Any
) -> None:
    secret = reading.mount_secret("own", hosts=web_server.url, **PASSWORD)
    urls = [server.answer("/a.png", body=make_image()) for server in (web_server, other_server)]
    body = f"url\n{urls[0]}\n{urls[1]}\n".encode()
    reading.read(Source(url=web_server.answer("/list.csv", body=body), secret_ref=secret))
    assert None not in authorizations(web_server)
    assert authorizations(other_server) == [None]


def test_refused_credentials_are_said_to_be_refused(reading: Reading, web_server: Any) -> None:
    secret = reading.mount_secret("own", hosts=web_server.url, **PASSWORD)
    error = reading.refusal(Source(url=web_server.answer("/a.zip", status=401), secret_ref=secret))
    assert "answered 401" in str(error)
    assert "correct the credentials in the Secret" in str(error)
    assert "pa55" not in str(error)


def test_a_missing_secret_is_named_with_its_namespace(reading: Reading, web_server: Any) -> None:
    secret = reading.mount_secret("own")
    error = reading.refusal(Source(url=f"{web_server.url}/a.zip", secret_ref=secret))
    assert 'Secret "own" does not exist in namespace team-a' in str(error)
    assert not error.transient


def test_a_secret_without_hosts_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='Secret "own" has no key hosts'):
        load(tmp_path, **PASSWORD)


@pytest.mark.parametrize("hosts", ["https://data.example.com/folder", "https://", "https://[", "s3://"])
def test_what_is_no_host_is_named(tmp_path: Path, hosts: str) -> None:
    with pytest.raises(SourceError, match="neither a host nor a bucket"):
        load(tmp_path, hosts=hosts)


@pytest.mark.parametrize(
    "values",
    [{}, {"username": "reader"}, {"password": "x"}, {"AWS_ACCESS_KEY_ID": "x"}],
    ids=["none", "name", "password", "s3"],
)
def test_a_secret_without_credentials_for_http_says_so(reading: Reading, web_server: Any, values: dict[str, str]) -> None:
    secret = reading.mount_secret("own", hosts=web_server.url, **values)
    error = reading.refusal(Source(url=f"{web_server.url}/a.zip", secret_ref=secret))
    assert "has no credentials for http; set the key token, or the keys username and password" in str(error)


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("data.example.com", "https://data.example.com/a.zip"),
        ("data.example.com", "https://DATA.example.com.:443/a.zip"),
        ("https://data.example.com:8443", "https://data.example.com:8443/a.zip"),
        ("http://data.example.com", "http://data.example.com:80/a.zip"),
        ("other.example, s3://training", "s3://training/cats/"),
        ("https://[2001:db8::1]:8443", "https://[2001:DB8::1]:8443/a.zip"),
    ],
)
def test_a_secret_covers_the_hosts_that_it_lists(tmp_path: Path, hosts: str, url: str) -> None:
    assert load(tmp_path, hosts=hosts).covers(url)


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("data.example.com", "http://data.example.com/a.zip"),
        ("data.example.com", "https://data.example.com:8443/a.zip"),
        ("data.example.com", "https://data.example.com.evil.test/a.zip"),
        ("data.example.com", "https://evil-data.example.com/a.zip"),
        ("data.example.com", "https://data.example.com@evil.test/a.zip"),
        ("s3://training", "gs://training/a.zip"),
        ("s3://training", "s3://training-2/a.zip"),
        ("training", "s3://training/a.zip"),
        ("data.example.com", "https://data.example.com:99999/a.zip"),
    ],
)
def test_a_secret_covers_no_other_host(tmp_path: Path, hosts: str, url: str) -> None:
    assert not load(tmp_path, hosts=hosts).covers(url)


def test_the_values_of_a_secret_are_not_in_its_representation(tmp_path: Path) -> None:
    assert "pa55" not in repr(load(tmp_path, hosts="data.example.com", **PASSWORD))


def test_the_origin_has_no_login() -> None:
    assert find_origin("https://user:secret@Data.example.com/a") == "https://data.example.com"
