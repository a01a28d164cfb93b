"""What the charts make, as YAML beside this file: `make golden` rewrites it; the diff is for review."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.releases import (
    CHART,
    CHECKOUT,
    CRD_CHART,
    FULL_VALUES,
    NAMESPACE,
    call,
    parse,
    render,
    render_resources,
)

GOLDEN = Path(__file__).with_name("golden")
DEFAULT_VALUES: dict[str, Any] = {"credentials": {"existingSecret": "ocelli-credentials"}}
REWRITE = bool(os.environ.get("OCELLI_REWRITE_GOLDEN"))
BASE = CHECKOUT / "deploy" / "base" / "ocelli.yaml"


@pytest.mark.parametrize(("name", "values"), [("default", DEFAULT_VALUES), ("full", FULL_VALUES)])
def test_the_rendering_is_the_golden_one(helm: Path, name: str, values: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = render(helm, values)
    if REWRITE:
        path.write_text(text)
    assert path.read_text() == text, "run `make golden` and review the difference"


def test_the_plain_base_is_namespace_and_default_rendering(helm: Path) -> None:
    text = re.sub(
        r"^ *(app.kubernetes.io/managed-by: Helm|helm.sh/.*)\n", "", render(helm, DEFAULT_VALUES, "--skip-tests"), flags=re.M
    )
    # Kustomize takes no file from outside the base's folder, only folders.
    namespace = (CHECKOUT / "deploy" / "namespace.yaml").read_text()
    text = f"# Made from deploy/namespace.yaml and charts/ocelli by `make golden`.\n{namespace}{text}"
    if REWRITE:
        BASE.write_text(text)
    assert BASE.read_text() == text, "run `make golden` and review the difference"


@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=["ocelli", "ocelli-crds"])
def test_helm_finds_nothing_to_warn_of(helm: Path, chart: Path) -> None:
    done = call(helm, "lint", "--strict", str(chart))
    assert done.returncode == 0
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout + done.stderr)


def test_the_charts_resource_is_the_projects(helm: Path) -> None:
    source = CHECKOUT / "crds" / "classifier.yaml"
    if REWRITE:
        keep = "  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\nspec:\n"
        text = "{{- /* Made from crds/classifier.yaml by `make golden`. */}}\n" + source.read_text().replace("spec:\n", keep, 1)
        (CRD_CHART / "templates" / "classifier.yaml").write_text(text)
    rendered = parse(render_resources(helm))
    assert rendered[0]["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == parse(source.read_text()), "run `make golden`"


@pytest.mark.parametrize("name", ["default", "food", "explicit"])
def test_the_charts_built_in_is_the_projects(name: str) -> None:
    copy, source = CHART / "built-in" / f"{name}.yaml", CHECKOUT / "deploy" / "built-in" / f"{name}.yaml"
    if REWRITE:
        copy.write_bytes(source.read_bytes())
    assert copy.read_bytes() == source.read_bytes(), "run `make golden`"


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_the_chart_grants_what_the_local_installation_grants(helm: Path, component: str) -> None:
    def rules(documents: list[dict[str, Any]]) -> list[str]:
        roles = [item for item in documents if item["kind"] in ("Role", "ClusterRole")]
        ours = [item for item in roles if f"-{component}" in item["metadata"]["name"]]
        return sorted(f"{item['kind']} {json.dumps(rule, sort_keys=True)}" for item in ours for rule in item["rules"])

    local = parse((CHECKOUT / "deploy" / f"{component}-rbac.yaml").read_text())
    assert rules(parse(render(helm, {**DEFAULT_VALUES, "gpu": {"enabled": True}}))) == rules(local)


def test_every_pod_meets_the_restricted_standard(helm: Path) -> None:
    for values in (DEFAULT_VALUES, FULL_VALUES, {}):
        for document in parse(render(helm, values)):
            spec = document["spec"] if document["kind"] == "Pod" else document.get("spec", {}).get("template", {}).get("spec")
            if not spec or "containers" not in spec:
                continue
            assert spec["securityContext"]["runAsNonRoot"] is True
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                }, container["name"]


def test_a_quota_of_the_store_is_handed_on_as_it_is_written(helm: Path) -> None:
    values = {**DEFAULT_VALUES, "store": {"embedded": {"namespaceQuota": "5Gi"}}}
    (store,) = [
        item
        for item in parse(render(helm, values))
        if item["kind"] == "Deployment" and item["metadata"]["name"] == "ocelli-store"
    ]
    (container,) = store["spec"]["template"]["spec"]["containers"]
    assert {"name": "OCELLI_STORE_NAMESPACE_QUOTA", "value": "5Gi"} in container["env"]


def test_a_built_in_is_the_projects_manifest_with_what_is_given(helm: Path) -> None:
    rendered = {item["metadata"]["name"]: item for item in parse(render(helm, FULL_VALUES)) if item["kind"] == "Classifier"}
    projects = {
        name: yaml.safe_load((CHECKOUT / "deploy" / "built-in" / f"{name}.yaml").read_text())
        for name in ("default", "food", "explicit")
    }
    for item in FULL_VALUES["builtIns"]:
        projects[item["name"]]["spec"]["pretrained"].update(item.get("pretrained", {}))
    assert rendered == projects


def test_two_releases_in_one_namespace_share_nothing(helm: Path) -> None:
    made = [
        {
            (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
            for item in parse(render(helm, {**values, "fullnameOverride": name}))
            if item["kind"] != "Classifier"
        }
        for values in ({}, FULL_VALUES)
        for name in ("one", "two")
    ]
    assert made[0] & made[1] == set()
    assert made[2] & made[3] == set()


def pods(helm: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The Pod templates by the names of their Deployments."""
    made = parse(render(helm, values))
    return {item["metadata"]["name"]: item["spec"]["template"] for item in made if item["kind"] == "Deployment"}


