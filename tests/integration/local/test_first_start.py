"""A first start with release binaries. A stand-in server publishes the installed programs as the release."""

from __future__ import annotations

import mmap
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.binaries import BinaryStore
from ocelli_local.cluster_process import ClusterProcess
from ocelli_local.versions import read_program_version
from tests.release_stand_in import ReleaseStandIn

pytestmark = pytest.mark.cluster

LIMIT_SECONDS = 60.0


def map_file(path: Path) -> mmap.mmap:
    """The content of a file of 100 MB, without reading it into memory."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@pytest.fixture
def releases(local_cluster: SyncClusterAccess) -> Iterator[ReleaseStandIn]:
    store = BinaryStore(os.environ)
    found = store.find()
    assert found is not None
    if any(read_program_version(path) != store.pinned.of(name) for name, path in found.items()):
        pytest.skip("the installed programs have the pinned minor release, but another patch release")
    programs = {name: map_file(path) for name, path in found.items()}
    with ReleaseStandIn(programs, store.pinned, platform.machine()).serving() as stand_in:
        yield stand_in


def test_first_start_with_release_binaries_takes_less_than_a_minute(
    releases: ReleaseStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    for name, value in {**releases.settings, "OCELLI_CACHE_DIR": str(cache), "OCELLI_RELEASE_BINARIES": "1"}.items():
        monkeypatch.setenv(name, value)
    process = ClusterProcess(tmp_path / "state", ["--not-durable"])
    began = time.monotonic()
    access = process.start().open()
    seconds = time.monotonic() - began
    try:
        print(f"first start: {seconds:.1f} s")
        assert access.get("v1", "Node", "local")
        assert "downloaded and verified" in process.log.read_text()
        assert access.kubectl_path.is_relative_to(cache)
        assert seconds < LIMIT_SECONDS
    finally:
        access.close()
        process.stop()
        shutil.rmtree(cache)
