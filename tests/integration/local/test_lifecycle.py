"""Clusters that start, stop, are killed, start again, and run at the same time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.__main__ import main
from ocelli_local.child_process import CLUSTER_MARKER, find_marked_processes
from ocelli_local.cluster import ClusterError, build_marker
from ocelli_local.cluster_process import ClusterDescription, ClusterProcess, is_locked, stop_running_cluster
from ocelli_local.manifest import Manifest
from tests.integration.local.pods import PodHandle, build_container, build_pod, container_status, terminated

pytestmark = pytest.mark.cluster

GONE_WITHIN_SECONDS = 2.0


def find_processes(state_dir: Path) -> list[int]:
    return find_marked_processes(f"{CLUSTER_MARKER}={build_marker(state_dir)}")


def seconds_until_gone(state_dir: Path) -> float:
    began = time.monotonic()
    while find_processes(state_dir):
        if time.monotonic() - began > 10:
            pytest.fail(f"still there: {find_processes(state_dir)}")
        time.sleep(0.02)
    return time.monotonic() - began


def run_pod(access: SyncClusterAccess, container: Manifest, *, name: str, policy: str) -> PodHandle:
    access.wait_for("the default ServiceAccount", lambda: access.get("v1", "ServiceAccount", "default"))
    access.apply(build_pod(container, name=name, restartPolicy=policy))
    return PodHandle(access, "default", name)


@dataclass(frozen=True, kw_only=True)
class KilledAndRestarted:
    """A cluster that was killed under running Pods and started again on the same state folder."""

    processes_before: int
    seconds_until_gone: float
    address_before: str
    process: ClusterProcess
    """Of the second start. `interrupted` ends it, so the tests of that come last."""
    access: SyncClusterAccess
    job_pod: PodHandle
    server_pod: PodHandle
    done_pod: PodHandle


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The cluster of the second start after Ctrl-C, with a Pod that ignores SIGTERM."""

    state_dir: Path
    hook: Path
    """The Pod's preStop hook creates it."""


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledAndRestarted]:
    process = ClusterProcess(tmp_path_factory.mktemp("killed"), ["--not-durable"])
    access = process.start().open()
    # `setsid` removes the second process from every group and session that could be killed together.
    job = run_pod(access, build_container("setsid sleep 600 & exec sleep 600"), name="job", policy="Never")
    server = run_pod(access, build_container("exec sleep 600"), name="server", policy="Always")
    done = run_pod(access, build_container("echo finished; exit 0"), name="done", policy="Never")
    for pod in (job, server):
        pod.wait_for_phase("Running")
    done.wait_for_phase("Succeeded")
    processes_before = len(find_processes(process.state_dir))
    address_before = access.url
    access.close()
    process.kill()
    seconds = seconds_until_gone(process.state_dir)
    again = ClusterProcess(process.state_dir, ["--not-durable"])
    access = again.start().open()
    try:
        yield KilledAndRestarted(
            processes_before=processes_before,
            seconds_until_gone=seconds,
            address_before=address_before,
            process=again,
            access=access,
            job_pod=PodHandle(access, "default", "job"),
            server_pod=PodHandle(access, "default", "server"),
            done_pod=PodHandle(access, "default", "done"),
        )
    finally:
        access.close()
        again.stop()


def test_killed_runner_leaves_no_processes(restarted: KilledAndRestarted) -> None:
    # Four components, and for each running Pod a wrapper, its shell and the command at least.
    assert restarted.processes_before >= 10
    assert restarted.seconds_until_gone < GONE_WITHIN_SECONDS


def test_restarted_cluster_has_the_same_address(restarted: KilledAndRestarted) -> None:
    assert restarted.access.url == restarted.address_before


def test_pod_that_is_never_restarted_fails_as_disrupted(restarted: KilledAndRestarted) -> None:
    failed = restarted.job_pod.wait_for_phase("Failed")
    assert (terminated(failed)["exitCode"], terminated(failed)["reason"]) == (137, "ContainerStatusUnknown")
    conditions = {condition["type"]: condition for condition in failed["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["status"] == "True"


def test_pod_that_is_always_restarted_runs_again_in_place(restarted: KilledAndRestarted) -> None:
    def runs_again(pod: Manifest) -> bool:
        status = container_status(pod)
        return "running" in status["state"] and status["restartCount"] == 1

    running = restarted.server_pod.wait_until("runs again", runs_again)
    assert container_status(running)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert len(running["status"]["podIPs"]) == 1


def test_succeeded_pod_keeps_its_status_and_its_log(restarted: KilledAndRestarted) -> None:
    assert restarted.done_pod.wait_for_phase("Succeeded")["status"]["phase"] == "Succeeded"
    assert restarted.done_pod.log() == "finished\n"


@pytest.fixture(scope="module")
def interrupted(restarted: KilledAndRestarted, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    process, hook = restarted.process, tmp_path_factory.mktemp("hook") / "ran"
    stubborn = build_container("trap '' TERM; while true; do sleep 0.1; done")
    stubborn["lifecycle"] = {"preStop": {"exec": {"command": ["touch", str(hook)]}}}
    run_pod(restarted.access, stubborn, name="stubborn", policy="Always").wait_for_phase("Running")
    process.process.send_signal(signal.SIGINT)
    process.process.wait(15)
    return Interrupted(state_dir=process.state_dir, hook=hook)


def test_interrupt_stops_everything(interrupted: Interrupted) -> None:
    assert find_processes(interrupted.state_dir) == []
    assert not is_locked(interrupted.state_dir)


def test_a_cluster_that_stops_runs_no_pre_stop_hook(interrupted: Interrupted) -> None:
    assert not interrupted.hook.exists()


@pytest.fixture(scope="module")
def detached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a cluster that does not end with the process that started it."""
    folder = tmp_path_factory.mktemp("detached")
    ClusterProcess(folder, ["--not-durable", "--resource", "example.com/gpu=2"], follow_parent=False).start()
    yield folder
    if is_locked(folder):
        stop_running_cluster(folder)


def test_two_clusters_run_at_the_same_time(local_cluster: SyncClusterAccess, namespace: str, detached: Path) -> None:
    description = ClusterDescription.load(detached)
    assert description is not None
    access = description.open()
    try:
        assert access.url != local_cluster.url
        assert access.get("v1", "Namespace", namespace) is None
        node = access.get("v1", "Node", "local")
        assert node is not None
        assert node["status"]["allocatable"]["example.com/gpu"] == "2"
    finally:
        access.close()


def test_detached_cluster_can_be_stopped_by_its_folder(detached: Path) -> None:
    assert ClusterDescription.load(detached) is not None
    assert stop_running_cluster(detached)
    assert find_processes(detached) == []


def test_second_runner_on_one_state_folder_is_refused(local_cluster: SyncClusterAccess) -> None:
    with pytest.raises(ClusterError, match="already running"):
        ClusterProcess(local_cluster.folder, ["--not-durable"]).start()


def test_cluster_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    process = ClusterProcess(tmp_path, ["--not-durable"])
    process.start()
    assert process.process.stdin is not None
    process.process.stdin.close()
    process.process.wait(15)
    assert find_processes(tmp_path) == []


def test_status_shows_the_running_cluster(
    local_cluster: SyncClusterAccess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["status", "--state-dir", str(local_cluster.folder)]) == 0
    assert "kube-apiserver" in capsys.readouterr().out
    assert main(["status", "--state-dir", str(tmp_path)]) == 3
