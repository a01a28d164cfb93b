"""Volumes as folders."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.environment import PodNetwork
from ocelli_local.process_node.pod_objects import ObjectUnavailableError, Token
from ocelli_local.process_node.volumes import PodVolumes


class FakeObjects:
    """Stands in for `PodObjects`; its contents may change between calls."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, bytes]] = {"key": {"a": b"1", "b": b"2"}}
        self.tokens_asked = 0
        self.token_seconds = 3600.0

    async def read_secret(self, name: str) -> dict[str, bytes] | None:
        return self.secrets.get(name)

    async def read_config_map(self, name: str) -> dict[str, bytes] | None:
        return None

    async def request_token(self, *, audience: str | None, expiration_seconds: int) -> Token:
        self.tokens_asked += 1
        return Token(value=f"{audience}-{self.tokens_asked}", expires=time.time() + self.token_seconds)


def make_volumes(folder: Path, objects: FakeObjects, *volumes: Manifest) -> PodVolumes:
    pod = {
        "metadata": {"name": "pod", "namespace": "team", "uid": "u", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "2"}}}], "volumes": list(volumes)},
    }
    network = PodNetwork(pod_address="127.5.1.1", host_address="127.5.0.1")
    return PodVolumes(pod, folder, objects, network, {"cpu": "4"})  # type: ignore[arg-type]


def prepare(volumes: PodVolumes) -> None:
    asyncio.run(volumes.prepare())


def test_secret_has_a_file_for_each_key(tmp_path: Path) -> None:
    prepare(make_volumes(tmp_path, FakeObjects(), {"name": "v", "secret": {"secretName": "key", "defaultMode": 0o400}}))
    assert {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()} == {"a": b"1", "b": b"2"}
    assert (tmp_path / "v" / "a").stat().st_mode & 0o777 == 0o400


def test_items_choose_keys_and_paths(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "deep/er/file"}]
    prepare(make_volumes(tmp_path, FakeObjects(), {"name": "v", "secret": {"secretName": "key", "items": items}}))
    assert (tmp_path / "v" / "deep" / "er" / "file").read_bytes() == b"1"
    assert not (tmp_path / "v" / "b").exists()


@pytest.mark.parametrize(
    "source",
    [{"secretName": "no"}, {"secretName": "key", "items": [{"key": "no", "path": "p"}]}],
    ids=["object", "key"],
)
def test_what_is_missing_is_named_unless_it_is_optional(tmp_path: Path, source: Manifest) -> None:
    with pytest.raises(ObjectUnavailableError, match="no"):
        prepare(make_volumes(tmp_path, FakeObjects(), {"name": "v", "secret": source}))
    prepare(make_volumes(tmp_path, FakeObjects(), {"name": "v", "secret": {**source, "optional": True}}))


def test_refresh_follows_the_object(tmp_path: Path) -> None:
    objects = FakeObjects()
    volumes = make_volumes(tmp_path, objects, {"name": "v", "secret": {"secretName": "key"}})
    prepare(volumes)
    objects.secrets["key"] = {"a": b"new"}
    asyncio.run(volumes.refresh())
    assert {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()} == {"a": b"new"}


def test_object_that_went_leaves_the_files(tmp_path: Path) -> None:
    objects = FakeObjects()
    volumes = make_volumes(tmp_path, objects, {"name": "v", "secret": {"secretName": "key"}})
    prepare(volumes)
    objects.secrets.clear()
    asyncio.run(volumes.refresh())
    assert (tmp_path / "v" / "a").read_bytes() == b"1"


@pytest.mark.parametrize(("seconds_left", "asked"), [(3000.0, 1), (600.0, 2)])
def test_token_is_renewed_in_the_last_fifth_of_its_life(tmp_path: Path, seconds_left: float, asked: int) -> None:
    objects = FakeObjects()
    objects.token_seconds = seconds_left
    source = {"serviceAccountToken": {"path": "token", "audience": "store", "expirationSeconds": 3600}}
    volumes = make_volumes(tmp_path, objects, {"name": "v", "projected": {"sources": [source]}})
    prepare(volumes)
    asyncio.run(volumes.refresh())
    assert (tmp_path / "v" / "token").read_text() == f"store-{asked}"
    assert (tmp_path / "v" / "token").stat().st_mode & 0o077 == 0


def test_downward_fields_become_files(tmp_path: Path) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpus", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
    ]
    prepare(make_volumes(tmp_path, FakeObjects(), {"name": "v", "downwardAPI": {"items": items}}))
    assert (tmp_path / "v" / "labels").read_text() == 'a="b"'
    assert (tmp_path / "v" / "cpus").read_text() == "2"


def test_mounts_are_real_paths_by_container_path(tmp_path: Path) -> None:
    volumes = make_volumes(tmp_path, FakeObjects(), {"name": "v", "emptyDir": {}})
    mounts = [{"name": "v", "mountPath": "/data"}, {"name": "v", "mountPath": "/part", "subPath": "x"}]
    assert volumes.mounts({"volumeMounts": mounts}) == {"/data": tmp_path / "v", "/part": tmp_path / "v" / "x"}
