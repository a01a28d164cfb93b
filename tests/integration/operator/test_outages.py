"""Outages of the control plane during the life of a Classifier: the result is the same, and the operator soon leads again.

The API server is stopped for `OCELLI_OUTAGE_SECONDS`: 15 by default, more than twice the duration of a Lease.
`OCELLI_OUTAGE_SECONDS=60` tests a whole minute.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ocelli_local.cluster_process import ClusterDescription
from tests.integration.operator.life import live, live_undisturbed
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.write_proxy import WriteProxy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OUTAGE_SECONDS = float(os.environ.get("OCELLI_OUTAGE_SECONDS", "15"))
LEADS_AGAIN_SECONDS = 15.0
CUT_EVERY_SECONDS = 2.0
"""More often than in any network, so that it happens many times in a short life."""


def find_component(scene: Scene, name: str) -> int:
    """The process id of a component that has not restarted since the cluster started."""
    description = ClusterDescription.load(Path(scene.cluster.kubeconfig).parent)
    assert description is not None
    return description.components[name]


def wait_until_it_answers(scene: Scene) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            scene.jobs()
        except Exception:
            assert time.monotonic() < deadline, "the API server does not answer again"
            time.sleep(0.1)
        else:
            return


def wait_until_leading_again(operator: OperatorProcess) -> None:
    since = time.monotonic()
    operator.wait_until_leading()
    assert time.monotonic() - since < LEADS_AGAIN_SECONDS


@contextmanager
def cutting(proxy: WriteProxy) -> Iterator[None]:
    """End all connections repeatedly."""
    ended = threading.Event()

    def cut() -> None:
        while not ended.wait(CUT_EVERY_SECONDS):
            proxy.end_connections()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def pause_api_server(scene: Scene, operator: OperatorProcess) -> None:
    """Pause the API server: it answers nothing, and connections stay open."""
    api_server = find_component(scene, "kube-apiserver")
    os.kill(api_server, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + OUTAGE_SECONDS
        while operator.is_leading():
            assert time.monotonic() < deadline, "the operator still leads without a Lease"
            time.sleep(0.1)
        time.sleep(max(deadline - time.monotonic(), 0))
    finally:
        os.kill(api_server, signal.SIGCONT)
    wait_until_leading_again(operator)
    wait_until_it_answers(scene)


def restart_etcd(scene: Scene, operator: OperatorProcess) -> None:
    """Kill etcd; the local cluster starts it again."""
    os.kill(find_component(scene, "etcd"), signal.SIGKILL)
    time.sleep(1)
    wait_until_it_answers(scene)
    wait_until_leading_again(operator)


def test_a_life_with_outages_of_api_server_etcd_and_watches_has_the_same_result(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    expected = live_undisturbed(scene, build_operator)

    operator = build_operator(kubeconfig=proxy.kubeconfig)
    operator.start()
    operator.wait_until_leading()
    with cutting(proxy):
        ended = live(scene, "wild", [partial(pause_api_server, scene, operator), partial(restart_etcd, scene, operator)])
    assert ended == expected
