"""A bucket as object store: the same promises as every other store, and credentials for one tenant's part."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from ocelli_storage.object_store import ObjectStore, StoreUnavailableError
from ocelli_storage.store_url import open_store
from tests.integration.storage.conftest import ADMINISTRATOR, BucketServer
from tests.unit.storage.store_promises import LIMIT_BYTES, StorePromises, run


@pytest.fixture
def bucket(bucket_server: BucketServer) -> str:
    """A bucket of the test's own."""
    name = f"test-{secrets.token_hex(6)}"
    (bucket_server.folder / name).mkdir()
    return name


def open_bucket(server: BucketServer, url: str, login: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for variable, value in server.environment(*login).items():
        monkeypatch.setenv(variable, value)
    return open_store(url)


class TestBucket(StorePromises):
    """A bucket."""

    @pytest.fixture
    def store(self, bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        return open_bucket(bucket_server, f"s3://{bucket}", ADMINISTRATOR, monkeypatch)


class TestPrefix(StorePromises):
    """A prefix in a shared bucket."""

    @pytest.fixture
    def store(self, bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        (bucket_server.folder / bucket / "tenants" / "a").mkdir(parents=True)
        (bucket_server.folder / bucket / "tenants" / "a" / "of-others").write_bytes(b"xyz")
        return open_bucket(bucket_server, f"s3://{bucket}/our/prefix", ADMINISTRATOR, monkeypatch)


@pytest.fixture
def tenant_store(bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The bucket for the trainer of team-a, with credentials as in docs/storage.md."""
    administrator = open_bucket(bucket_server, f"s3://{bucket}", ADMINISTRATOR, monkeypatch)
    for key in ("tenants/team-a/x", "tenants/team-b/x", "backbones/ab/model.onnx"):
        run(administrator.put(key, b"abc"))
    login = (f"team-a-{secrets.token_hex(4)}", "secret-of-team-a")
    bucket_server.create_user(*login)
    objects = f"arn:aws:s3:::{bucket}"
    statements = [
        {"Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": f"{objects}/tenants/team-a/*"},
        {"Action": ["s3:GetObject"], "Resource": f"{objects}/backbones/*"},
    ]
    allowed = [{"Effect": "Allow", "Principal": {"AWS": [login[0]]}, **statement} for statement in statements]
    bucket_server.put_policy(bucket, json.dumps({"Version": "2012-10-17", "Statement": allowed}))
    return open_bucket(bucket_server, f"s3://{bucket}", login, monkeypatch)


@pytest.mark.parametrize("key", ["tenants/team-a/x", "backbones/ab/model.onnx"])
def test_a_tenants_credentials_read_its_part_and_backbones(tenant_store: ObjectStore, key: str) -> None:
    assert run(tenant_store.get(key, limit_bytes=LIMIT_BYTES)) == b"abc"


def test_a_tenants_credentials_write_its_part(tenant_store: ObjectStore, tmp_path: Path) -> None:
    run(tenant_store.put("tenants/team-a/y", b"abc"))
    assert run(tenant_store.exists("tenants/team-a/y"))


def test_a_tenants_credentials_cannot_read_other_parts(tenant_store: ObjectStore) -> None:
    with pytest.raises(StoreUnavailableError, match="could not read 'tenants/team-b/x'"):
        run(tenant_store.get("tenants/team-b/x", limit_bytes=LIMIT_BYTES))


@pytest.mark.parametrize("key", ["tenants/team-b/x", "backbones/ab/model.onnx"])
def test_a_tenants_credentials_cannot_write_elsewhere(tenant_store: ObjectStore, key: str) -> None:
    with pytest.raises(StoreUnavailableError, match=f"could not write '{key}'"):
        run(tenant_store.put(key, b"xyz"))


def test_wrong_credentials_are_an_error_that_names_the_key(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_bucket(bucket_server, f"s3://{bucket}", (ADMINISTRATOR[0], "wrong"), monkeypatch)
    with pytest.raises(StoreUnavailableError, match="could not read 'tenants/a/x'"):
        run(store.get("tenants/a/x", limit_bytes=LIMIT_BYTES))
