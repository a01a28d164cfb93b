"""The life of a Classifier, and the result that must not depend on what happens to the operator meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene


def describe(scene: Scene, name: str) -> dict[str, Any]:
    """Everything that must not depend on how often the operator was killed, without times and random names."""
    status = scene.status(name)
    stored = [path for path in scene.stored() if f"/{status['classifierID']}/" in path]
    described = {
        "conditions": {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]},
        "attempt": status["attempt"],
        "revisions": [status["servedRevision"], status["settledRevision"], [item["revision"] for item in status["history"]]],
        "nonce": status["observedRetrainNonce"],
        "retrained": "retrainedAt" in status,
        "jobs": [job for job in scene.names(scene.jobs()) if job.startswith(name)],
        "deployments": [item for item in scene.names(scene.deployments()) if item.startswith(name)],
        "stored": [path.replace(status["classifierID"], "ID") for path in stored],
    }
    return cast(dict[str, Any], json.loads(json.dumps(described).replace(name, "NAME")))


def live(scene: Scene, name: str, faults: Sequence[Callable[[], None]] = ()) -> dict[str, Any]:
    """Create a Classifier, wait until it is served, change it, wait again. During each training one of `faults` is called."""
    pending_faults = iter(faults)
    for spec in ({}, {"model": {"seed": 1}, "retrainNonce": 1}):
        before = scene.names(scene.jobs())
        scene.apply(scene.build(name, **spec))
        fault = next(pending_faults, None)
        if fault is not None:
            scene.cluster.wait_for("its training Job", lambda: scene.names(scene.jobs()) != before)  # noqa: B023 - called at once
            fault()
        status = scene.wait_until_ready(name)
    scene.cluster.wait_for(
        "one Deployment is left",
        lambda: (
            [item for item in scene.names(scene.deployments()) if item.startswith(name)]
            == [f"{name}-{status['servedRevision']}"]
        ),
    )
    return describe(scene, name)


def live_undisturbed(scene: Scene, build_operator: Callable[..., OperatorProcess]) -> dict[str, Any]:
    """The result of a life without faults, with a separate operator."""
    operator = build_operator(identity="undisturbed")
    operator.start()
    ended = live(scene, "calm")
    operator.stop()
    return ended