def environment(helm: Path, component: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a component's container, of which none may be there twice: the API server refuses that."""
    (container,) = pods(helm, values)[f"ocelli-{component}"]["spec"]["containers"]
    variables = {item["name"]: item.get("value", "") for item in container["env"]}
    assert len(variables) == len(container["env"])
    return variables


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_settings_are_all_but_those_that_the_chart_sets(helm: Path, component: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"][component]["properties"]["settings"]
    set_by_values = {
        name
        for values in ({}, FULL_VALUES)
        for name in environment(helm, component, values)
        if name.startswith("OCELLI_") and name not in values.get(component, {}).get("settings", {})
    }
    assert set(schema["propertyNames"]["not"]["enum"]) == set_by_values


def test_a_setting_may_be_a_number_or_a_switch(helm: Path) -> None:
    settings = {"OCELLI_A": 12_345_678, "OCELLI_B": 0.25, "OCELLI_C": True, "OCELLI_D": "007"}
    variables = environment(helm, "gateway", {"gateway": {"settings": settings}})
    assert {name: variables[name] for name in settings} == {
        "OCELLI_A": "12345678",
        "OCELLI_B": "0.25",
        "OCELLI_C": "true",
        "OCELLI_D": "007",
    }


@pytest.mark.parametrize("quantity", ["0.5", 2, 1.5, "100m", "1e9", "12E6", ".5", "5Gi", "20k", "1T", "+1"])
def test_a_quantity_is_what_kubernetes_takes_for_one(helm: Path, quantity: str | float) -> None:
    render(helm, {"training": {"resources": {"requests": {"cpu": quantity}}}})


@pytest.mark.parametrize(
    ("namespaces", "watch_nodes", "watched"),
    [([], None, True), (["default"], None, False), (["default"], True, True), ([], False, False)],
)
def test_nodes_are_watched_unless_namespaces_are_listed(
    helm: Path, namespaces: list[str], watch_nodes: bool | None, watched: bool
) -> None:
    values = {"namespaces": namespaces, "gpu": {"enabled": True, "watchNodes": watch_nodes}}
    roles = [item["metadata"]["name"] for item in parse(render(helm, values)) if item["kind"] == "ClusterRole"]
    assert ("ocelli-system-ocelli-operator-nodes" in roles) == watched
    assert environment(helm, "operator", values)["OCELLI_WATCH_NODES"] == ("true" if watched else "false")


@pytest.mark.parametrize(("replicas", "spread"), [(1, False), (2, True)])
def test_operators_that_stand_by_do_so_on_other_nodes(helm: Path, replicas: int, spread: bool) -> None:
    pod = pods(helm, {"operator": {"replicas": replicas}})["ocelli-operator"]
    assert ("topologySpreadConstraints" in pod["spec"]) == spread
    for constraint in pod["spec"].get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_affinities_are_handed_on(helm: Path) -> None:
    zones = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [zones]}]}
        }
    }
    values = {component: {"affinity": affinity} for component in ("operator", "gateway")}
    made = pods(helm, {**values, "store": {"embedded": {"affinity": affinity}}})
    assert [pod["spec"]["affinity"] for pod in made.values()] == [affinity] * 3


