"""Building and following the Pods of these tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ocelli_local import SyncClusterAccess
from ocelli_local.manifests import Manifest


def build_container(script: str, *, name: str = "main", **fields: Any) -> Manifest:
    """A container that runs `script` in a shell."""
    return {"name": name, "image": "unused", "command": ["sh", "-c", script], **fields}


def build_pod(*containers: Manifest, name: str = "pod", metadata: Manifest | None = None, **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": list(containers), **spec},
    }


class PodHandle:
    """One Pod of a test, seen through the API."""

    def __init__(self, cluster: SyncClusterAccess, namespace: str, name: str) -> None:
        self._cluster = cluster
        self.namespace = namespace
        self.name = name

    def read(self) -> Manifest | None:
        return self._cluster.get("v1", "Pod", self.name, namespace=self.namespace)

    def wait_until(self, what: str, holds: Callable[[Manifest], Any], *, timeout_seconds: float = 20.0) -> Manifest:
        last: Manifest | None = None

        def condition() -> Manifest | None:
            nonlocal last
            last = self.read()
            return last if last is not None and holds(last) else None

        try:
            return self._cluster.wait_for(f"Pod {self.name}: {what}", condition, timeout_seconds=timeout_seconds)
        except TimeoutError as error:
            error.add_note(json.dumps((last or {}).get("status"), indent=1))
            raise

    def wait_for_phase(self, *phases: str) -> Manifest:
        return self.wait_until(f"phase {phases}", lambda pod: pod["status"].get("phase") in phases)

    def wait_until_ready(self) -> Manifest:
        return self.wait_until("is Ready", lambda pod: condition_status(pod, "Ready") == "True")

    def wait_until_gone(self, *, timeout_seconds: float = 20.0) -> None:
        self._cluster.wait_for(f"Pod {self.name} is gone", lambda: self.read() is None, timeout_seconds=timeout_seconds)

    def wait_for_log(self, text: str) -> str:
        def condition() -> str | None:
            log = self.log(check=False)
            return log if text in log else None

        return self._cluster.wait_for(f"Pod {self.name} logs {text!r}", condition)

    def log(self, *arguments: str, check: bool = True) -> str:
        return self._cluster.kubectl("logs", "-n", self.namespace, self.name, *arguments, check=check).stdout

    def delete(self, *arguments: str) -> None:
        self._cluster.kubectl("delete", "pod", "-n", self.namespace, self.name, "--wait=false", *arguments)

    def wait_for_event(self, reason: str) -> Manifest:
        def condition() -> Manifest | None:
            events = self._cluster.list_objects(f"/api/v1/namespaces/{self.namespace}/events")
            mine = [e for e in events if e["involvedObject"]["name"] == self.name and e["reason"] == reason]
            return mine[0] if mine else None

        return self._cluster.wait_for(f"Pod {self.name} has an Event {reason}", condition)


def condition_status(pod: Manifest, kind: str) -> str | None:
    return next((c["status"] for c in pod["status"].get("conditions", []) if c["type"] == kind), None)


def container_status(pod: Manifest, name: str = "main") -> Manifest:
    """The container's status; empty while there is none."""
    statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
    return next((status for status in statuses if status["name"] == name), {"state": {}, "restartCount": 0})


def terminated(pod: Manifest, name: str = "main") -> Manifest:
    state: Manifest = container_status(pod, name)["state"]["terminated"]
    return state
