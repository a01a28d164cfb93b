"""An operator that is killed, restarted, duplicated or disconnected ends in the same state as one that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from ocelli_cluster.client import ClusterClient, NotFoundError
from ocelli_cluster.lease import LeaderLease, LeaseName, LeaseTimes
from ocelli_cluster.resources import LEASES
from tests.integration.operator.life import live, live_undisturbed
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.write_proxy import WriteProxy

pytestmark = pytest.mark.cluster


class _Reaper:
    """Kills the operator at each write and starts another. Every second write takes effect unanswered; the others are lost."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator = operator
        self.deaths = 0

    def at_write(self, done: bool) -> bool:
        process = self._operator.process
        assert process is not None
        if process.poll() is not None:
            # Sent by the operator that has just been killed.
            return False
        if done != bool(self.deaths % 2):
            return True
        self.deaths += 1
        self._operator.kill()
        process.wait()
        self._operator.start()
        return False


@pytest.mark.timeout(600)
def test_an_operator_killed_at_every_write_ends_in_the_same_state(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    expected = live_undisturbed(scene, build_operator)

    mortal = build_operator(kubeconfig=proxy.kubeconfig, identity="mortal")
    reaper = _Reaper(mortal)
    proxy.at_write = reaper.at_write
    mortal.start()
    assert live(scene, "wild") == expected
    assert reaper.deaths > 15


def test_reconciling_settled_objects_again_writes_nothing(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    first = build_operator(identity="first")
    first.start()
    scene.apply(scene.build(serving={"replicas": 2, "resources": {"requests": {"cpu": "0.05", "memory": "128Mi"}}}))
    scene.apply(scene.build("scaling", serving={"autoscaling": {"maxReplicas": 2}}))
    scene.apply(scene.build("stalled", second="few"))
    scene.wait_until_ready()
    scene.wait_until_ready("scaling")
    scene.wait_for_condition("Stalled", "InvalidData", "stalled")
    first.stop()
    second = build_operator(kubeconfig=proxy.kubeconfig, identity="second")
    second.start()
    second.wait_until_leading()
    passes = 'ocelli_reconciles_total{result="unchanged"}'
    scene.cluster.wait_for("each was reconciled", lambda: second.metric(passes) >= 3)
    assert proxy.writes == []


def test_a_new_leader_takes_over_within_seconds(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
    first, second = build_operator(identity="one"), build_operator(identity="two")
    first.start()
    first.wait_until_leading()
    second.start()
    first.kill()
    killed_at = time.monotonic()
    second.wait_until_leading()
    assert time.monotonic() - killed_at < 10
    scene.apply(scene.build())
    scene.wait_until_ready()


def test_one_of_two_operators_works(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
    first, second = build_operator(identity="one"), build_operator(identity="two")
    first.start()
    first.wait_until_leading()
    second.start()
    scene.apply(scene.build())
    scene.wait_until_ready()
    assert first.is_leading()
    assert second.metric("ocelli_leader") == 0.0
    assert second.metric("ocelli_training_jobs_started_total") == 0.0


def test_an_operator_that_stops_releases_its_lease(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> None:
    first, second = build_operator(identity="one"), build_operator(identity="two")
    first.start()
    first.wait_until_leading()
    second.start()
    scene.cluster.wait_for("the second one is up", second.is_up)
    assert first.stop() == 0
    stopped_at = time.monotonic()
    second.wait_until_leading()
    assert time.monotonic() - stopped_at < 5


def test_a_deleted_lease_is_lost_and_not_recreated_by_its_holder(scene: Scene) -> None:
    name = LeaseName(namespace=scene.namespace, name="lost", identity="one")

    async def lose() -> None:
        async with await ClusterClient.connect({"KUBECONFIG": str(scene.cluster.kubeconfig)}) as client:
            lease = LeaderLease(client, name, LeaseTimes(renew_seconds=0.05, give_up_seconds=0.5))
            await lease.acquire()
            await client.delete(LEASES, name.namespace, name.name)
            await asyncio.wait_for(lease.keep(), timeout=20)
            with pytest.raises(NotFoundError):
                await client.get(LEASES, name.namespace, name.name)

    asyncio.run(lose())


def test_liveness_fails_with_a_stale_watch(build_operator: Callable[..., OperatorProcess], proxy: WriteProxy) -> None:
    operator = build_operator(kubeconfig=proxy.kubeconfig, OCELLI_WATCH_SECONDS="1-1", OCELLI_STALE_WATCH_LIMIT_SECONDS="5")
    operator.start()
    operator.wait_until_leading()
    assert operator.health() == 200
    proxy.cut()
    deadline = time.monotonic() + 40
    while operator.health() == 200:
        assert time.monotonic() < deadline, f"liveness does not notice: {operator.metric('ocelli_watch_age_seconds')}"
        time.sleep(0.2)


def test_an_operator_continues_after_a_disconnect(
    scene: Scene, build_operator: Callable[..., OperatorProcess], proxy: WriteProxy
) -> None:
    operator = build_operator(kubeconfig=proxy.kubeconfig)
    operator.start()
    operator.wait_until_leading()
    proxy.cut()
    scene.apply(scene.build())
    proxy.mend()
    scene.wait_until_ready()