def test_every_image_can_be_pinned(helm: Path) -> None:
    names = ("operator", "gateway", "store", "trainer", "inference", "trainerGPU", "inferenceGPU")
    digests = {name: f"sha256:{number}{'0' * 63}" for number, name in enumerate(names)}
    text = render(helm, {"images": {"digests": digests, "tag": "1.2"}, "gpu": {"enabled": True}})
    found = set(re.findall(r"\bocelli-([a-z]+:[-.0-9a-z]+@sha256:[0-9]+)\b", text))
    assert found == {
        f"{name.removesuffix('GPU')}:1.2{'-cuda' if name.endswith('GPU') else ''}@{digest}" for name, digest in digests.items()
    }
    assert not re.search(r"\bocelli-[a-z]+:1\.2(?!\S*@)", text)


def test_the_operators_lease_is_the_one_that_it_may_take(helm: Path) -> None:
    made = {(item["kind"], item["metadata"]["name"]): item for item in parse(render(helm, {"fullnameOverride": "two"}))}
    (container,) = made["Deployment", "two-operator"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "OCELLI_LEASE_NAME", "value": "two-operator"} in container["env"]
    assert made["Role", "two-operator-lease"]["rules"][1]["resourceNames"] == ["two-operator"]
    assert ("Lease", "two-operator") in made


def test_the_namespace_of_the_release_is_no_tenants(helm: Path) -> None:
    with pytest.raises(AssertionError, match='"ocelli-system" is the namespace of this release'):
        render(helm, {"credentials": {"namespace": NAMESPACE}})


def test_the_namespace_of_an_existing_secrets_users_is_not_looked_at(helm: Path) -> None:
    render(helm, {"credentials": {"existingSecret": "users", "namespace": NAMESPACE}, "namespaces": ["team-a"]})


def leaves(values: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        below = f"{path}.{key}"
        found += leaves(value, below) if isinstance(value, dict) and value else [below]
    return found


def test_every_value_is_used_by_a_template() -> None:
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    unused = [
        path
        for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
        # Whole objects are passed on, so that only the last word is sure to stand there.
        if not re.search(rf"\.{path.rsplit('.', 1)[1]}\b", templates)
        and not re.search(r"\.(resources|podSecurityContext)\.", f"{path}.")
        and not path.startswith(".monitoring.dashboard.labels")
    ]
    assert unused == []


def test_every_value_is_described_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        node = schema
        for key in path.removeprefix(".").split("."):
            if "properties" not in node:
                break
            assert key in node["properties"], path
            node = node["properties"][key]


ALERTS: list[dict[str, str]] = yaml.safe_load((CHART / "alerts.yaml").read_text())
METRICS = "\n".join(
    (CHECKOUT / "docs" / "reference" / f"{part}-metrics.md").read_text()
    for part in ("operator", "gateway", "inference", "store")
)


@pytest.mark.parametrize("alert", [item["alert"] for item in ALERTS])
def test_an_alert_has_a_runbook(alert: str) -> None:
    assert f"\n## {alert}\n" in (CHECKOUT / "docs" / "runbooks.md").read_text()


def test_every_metric_of_alerts_and_dashboard_exists() -> None:
    text = (CHART / "alerts.yaml").read_text() + (CHART / "dashboards" / "ocelli.json").read_text()
    names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bocelli_[a-z_]+", text)}
    assert {name for name in names if f"`{name}`" not in METRICS} == set()
