"""Fixtures for tests on a real control plane: `-p ocelli_local.pytest_plugin`, or `pytest_plugins` in a conftest.

`local_cluster` is one cluster for each pytest process (with pytest-xdist: for each worker). It runs in a process of its
own, so that a test may block, and that no process is left when a test run is killed. `namespace` is a new namespace for
each test. Override the session fixture `local_cluster_arguments` to pass `ocelli-local up` other arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence

import pytest

from ocelli_local.access import SyncClusterAccess
from ocelli_local.binaries import BinaryStore
from ocelli_local.cluster_process import ClusterProcess


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the control plane before the first test: a build takes longer than a test's timeout."""
    if session.config.option.collectonly:
        return
    if any("local_cluster" in getattr(item, "fixturenames", ()) for item in session.items):
        store = BinaryStore(os.environ)
        if store.find() is None:
            capture = session.config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled():
                asyncio.run(store.find_or_install(lambda line: print(line, file=sys.stderr, flush=True)))


@pytest.fixture(scope="session")
def local_cluster_arguments() -> Sequence[str]:
    """Additional arguments of `ocelli-local up`."""
    return ()


@pytest.fixture(scope="session")
def local_cluster(
    tmp_path_factory: pytest.TempPathFactory, local_cluster_arguments: Sequence[str]
) -> Iterator[SyncClusterAccess]:
    """An administrator's access to this test process's cluster."""
    process = ClusterProcess(tmp_path_factory.mktemp("cluster"), ["--not-durable", *local_cluster_arguments])
    access = process.start().open()
    try:
        yield access
    finally:
        access.close()
        process.stop()
        # The logs are kept to explain failures; the rest is large.
        for folder in ("etcd", "node"):
            shutil.rmtree(process.state_dir / folder, ignore_errors=True)


@pytest.fixture
def namespace(local_cluster: SyncClusterAccess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own. It is deleted afterwards, without waiting for it to be gone."""
    with fresh_namespace(local_cluster, request.node.name.lower().removeprefix("test_")) as name:
        yield name


@contextlib.contextmanager
def fresh_namespace(cluster: SyncClusterAccess, title: str) -> Iterator[str]:
    """A namespace whose name begins with the title; for fixtures that several tests share."""
    stem = re.sub(r"[^a-z0-9]+", "-", title)[:40].strip("-")
    name = f"{stem or 'test'}-{secrets.token_hex(3)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.apply(manifest)
    # Pods are refused until the controller-manager has created it.
    cluster.wait_for(
        f"namespace {name} has its default ServiceAccount",
        lambda: cluster.get("v1", "ServiceAccount", "default", namespace=name),
    )
    try:
        yield name
    finally:
        cluster.delete(manifest)
