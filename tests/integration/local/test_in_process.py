"""The cluster in the caller's own event loop, and the effects of an outage of its API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ocelli_local import ClusterOptions, LocalCluster
from ocelli_local.access import ClusterAccess
from ocelli_local.binaries import BinaryStore, Programs
from ocelli_local.manifest import Manifest
from ocelli_local.progress import Report
from tests.integration.local.pods import build_container, build_pod

pytestmark = pytest.mark.cluster

CRD: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"kind": "Thing", "plural": "things"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


INSTALL_SECONDS = 3600.0


class InProcessCluster:
    """A cluster in an event loop that runs only while a test's coroutine does."""

    def __init__(self, runner: asyncio.Runner, cluster: LocalCluster) -> None:
        self.run = runner.run
        self.cluster = cluster

    @property
    def access(self) -> ClusterAccess:
        return self.cluster.access


class SlowInstallation:
    """Moves the clock by an hour while the control plane is installed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._find = BinaryStore.find_or_install
        self.later = 0.0
        patch.setattr(BinaryStore, "find_or_install", lambda store, report: self._install(store, report))
        patch.setattr("ocelli_local.cluster.time", SimpleNamespace(monotonic=lambda: time.monotonic() + self.later))

    async def _install(self, store: BinaryStore, report: Report) -> Programs:
        self.later = INSTALL_SECONDS
        return await self._find(store, report)


@pytest.fixture(scope="module")
def slow_installation() -> Iterator[SlowInstallation]:
    with pytest.MonkeyPatch.context() as patch:
        yield SlowInstallation(patch)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, slow_installation: SlowInstallation) -> Iterator[InProcessCluster]:
    options = ClusterOptions(state_dir=tmp_path_factory.mktemp("cluster"), durable=False, container_env={"GREETING": "hello"})
    with asyncio.Runner() as runner:
        cluster = LocalCluster(options)
        runner.run(cluster.__aenter__())
        yield InProcessCluster(runner, cluster)
        runner.run(cluster.__aexit__(None, None, None))


def test_installing_the_programs_does_not_count_towards_the_start_timeout(
    in_process: InProcessCluster, slow_installation: SlowInstallation
) -> None:
    assert slow_installation.later > in_process.cluster.options.start_timeout_seconds
    assert in_process.run(in_process.access.get("v1", "Node", in_process.cluster.options.node_name))


def test_custom_resource_applies_together_with_its_definition(in_process: InProcessCluster) -> None:
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"size": 1}}
    in_process.run(in_process.access.apply([thing, CRD]))
    assert in_process.run(in_process.access.get("example.com/v1", "Thing", "one"))


def test_service_account_kubeconfig_is_the_accounts_and_private(in_process: InProcessCluster) -> None:
    path = in_process.run(in_process.access.service_account_kubeconfig("default", "default"))
    question = ["--kubeconfig", str(path), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]
    answer = in_process.run(in_process.access.kubectl(*question))
    assert answer.stdout == "system:serviceaccount:default:default"
    assert path.stat().st_mode & 0o077 == 0


def test_containers_have_the_variables_of_the_cluster_options(in_process: InProcessCluster) -> None:
    access = in_process.access

    async def scenario() -> None:
        await access.apply(build_pod(build_container("echo $GREETING"), name="greeter"))

        async def greets() -> bool:
            return (await access.kubectl("logs", "greeter", check=False)).stdout == "hello\n"

        await access.wait_for("the container greets", greets)

    in_process.run(scenario())


def test_pods_survive_an_outage_of_the_api_server(in_process: InProcessCluster) -> None:
    access = in_process.access
    manifest = build_pod(build_container("exec sleep 60"), name="survivor", restartPolicy="Always")

    async def read() -> Manifest | None:
        return await access.get("v1", "Pod", "survivor")

    async def runs() -> bool:
        return str((await read() or {}).get("status", {}).get("phase")) == "Running"

    async def is_gone() -> bool:
        return await read() is None

    async def scenario() -> Manifest | None:
        await access.apply(manifest)
        await access.wait_for("the Pod runs", runs)
        await in_process.cluster.control_plane.restart_component("kube-apiserver")
        after = await read()
        await access.delete(manifest)
        await access.wait_for("the Pod is gone", is_gone)
        return after

    after = in_process.run(scenario())
    assert after is not None
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
