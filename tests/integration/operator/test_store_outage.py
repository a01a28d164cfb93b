"""A store that is paused for minutes during many trainings, most of them Pending: nothing is lost or otherwise affected.

Not part of `make test`, because it takes as long as the outage:

    OCELLI_STORE_OUTAGE_SECONDS=300 OCELLI_STORE_OUTAGE_TRAININGS=200 .venv/bin/python -m pytest -s \\
        tests/integration/operator/test_store_outage.py

It prints the status messages during the outage.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_model.publish import publish_backbone
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.store.store_process import ADMINISTRATOR, StoreProcess, running_store_process

OUTAGE_SECONDS = float(os.environ.get("OCELLI_STORE_OUTAGE_SECONDS", "0"))
TRAININGS = int(os.environ.get("OCELLI_STORE_OUTAGE_TRAININGS", "200"))
SOON_SECONDS = 30.0
"""For everything that does not need the store, during the outage."""
SMALL = {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}}
STATUS_WRITES = 'ocelli_api_writes_total{method="PATCH",resource="classifiers"}'

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800 + 4 * OUTAGE_SECONDS),
    pytest.mark.skipif(OUTAGE_SECONDS == 0, reason="OCELLI_STORE_OUTAGE_SECONDS is not set"),
]


@pytest.fixture
def store(local_cluster: SyncClusterAccess, namespace: str, tmp_path: Path) -> Iterator[StoreProcess]:
    with running_store_process(local_cluster, namespace, tmp_path) as store:
        yield store


@pytest.fixture
def operator(store: StoreProcess, build_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    operator = build_operator(
        OCELLI_STORE_URL=store.url,
        OCELLI_STORE_TOKEN_FILE=str(store.save_token(store.namespace, ADMINISTRATOR)),
        OCELLI_BACKBONES=str(asyncio.run(publish_backbone(store.open_as_administrator(), "EfficientNetLite0"))),
    )
    operator.start()
    operator.wait_until_leading()
    return operator


def count_stalled(scene: Scene) -> Counter[str]:
    """The reasons of `Stalled`."""
    path = f"/apis/ocelli.dev/v1alpha1/namespaces/{scene.namespace}/classifiers"
    conditions: list[dict[str, Any]] = [
        condition
        for item in scene.cluster.list_objects(path)
        for condition in (item.get("status") or {}).get("conditions") or ()
    ]
    return Counter(condition["reason"] for condition in conditions if condition["type"] == "Stalled")


def test_a_paused_store_during_many_trainings_loses_nothing_and_affects_nothing_else(
    scene: Scene, store: StoreProcess, operator: OperatorProcess
) -> None:
    scene.apply(scene.build("served", serving=SMALL))
    scene.wait_until_ready("served")
    scene.sources.hold()
    for number in range(TRAININGS):
        scene.apply(scene.build(f"training-{number:03d}", serving=SMALL))
    scene.cluster.wait_for("every Job", lambda: len(scene.jobs()) == TRAININGS + 1, timeout_seconds=300)
    store.stand_still()
    ends_at = time.monotonic() + OUTAGE_SECONDS
    operator.kill()
    operator.start()
    operator.wait_until_leading()
    # Running trainers have their examples by now, and find a store that does not answer.
    scene.sources.release()

    scene.patch('{"spec": {"serving": {"replicas": 2}}}', "served")
    scene.cluster.wait_for(
        "two replicas", lambda: scene.deployments()[0]["spec"]["replicas"] == 2, timeout_seconds=SOON_SECONDS
    )
    scene.kubectl("delete", "clf", f"training-{TRAININGS - 1:03d}")
    scene.cluster.wait_for(
        "its Job goes",
        lambda: not any(f"-{TRAININGS - 1:03d}-" in job for job in scene.names(scene.jobs())),
        timeout_seconds=SOON_SECONDS,
    )
    scene.apply(scene.build("new", serving=SMALL))
    message = scene.cluster.wait_for(
        "the outage is reported",
        lambda: message if "is not reachable" in (message := str(scene.condition("Trained", "new").get("message"))) else None,
        timeout_seconds=SOON_SECONDS,
    )
    print(f"\nnew: {message}\n{scene.kubectl('get', 'clf', 'served', 'new', 'training-000')}")
    assert operator.metric("ocelli_store_reachable") == 0.0
    time.sleep(max(min(10, ends_at - time.monotonic()), 0))
    written = operator.metric(STATUS_WRITES)
    time.sleep(max(ends_at - time.monotonic(), 0))
    # Running trainings may end for other reasons; waiting ones report nothing new.
    print(f"status writes in the rest of the outage: {operator.metric(STATUS_WRITES) - written:g}")
    assert operator.metric(STATUS_WRITES) - written <= TRAININGS
    assert count_stalled(scene) == Counter()

    store.go_on()
    scene.cluster.wait_for(
        "the new one's Job", lambda: any("new-" in job for job in scene.names(scene.jobs())), timeout_seconds=90
    )
    scene.cluster.wait_for(
        "it is no longer reported",
        lambda: "is not reachable" not in scene.condition("Trained", "new")["message"],
        timeout_seconds=90,
    )
    scene.wait_for_condition("Trained", "ArtifactStored", "training-000", timeout_seconds=300)
    assert count_stalled(scene) == Counter()
    assert operator.metric("ocelli_store_reachable") == 1.0
