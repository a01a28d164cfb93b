"""What a process node refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.refusals import find_refusals


def make_pod(container: Manifest | None = None, **spec: Any) -> Manifest:
    return {"spec": {"containers": [{"name": "main", "command": ["run"], **(container or {})}], **spec}}


def test_plain_pod_is_not_refused() -> None:
    volumes = [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "c"}},
        {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    security = {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    assert find_refusals(make_pod({"securityContext": security}, volumes=volumes)) == []


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (make_pod({"command": []}), "set its command"),
        (make_pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), "use an emptyDir"),
        (make_pod(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]), "give the process the path itself"),
        (make_pod(volumes=[{"name": "v", "nfs": {}}]), "of type nfs"),
        (make_pod(volumes=[{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {}}]}}]), "clusterTrust"),
        (make_pod({"securityContext": {"privileged": True}}), "privileged"),
        (make_pod({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}), "capabilities"),
        (make_pod({"ports": [{"containerPort": 80, "hostPort": 80}]}), "hostNetwork: true"),
        (make_pod({"livenessProbe": {"grpc": {"port": 1}}}), "use httpGet"),
        (make_pod(hostPID=True), "hostPID"),
        (make_pod(shareProcessNamespace=True), "shareProcessNamespace"),
        (make_pod(runtimeClassName="kata"), "runtimeClassName kata"),
        (make_pod(initContainers=[{"name": "setup"}]), "container setup has no command"),
    ],
)
def test_refusal_says_what_and_what_to_do(pod: Manifest, words: str) -> None:
    assert any(words in refusal for refusal in find_refusals(pod))


def test_every_reason_is_given_at_once() -> None:
    pod = make_pod({"command": [], "securityContext": {"privileged": True}}, hostIPC=True)
    assert len(find_refusals(pod)) == 3


def test_host_port_is_fine_with_the_host_network() -> None:
    assert find_refusals(make_pod({"ports": [{"containerPort": 80, "hostPort": 80}]}, hostNetwork=True)) == []
