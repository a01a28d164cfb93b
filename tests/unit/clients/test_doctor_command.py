"""`ocelli doctor`: each fault is a line with its remedy, and the exit code says whether there is one.

The gateway is a real one. The cluster is a stand-in: a program named `kubectl` that prints files.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ocelli_local.certificates import Authority, Subject
from tests.documented_commands import bash_blocks
from tests.gateway_harness.stage import GatewayInstance
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine, Run

KUBECTL = """#!/bin/sh
# Prints the file of the resource, or fails as kubectl does where a right is missing.
case "$2" in version) resource=version ;; *) resource="$3" ;; esac
file="{folder}/$resource.json"
if [ -f "$file" ]; then cat "$file"; else echo "Error from server (Forbidden): $resource is forbidden" >&2; exit 1; fi
"""


class StandInCluster:
    """What the stand-in of kubectl prints: a sound installation, of which tests change a part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.write("version", {"serverVersion": {"major": "1", "minor": "37+", "gitVersion": "v1.37.2"}})
        crd = {"metadata": {"name": "classifiers.ocelli.dev"}, "spec": {"versions": [{"name": "v1alpha1", "served": True}]}}
        self.items("crd", {**crd, "status": condition("Established", "True")})
        self.items("deployments", *(deployment(name) for name in ("operator", "gateway", "store")))
        self.items("pods")
        self.items("persistentvolumeclaims", claim("Bound"))
        self.items("nodes", node())
        self.items("classifiers.ocelli.dev", classifier("dogs"))

    def items(self, resource: str, *documents: dict[str, Any]) -> None:
        self.write(resource, {"items": list(documents)})

    def write(self, resource: str, document: dict[str, Any]) -> None:
        (self._folder / f"{resource}.json").write_text(json.dumps(document))

    def forbid(self, resource: str) -> None:
        (self._folder / f"{resource}.json").unlink()


def condition(kind: str, status: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "message": message}]}


def named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "ocelli-system"}


