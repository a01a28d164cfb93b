"""Kubernetes' controllers with the process node: Jobs and Deployments work as on a real cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.manifest import Manifest
from tests.integration.local.pods import PodHandle, build_container, condition_status

pytestmark = pytest.mark.cluster

RunPod = Callable[..., PodHandle]


def build_job(script: str, **spec: Any) -> Manifest:
    template = {"spec": {"restartPolicy": "Never", "containers": [build_container(script)]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }


def build_deployment(word: str, **pod_spec: Any) -> Manifest:
    container = {
        "name": "main",
        "image": "unused",
        "command": ["python", "-m", "http.server", "8080", "--bind", "$(POD_IP)"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "WORD", "value": word},
        ],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 3, **pod_spec},
            },
        },
    }


def wait_for_job(cluster: SyncClusterAccess, namespace: str, condition: str) -> Manifest:
    def reached() -> Manifest | None:
        job = cluster.get("batch/v1", "Job", "job", namespace=namespace)
        return job if job is not None and condition_status(job, condition) == "True" else None

    return cluster.wait_for(f"Job is {condition}", reached)


def test_job_completes(local_cluster: SyncClusterAccess, namespace: str) -> None:
    local_cluster.apply(build_job("exit 0"), namespace=namespace)
    assert wait_for_job(local_cluster, namespace, "Complete")["status"]["succeeded"] == 1


def test_exit_code_of_the_failure_policy_fails_the_job_immediately(local_cluster: SyncClusterAccess, namespace: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}
    job = build_job("exit 42", backoffLimit=6, podFailurePolicy={"rules": [rule]})
    local_cluster.apply(job, namespace=namespace)
    failed = wait_for_job(local_cluster, namespace, "Failed")
    reasons = [c["reason"] for c in failed["status"]["conditions"] if c["type"] == "Failed"]
    assert reasons == ["PodFailurePolicy"]


def test_deployment_rolls_without_a_gap(local_cluster: SyncClusterAccess, namespace: str) -> None:
    local_cluster.apply(build_deployment("old"), namespace=namespace)
    wait_for_rollout(local_cluster, namespace)
    watch = ReadyWatch(local_cluster, namespace)
    local_cluster.apply(build_deployment("new"), namespace=namespace)
    wait_for_rollout(local_cluster, namespace)
    assert watch.stop() >= 2


def wait_for_rollout(cluster: SyncClusterAccess, namespace: str) -> None:
    cluster.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=40s")


class ReadyWatch:
    """Counts the ready Pods continuously, and keeps the minimum."""

    def __init__(self, cluster: SyncClusterAccess, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._least = 1000
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> int:
        self._stopping.set()
        self._thread.join()
        return self._least

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            pods = self._cluster.list_objects(f"/api/v1/namespaces/{self._namespace}/pods")
            ready = [pod for pod in pods if condition_status(pod, "Ready") == "True"]
            self._least = min(self._least, len(ready))


def test_refused_pods_of_a_deployment_are_not_replaced_endlessly(local_cluster: SyncClusterAccess, namespace: str) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    local_cluster.apply(build_deployment("refused", volumes=volumes), namespace=namespace)

    def all_refused() -> list[Manifest]:
        pods = local_cluster.list_objects(f"/api/v1/namespaces/{namespace}/pods")
        return [pod for pod in pods if "persistentVolumeClaim" in str(pod["status"].get("containerStatuses"))]

    local_cluster.wait_for("both Pods report the refusal", lambda: len(all_refused()) == 2)
    assert {pod["status"]["phase"] for pod in all_refused()} == {"Pending"}
    assert len(local_cluster.list_objects(f"/api/v1/namespaces/{namespace}/pods")) == 2


def test_extended_resource_that_no_node_has_leaves_the_pod_unscheduled(run_pod: RunPod) -> None:
    pod = run_pod(build_container("true", resources={"limits": {"example.com/gpu": "1"}}))
    pod.wait_until("is unschedulable", lambda pod: condition_status(pod, "PodScheduled") == "False")
