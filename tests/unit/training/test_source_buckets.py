"""Clients of buckets: their credentials and hosts. With a real server: tests/integration/storage/test_bucket_sources.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocelli_api.classifier import SecretReference, Source
from ocelli_api.pods import Environment
from ocelli_api.settings import load_settings
from ocelli_storage.archives import ArchiveImage
from ocelli_training.cloud_identity import CloudIdentity, forget_cloud_variables
from tests.unit.training.conftest import Reading

DATE = {"Last-Modified": "Mon, 30 Nov 2026 09:00:00 GMT", "ETag": '"0x1"'}
BLOBS = """<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults><Blobs><Blob><Name>cats/0.png</Name><Properties><Last-Modified>Mon, 30 Nov 2026 09:00:00 GMT</Last-Modified>
<Etag>0x1</Etag><Content-Length>SIZE</Content-Length><Content-Type>image/png</Content-Type></Properties></Blob></Blobs><NextMarker/>
</EnumerationResults>"""


def mount_azure_secret(reading: Reading, web_server: Any) -> SecretReference:
    return reading.mount_secret(
        "azure",
        hosts="az://pictures",
        AZURE_STORAGE_ACCOUNT_NAME="ours",
        AZURE_STORAGE_SAS_KEY="sv=2024-01-01&sig=s1gned",
        AZURE_STORAGE_ENDPOINT=web_server.url,
    )


def test_a_prefix_of_a_container_of_azure_is_read_with_a_signed_token(
    reading: Reading, web_server: Any, make_image: Any
) -> None:
    image = make_image()
    web_server.answer("/pictures", body=BLOBS.replace("SIZE", str(len(image))).encode())
    web_server.answer("/pictures/cats/0.png", body=image, headers=DATE)
    secret = mount_azure_secret(reading, web_server)
    (found,) = reading.read(Source(url="az://pictures/cats/", secret_ref=secret))
    assert isinstance(found, ArchiveImage)
    assert (found.name, found.data) == ("0.png", image)
    assert len(web_server.requests) == 2
    assert all("sig=s1gned" in request for request in web_server.requests)


def test_refused_credentials_of_azure_are_not_shown(reading: Reading, web_server: Any) -> None:
    web_server.answer("/pictures/cats.zip", status=403)
    secret = mount_azure_secret(reading, web_server)
    error = reading.refusal(Source(url="az://pictures/cats.zip", secret_ref=secret))
    assert 'refuses the credentials in Secret "azure"' in str(error)
    assert "s1gned" not in str(error)


def test_a_container_needs_its_account(reading: Reading) -> None:
    secret = reading.mount_secret("azure", hosts="az://pictures", AZURE_STORAGE_SAS_KEY="sig=x")
    error = reading.refusal(Source(url="az://pictures/cats.zip", secret_ref=secret))
    assert "set AZURE_STORAGE_ACCOUNT_NAME in the Secret" in str(error)


@pytest.mark.parametrize("key", ["not JSON s3cret", json.dumps({"private_key": "s3cret"})])
def test_a_key_that_is_none_is_refused_without_showing_it(reading: Reading, key: str) -> None:
    secret = reading.mount_secret("google", hosts="gs://pictures", GOOGLE_SERVICE_ACCOUNT_KEY=key)
    error = reading.refusal(Source(url="gs://pictures/cats.zip", secret_ref=secret))
    assert 'the settings in Secret "google" are not valid; correct its keys for gs://' in str(error)
    assert "s3cret" not in str(error)
    assert not error.transient


def test_an_endpoint_that_is_no_address_is_refused(reading: Reading) -> None:
    secret = reading.mount_secret("own", hosts="s3://pictures", AWS_ENDPOINT_URL="http://[::1", AWS_ACCESS_KEY_ID="x")
    error = reading.refusal(Source(url="s3://pictures/cats.zip", secret_ref=secret))
    assert not error.transient
    assert "Secret" in str(error)


@pytest.mark.parametrize("key", ["a/../b.zip", "a/%2e%2e/b.zip", "a//b.zip"])
def test_a_path_that_no_object_has_is_refused(reading: Reading, web_server: Any, key: str) -> None:
    secret = reading.mount_secret("own", hosts="s3://pictures", AWS_ENDPOINT_URL=web_server.url)
    error = reading.refusal(Source(url=f"s3://pictures/{key}", secret_ref=secret))
    assert not error.transient
    assert "its path is not valid; write it without empty parts" in str(error)
    assert not [request for request in web_server.requests if ".." in request]


def test_the_identity_of_the_pod_comes_from_its_webhook() -> None:
    variables = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_SECRET_ACCESS_KEY": "x"}
    identity = load_settings(CloudIdentity, variables)
    assert identity.find_config("s3") == {"aws_role_arn": "arn:aws:iam::1:role/r", "aws_web_identity_token_file": "/token"}
    assert identity.find_config("az") == {}
    assert identity.find_config("gs") == {}


def test_the_variables_of_clouds_leave_the_environment() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "GOOGLE_SERVICE_ACCOUNT": "x",
        "AZURE_STORAGE_ACCOUNT_KEY": "x",
        "PATH": "/bin",
    }
    forget_cloud_variables(environment)
    assert environment == {"PATH": "/bin"}


def test_a_source_gets_nothing_of_the_credentials_of_the_store(trainer: Any, web_server: Any, tmp_path: Any) -> None:
    folder = tmp_path / "secrets" / "own"
    folder.mkdir(parents=True)
    keys = {
        "hosts": "s3://pictures",
        "AWS_ENDPOINT_URL": web_server.url,
        "AWS_ACCESS_KEY_ID": "own-key",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    for key, value in keys.items():
        (folder / key).write_text(value)
    trainer.environment[Environment.SOURCE_SECRETS_FOLDER] = str(folder.parent)
    source = {"url": "s3://pictures/cats.zip", "secretRef": {"name": "own"}}
    trainer.add_class("cat", source)
    trainer.add_class("dog", source)
    of_the_store = {
        "AWS_ACCESS_KEY_ID": "store-key",
        "AWS_SECRET_ACCESS_KEY": "store-secret",
        "AWS_SESSION_TOKEN": "store-token",
    }
    process = trainer.start(**of_the_store)
    process.communicate(timeout=60)
    assert "there is no such object" in trainer.outcome.message
    sent = str(web_server.headers)
    assert "own-key" in sent
    assert "store-" not in sent