def deployment(component: str, available: int = 1, replicas: int = 1) -> dict[str, Any]:
    return {
        "metadata": {**named(f"ocelli-{component}"), "labels": {"app.kubernetes.io/component": component}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app.kubernetes.io/name": f"ocelli-{component}"}}},
        "status": {"availableReplicas": available} if available else {},
    }


def claim(phase: str) -> dict[str, Any]:
    return {"metadata": named("ocelli-store"), "status": {"phase": phase, "capacity": {"storage": "20Gi"}}}


def node(gpus: int = 0, ready: str = "True") -> dict[str, Any]:
    status = {**condition("Ready", ready), "allocatable": {"cpu": "2", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}}
    return {"metadata": {"name": "node-1"}, "spec": {}, "status": status}


def classifier(name: str, **training: Any) -> dict[str, Any]:
    return {"metadata": named(name), "spec": {"training": training}, "status": condition("Ready", "True")}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInCluster:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return StandInCluster(tmp_path)


def findings(run: Run) -> dict[str, tuple[str, str]]:
    """Level and text of each check."""
    return {
        one["check"]: (one["level"], f"{one['fact']} → {one['remedy']}" if "remedy" in one else one["fact"])
        for one in run.document["findings"]
    }


def examine(user: CommandLine, *options: str) -> dict[str, tuple[str, str]]:
    return findings(user.run("doctor", "-o", "json", *options))


def in_cluster(user: CommandLine) -> dict[str, tuple[str, str]]:
    return examine(user, "--kube-context", "test")


def test_a_gateway_that_works_has_no_problem(anna: CommandLine, client: V3Client) -> None:
    client.ready("songbirds")
    run = anna.succeed("doctor", "-o", "json")
    found = findings(run)
    assert run.document["healthy"] is True
    assert {check: level for check, (level, _) in found.items()} == {
        "configuration": "ok",
        "address": "ok",
        "log-in": "ok",
        "version": "ok",
        "API": "ok",
        "built-ins": "warning",
        "quota": "ok",
        "classifiers": "ok",
    }
    assert found["log-in"][1] == "anna, in the namespace team-a"
    assert "songbirds" in found["classifiers"][1]


def test_people_read_a_table_with_the_remedy_below_the_fact(anna: CommandLine) -> None:
    lines = anna.succeed("doctor").out.splitlines()
    assert lines[0].split() == ["CHECK", "STATE", "WHAT", "WAS", "FOUND"]
    (fact,) = (number for number, line in enumerate(lines) if line.startswith("built-ins"))
    assert "no built-in classifier is installed" in lines[fact]
    assert lines[fact + 1].strip() == "→ set builtIns of the chart, or BUILT_INS of `make run`"


def test_without_a_log_in_the_first_line_says_so(stranger: CommandLine) -> None:
    run = stranger.run("doctor", "-o", "json")
    assert run.code == 1
    assert list(findings(run)) == ["configuration"]
    assert findings(run)["configuration"][0] == "problem"


def test_an_address_without_a_gateway_is_a_problem(anna: CommandLine) -> None:
    run = anna.run("doctor", "-o", "json", OCELLI_URL="http://127.0.0.1:1")
    assert run.code == 1
    assert findings(run)["address"][0] == "problem"
    assert "http://127.0.0.1:1 is not reachable" in findings(run)["address"][1]


def test_a_proxy_that_cannot_be_used_is_a_problem(anna: CommandLine) -> None:
    run = anna.run("doctor", "-o", "json", ALL_PROXY="foo://proxy")
    assert run.code == 1
    assert findings(run)["address"][0] == "problem"
    assert "HTTP_PROXY" in run.out


def test_credentials_that_are_not_accepted_are_a_problem(anna: CommandLine) -> None:
    run = anna.run("doctor", "-o", "json", OCELLI_PASSWORD="wrong")
    assert run.code == 1
    assert findings(run)["log-in"][0] == "problem"
    assert "ocelli login" in findings(run)["log-in"][1]


def test_names_of_problems_are_the_output_by_name(anna: CommandLine) -> None:
    assert anna.run("doctor", "-o", "name", OCELLI_PASSWORD="wrong").out.split() == ["log-in"]


def test_a_failed_classifier_is_a_problem_with_its_explanation(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.created("finches")
    client.stage.fail_training(classifier_id, 'class "a" has 3 examples; add at least 7')
    found = examine(anna)
    assert found["classifier finches"][0] == "problem"
    assert 'class "a" has 3 examples; add at least 7' in found["classifier finches"][1]
    client.http.delete(f"/v3/classifiers/{classifier_id}")


def test_a_classifier_that_waits_for_a_gpu_is_a_problem_with_the_schedulers_words(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.created("wrens")
    manifest = client.stage.classifier(classifier_id)
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu"
    waiting = {"type": "Ready", "status": "False", "reason": "Unschedulable", "message": message}
    manifest["status"] = {"classifierID": classifier_id, "conditions": [waiting]}
    client.stage.put_classifier(manifest)
    level, text = examine(anna)["classifier wrens"]
    assert (level, message in text, "one that offers GPUs" in text) == ("problem", True, True)
    client.http.delete(f"/v3/classifiers/{classifier_id}")


def test_a_revision_that_waits_for_approval_is_a_warning_with_the_command(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready("thrushes")
    client.stage.await_approval(classifier_id, "waits for approval")
    level, text = examine(anna)["classifier thrushes"]
    assert (level, f"ocelli approve {classifier_id} " in text) == ("warning", True)
    client.http.delete(f"/v3/classifiers/{classifier_id}")


class _Stranger(BaseHTTPRequestHandler):
    """Another server than Ocelli's."""

    def do_GET(self) -> None:
        data = b"<html>Welcome to nginx!</html>"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing is asserted about it."""


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[tuple[ThreadingHTTPServer, Path]]:
    """An HTTPS server that is not Ocelli's, and the authority of its certificate."""
    authority = Authority(tmp_path, "test")
    pair = authority.issue("server", Subject(name="server", serves=["localhost"]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stranger)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server, authority.pair.certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_of_an_unknown_authority_is_a_problem_that_names_the_option(
    stranger: CommandLine, other_server: tuple[ThreadingHTTPServer, Path]
) -> None:
    url = f"https://localhost:{other_server[0].server_port}"
    found = findings(stranger.run("doctor", "-o", "json", OCELLI_URL=url, OCELLI_API_KEY="key"))
    assert found["TLS"][0] == "problem"
    assert "OCELLI_CA" in found["TLS"][1]


def test_another_server_at_the_address_is_a_problem(
    stranger: CommandLine, other_server: tuple[ThreadingHTTPServer, Path]
) -> None:
    server, authority = other_server
    variables = {"OCELLI_URL": f"https://localhost:{server.server_port}", "OCELLI_CA": str(authority)}
    found = findings(stranger.run("doctor", "-o", "json", OCELLI_API_KEY="key", **variables))
    assert (found["TLS"][0], found["API"][0]) == ("ok", "problem")


def test_a_sound_cluster_has_no_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    run = anna.succeed("doctor", "-o", "json", "--kube-context", "test")
    found = findings(run)
    checks = ("cluster", "CRD", "operator", "gateway", "store", "GPUs", "Classifiers")
    assert {check: found[check][0] for check in checks} == dict.fromkeys(checks, "ok")
    assert found["Classifiers"][1] == "1 Classifier, none stalled"


def test_the_commands_of_the_page_examine_gateway_and_cluster(anna: CommandLine, cluster: StandInCluster) -> None:
    (block,) = bash_blocks("docs/import.md", "When something does not work")
    alone, with_cluster = (anna.succeed(*line.split()[1:]).out for line in block.splitlines())
    assert ("CRD" in alone, "CRD" in with_cluster) == (False, True)


def test_a_cluster_is_only_asked_if_its_context_is_given(anna: CommandLine, cluster: StandInCluster) -> None:
    assert "cluster" not in examine(anna)


def test_an_old_kubernetes_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.write("version", {"serverVersion": {"major": "1", "minor": "29", "gitVersion": "v1.29.1"}})
    assert in_cluster(anna)["cluster"] == ("problem", "Kubernetes v1.29.1 → upgrade the cluster to 1.31 or newer")


def test_a_missing_crd_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("crd")
    assert in_cluster(anna)["CRD"][0] == "problem"


def test_a_missing_component_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("deployments", deployment("gateway"))
    assert in_cluster(anna)["chart"][1].startswith("there is no operator in the cluster → helm install")


def test_a_component_that_does_not_run_is_a_problem_with_the_reason_of_its_pod(
    anna: CommandLine, cluster: StandInCluster
) -> None:
    cluster.items("deployments", deployment("operator", available=0), deployment("gateway"))
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    status = {"containerStatuses": [{"name": "operator", "state": {"waiting": waiting}}]}
    cluster.items("pods", {"metadata": named("operator-1"), "status": status})
    level, text = in_cluster(anna)["operator"]
    assert level == "problem"
    assert "0 of 1 replica available (operator: ImagePullBackOff not found)" in text


def test_a_component_with_some_replicas_is_a_warning(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("deployments", deployment("operator"), deployment("gateway", available=1, replicas=2))
    assert in_cluster(anna)["gateway"][0] == "warning"


def test_a_volume_that_is_not_bound_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("persistentvolumeclaims", claim("Pending"))
    level, text = in_cluster(anna)["store"]
    assert (level, "claim ocelli-system/ocelli-store is Pending" in text) == ("problem", True)


def test_a_gpu_that_is_required_and_not_offered_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("classifiers.ocelli.dev", classifier("dogs", accelerator="GPU"))
    level, text = in_cluster(anna)["GPUs"]
    assert level == "problem"
    assert "no node offers nvidia.com/gpu, and these Classifiers require a GPU: ocelli-system/dogs" in text


def test_nodes_with_gpus_are_named(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("nodes", node(gpus=2))
    cluster.items("classifiers.ocelli.dev", classifier("dogs", accelerator="GPU"))
    assert in_cluster(anna)["GPUs"] == ("ok", "node-1 offers 2")


def test_a_node_that_is_not_ready_is_a_warning(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("nodes", node(gpus=2, ready="False"))
    found = in_cluster(anna)
    assert found["nodes"][0] == "warning"
    assert found["GPUs"][1] == "no node offers nvidia.com/gpu, and no Classifier requires one"


def test_a_stalled_classifier_is_a_problem_with_its_message(anna: CommandLine, cluster: StandInCluster) -> None:
    message = 'Classifier ocelli-system/dogs: class "husky" has 3 examples; add at least 7'
    cluster.items("classifiers.ocelli.dev", {**classifier("dogs"), "status": condition("Stalled", "True", message)})
    level, text = in_cluster(anna)["Classifier ocelli-system/dogs"]
    assert (level, text.startswith(message)) == ("problem", True)


def test_a_classifier_that_no_operator_has_seen_is_a_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.items("classifiers.ocelli.dev", {**classifier("dogs"), "status": {}})
    cluster.items("deployments", deployment("gateway"), deployment("operator"))
    found = in_cluster(anna)
    assert found["unseen Classifiers"][0] == "problem"


def test_what_one_may_not_read_is_a_warning_and_the_rest_is_checked(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.forbid("nodes")
    found = in_cluster(anna)
    assert found["GPUs"][0] == "warning"
    assert "not checked: Error from server (Forbidden): nodes is forbidden" in found["GPUs"][1]
    assert found["Classifiers"][0] == "ok"


def test_a_context_that_does_not_work_is_one_problem(anna: CommandLine, cluster: StandInCluster) -> None:
    cluster.forbid("version")
    run = anna.run("doctor", "-o", "json", "--kube-context", "test")
    assert (run.code, "CRD" in findings(run)) == (1, False)
    assert "kubectl --context=test version" in findings(run)["cluster"][1]


def test_without_kubectl_the_option_is_a_problem(anna: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_cluster(anna)["kubectl"][0] == "problem"


def test_a_namespace_without_a_cluster_is_a_usage_error(anna: CommandLine, gateway: GatewayInstance) -> None:
    run = anna.run("doctor", "--namespace", "ocelli-system")
    assert run.code == 2
    assert "name it with --kube-context CONTEXT" in run.err
