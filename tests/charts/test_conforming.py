"""The API server and kubeconform validate all objects of the charts, including other projects' kinds.

The definitions of other projects are in the cluster for this module only: what happens without them is tested elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_local import SyncClusterAccess
from tests.charts.releases import CHECKOUT, FULL_VALUES, Release, parse, render, render_resources
from tests.charts.schemas import Verdict, is_described, judge, write_schemas
from tests.go_programs import GoMissingError, find_or_download

pytestmark = pytest.mark.cluster

FOREIGN_MODULES = Path(__file__).with_name("foreign")
FOREIGN_DEFINITIONS = {
    "sigs.k8s.io/gateway-api": ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
    "github.com/prometheus-operator/prometheus-operator": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml"
        for plural in ("podmonitors", "prometheusrules", "servicemonitors")
    ],
}
"""Files by the Go module that they come with."""


@pytest.fixture(scope="module")
def foreign_definitions() -> list[dict[str, Any]]:
    try:
        folders = find_or_download(os.environ, FOREIGN_MODULES)
    except GoMissingError as error:
        pytest.skip(str(error))
    return [
        yaml.safe_load((folders[module] / file).read_text()) for module, files in FOREIGN_DEFINITIONS.items() for file in files
    ]


@pytest.fixture(scope="module")
def whole_cluster(prepared: SyncClusterAccess, foreign_definitions: list[dict[str, Any]]) -> Iterator[SyncClusterAccess]:
    """A cluster with every kind that the charts use."""

    def listed() -> set[str]:
        return set(prepared.kubectl("api-resources", "--output=name", check=False).stdout.split())

    names = {definition["metadata"]["name"] for definition in foreign_definitions}
    prepared.apply(foreign_definitions)
    try:
        prepared.wait_for("the other projects' resources are there", lambda: names <= listed())
        yield prepared
    finally:
        prepared.delete(foreign_definitions)
        prepared.wait_for("the other projects' resources are gone", lambda: not names & listed())


@pytest.fixture(scope="module")
def schemas(
    helm: Path,
    whole_cluster: SyncClusterAccess,
    foreign_definitions: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    for definition in [*parse(render_resources(helm)), *foreign_definitions]:
        whole_cluster.wait_for(definition["metadata"]["name"], partial(is_described, whole_cluster, definition))
    write_schemas(whole_cluster, folder)
    return folder


@pytest.fixture(scope="module", params=["default", "full", "resources", "base"])
def rendering(request: pytest.FixtureRequest, helm: Path, whole_cluster: SyncClusterAccess) -> str:
    """The chart with its default values, and with all that there is; the chart of the resources; the chart as plain YAML."""
    match request.param:
        case "default":
            return render(helm, {})
        case "full":
            return render(helm, FULL_VALUES)
        case "resources":
            return render_resources(helm)
    return whole_cluster.kubectl("kustomize", str(CHECKOUT / "deploy" / "base")).stdout


def test_the_api_server_accepts_everything_unchanged(whole_cluster: SyncClusterAccess, rendering: str, namespace: str) -> None:
    documents = parse(rendering)
    for item in documents:
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    strictly = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    done = whole_cluster.kubectl("apply", *strictly, "-f", "-", input_text=text)
    assert (done.stdout.count("serverside-applied (server dry run)"), done.stderr) == (len(documents), "")


def test_kubeconform_finds_everything_valid(kubeconform: Path, schemas: Path, rendering: str) -> None:
    assert judge(kubeconform, schemas, rendering) == Verdict(valid=len(parse(rendering)), refused=())


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        ("Deployment", "spec.replica", 2, "additional properties 'replica' not allowed"),
        ("Deployment", "spec.replicas", "two", "got string, want integer"),
        ("Deployment", "spec.template.spec.containers.0.imagePullPolicy", "Sometimes", "value must be one of"),
        ("Deployment", "metadata.label", {}, "additional properties 'label' not allowed"),
        ("Deployment", "apiVersion", "apps/v1beta1", "could not find schema for Deployment"),
        ("Service", "spec.ports.0.targetPort", True, "got boolean, want string"),
        ("Classifier", "spec.clases", [], "additional properties 'clases' not allowed"),
        ("Classifier", "spec.serving", {"replicas": "two"}, "got string, want integer"),
        ("HTTPRoute", "spec.rules.0.backendRefs.0.port", "http", "got string, want integer"),
        ("ServiceMonitor", "spec.endpoints.0.every", "30s", "additional properties 'every' not allowed"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.interval", 30, "got number, want string"),
        ("PrometheusRule", "spec.groups.0.rules.0.expr", [], "got array, want integer"),
    ],
)
def test_kubeconform_refuses_a_mistake(
    helm: Path, kubeconform: Path, schemas: Path, kind: str, path: str, value: Any, words: str
) -> None:
    manifest: Any = next(item for item in parse(render(helm, FULL_VALUES)) if item["kind"] == kind)
    *way, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    place = manifest
    for step in way:
        place = place[step]
    place[last] = value
    verdict = judge(kubeconform, schemas, yaml.safe_dump(manifest))
    assert verdict.valid == 0
    assert words in verdict.refused[0]


def test_a_release_has_routes_and_monitors_if_their_kinds_exist(whole_cluster: SyncClusterAccess, release: Release) -> None:
    route = FULL_VALUES["gateway"]["httpRoute"]
    monitored = {key: FULL_VALUES[key] for key in ("monitoring", "networkPolicy")}
    said = release.apply({"gateway": {"replicas": 0, "httpRoute": route}, **monitored})
    assert said.endswith("exit 0")
    kinds = "httproutes,podmonitors,prometheusrules,servicemonitors"
    made = whole_cluster.kubectl("get", kinds, "-n", release.namespace, "-o", "name").stdout.split()
    assert {name.partition(".")[0] for name in made} == {"httproute", "podmonitor", "prometheusrule", "servicemonitor"}
