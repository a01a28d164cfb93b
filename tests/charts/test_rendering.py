"""The output of the charts is the YAML in `golden`. `make golden` rewrites it, and the diff is reviewed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.pods import INTERNAL_PORT_NAME
from ocelli_api.prediction import CONNECTIONS_LIMIT, GATEWAY_CONNECTIONS_LIMIT
from ocelli_api.quantities import parse_quantity
from ocelli_api.settings import list_settings, load_settings
from ocelli_gateway import __main__ as gateway_program
from ocelli_gateway import management_operations, operations
from ocelli_gateway.console_files import CONSOLE_PATH
from ocelli_gateway.http_protocol import LIVE_PATH
from ocelli_gateway.routing import DOCUMENT_PATH, PREFIX
from ocelli_gateway.settings import GatewaySettings
from ocelli_operator.settings import ChildSettings, OperatorSettings
from ocelli_store import __main__ as store_program
from tests.charts.releases import (
    CHART,
    CHECKOUT,
    CRD_CHART,
    FULL_VALUES,
    NAMESPACE,
    PUBLIC_KEY,
    call,
    parse,
    pod_specs,
    render,
    render_resources,
)

GATEWAY_DEFAULTS = GatewaySettings(store_url="file:///store", credentials_folder=Path("/credentials"))
GOLDEN = Path(__file__).with_name("golden")
DEFAULT_VALUES: dict[str, Any] = {"credentials": {"existingSecret": "ocelli-credentials"}}
REWRITE = bool(os.environ.get("OCELLI_REWRITE_GOLDEN"))
DEPLOY = CHECKOUT / "deploy"


@pytest.mark.parametrize(("name", "values"), [("default", DEFAULT_VALUES), ("full", FULL_VALUES)])
def test_the_rendering_is_the_golden_one(helm: Path, name: str, values: dict[str, Any]) -> None:
    _check(GOLDEN / f"{name}.yaml", render(helm, values))


def test_the_base_without_helm_is_the_namespace_and_the_default_rendering(helm: Path) -> None:
    # Built-in classifiers are applied afterwards: kubectl cannot apply them together with their resource definition.
    rendered = _without_helm(render(helm, {**DEFAULT_VALUES, "builtIns": []}, "--skip-tests"))
    # Kustomize accepts no files outside the base's folder, only folders.
    namespace = (DEPLOY / "namespace.yaml").read_text()
    header = "# Made from deploy/namespace.yaml and charts/ocelli by `make golden`.\n"
    _check(DEPLOY / "base" / "ocelli.yaml", f"{header}{namespace}{rendered}")


def test_the_manifests_of_make_run_are_the_rendering_of_their_values(helm: Path) -> None:
    values = yaml.safe_load((DEPLOY / "local" / "values.yaml").read_text())
    rendered = _without_helm(render(helm, values, "--skip-tests"))
    _check(DEPLOY / "local" / "ocelli.yaml", f"# Made from values.yaml and charts/ocelli by `make golden`.\n{rendered}")


@pytest.mark.parametrize("name", ["default", "food", "explicit"])
def test_the_built_in_without_helm_is_the_charts(name: str) -> None:
    _check(DEPLOY / "built-in" / f"{name}.yaml", (CHART / "built-in" / f"{name}.yaml").read_text())


def _without_helm(rendered: str) -> str:
    return re.sub(r"^ *(app.kubernetes.io/managed-by: Helm|helm.sh/.*)\n", "", rendered, flags=re.M)


def _check(path: Path, text: str) -> None:
    if REWRITE:
        path.write_text(text)
    assert path.read_text() == text, "run `make golden` and review the difference"


@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=["ocelli", "ocelli-crds"])
def test_helm_lint_has_no_warnings(helm: Path, chart: Path) -> None:
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


def test_every_container_has_a_read_only_root_file_system(helm: Path) -> None:
    for values in (DEFAULT_VALUES, FULL_VALUES, {}):
        for spec in pod_specs(parse(render(helm, values))).values():
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]


def test_every_empty_dir_has_a_size_limit(helm: Path) -> None:
    rendered = [parse(render(helm, values)) for values in (DEFAULT_VALUES, FULL_VALUES, {})]
    written = [
        parse(path.read_text()) for path in sorted((CHECKOUT / "deploy").rglob("*.yaml")) if path.name != "kustomization.yaml"
    ]
    made = [parse(path.read_text()) for path in sorted((CHECKOUT / "tests" / "golden").glob("*.yaml"))]
    folders = [folder for documents in (*rendered, *written, *made) for folder in find_folders(documents)]
    assert len(folders) > len(rendered) + len(made)
    assert all("sizeLimit" in folder for folder in folders)


def find_folders(node: Any) -> list[Any]:
    """Every `emptyDir`, wherever it is."""
    if isinstance(node, dict):
        own = [node["emptyDir"]] if "emptyDir" in node else []
        return own + [folder for value in node.values() for folder in find_folders(value)]
    return [folder for item in node for folder in find_folders(item)] if isinstance(node, list) else []


def test_the_quota_of_the_store_is_passed_on_unchanged(helm: Path) -> None:
    values = {**DEFAULT_VALUES, "store": {"embedded": {"namespaceQuota": "5Gi"}}}
    store = find(parse(render(helm, values)), "Deployment", "ocelli-store")
    (container,) = store["spec"]["template"]["spec"]["containers"]
    assert {"name": "OCELLI_STORE_NAMESPACE_QUOTA", "value": "5Gi"} in container["env"]


BUILT_INS = ("default", "food", "explicit")


def built_ins(helm: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The specs of the built-in classifiers by name."""
    made = parse(render(helm, {**DEFAULT_VALUES, **values}))
    return {item["metadata"]["name"]: item["spec"] for item in made if item["kind"] == "Classifier"}


def projects_built_in(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((CHART / "built-in" / f"{name}.yaml").read_text())["spec"]
    return spec


def test_built_ins_are_the_projects_manifests_unless_others_are_listed(helm: Path) -> None:
    assert built_ins(helm, {}) == {name: projects_built_in(name) for name in BUILT_INS}
    assert built_ins(helm, {"builtIns": []}) == {}


def test_custom_weights_replace_the_packaged_ones_with_their_labels_and_resources(helm: Path) -> None:
    food = FULL_VALUES["builtIns"][1]
    spec = built_ins(helm, {"builtIns": [food]})["food"]
    assert spec == {"pretrained": {"otherwise": "non-food", **food["pretrained"]}}


def test_custom_imagenet_weights_with_packaged_food_labels_already_have_non_food(helm: Path) -> None:
    pretrained = {"weights": {"url": "https://models.example.com/a.onnx"}, "labels": {"packaged": "ImageNetFood"}}
    spec = built_ins(helm, {"builtIns": [{"name": "food", "pretrained": pretrained}]})["food"]
    assert spec["pretrained"] == pretrained


def test_serving_of_a_built_in_is_merged_into_its_manifest(helm: Path) -> None:
    given = {"replicas": 2, "resources": {"limits": {"memory": "2Gi"}}}
    serving = built_ins(helm, {"builtIns": [{"name": "default", "serving": given}]})["default"]["serving"]
    requests = projects_built_in("default")["serving"]["resources"]["requests"]
    assert serving == {"replicas": 2, "resources": {"requests": requests, "limits": {"memory": "2Gi"}}}


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
    """The variables of a component's container. The API server refuses duplicates."""
    (container,) = pods(helm, values)[f"ocelli-{component}"]["spec"]["containers"]
    variables = {item["name"]: item.get("value", "") for item in container["env"]}
    assert len(variables) == len(container["env"])
    return variables


NO_VALUES = {
    "OCELLI_FILE_SOURCES_FOLDER",
    "OCELLI_HEALTH_PORT",
    "OCELLI_METRICS_PORT",
    "OCELLI_GATEWAY_HOST",
    "OCELLI_GATEWAY_PORT",
    "OCELLI_GATEWAY_INTERNAL_PORT",
}
"""Settings that would not change the chart's probes, ports and volumes."""


@pytest.mark.parametrize(("component", "table"), [("operator", OperatorSettings), ("gateway", GatewaySettings)])
def test_the_chart_allows_all_settings_except_those_that_it_sets_itself(helm: Path, component: str, table: Any) -> None:
    known = {setting.name for setting in list_settings(table)}
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"][component]["properties"]["settings"]
    set_by_values = {
        name
        for values in ({}, FULL_VALUES)
        for name in environment(helm, component, values)
        if name not in values.get(component, {}).get("settings", {})
    }
    assert schema["propertyNames"]["enum"] == sorted(name for name in known - set_by_values - NO_VALUES if "OCELLI_" in name)


def test_private_networks_of_sources_are_denied_unless_they_are_listed(helm: Path) -> None:
    names = ("OCELLI_SOURCES_ALLOWED_NETWORKS", "OCELLI_SOURCES_DENIED_NETWORKS")
    assert not environment(helm, "operator", {}).keys() & set(names)
    sources = {"allowedNetworks": ["10.1.0.0/16", "fd00::/8"], "deniedNetworks": ["10.1.2.0/24"]}
    variables = environment(helm, "operator", {"sources": sources})
    assert [variables[name] for name in names] == ["10.1.0.0/16,fd00::/8", "10.1.2.0/24"]


def test_public_keys_without_a_key_to_sign_with_are_refused(helm: Path) -> None:
    with pytest.raises(AssertionError, match=r"signing\.publicKeys needs signing\.secretName"):
        environment(helm, "operator", {"signing": {"publicKeys": [PUBLIC_KEY]}})


@pytest.mark.parametrize(("drain", "grace_seconds"), [(None, 30), (0, 15), (900, 915), ("2.5", 18)])
def test_the_grace_period_of_a_gateway_covers_its_drain_and_its_last_answers(
    helm: Path, drain: float | str | None, grace_seconds: int
) -> None:
    settings = {} if drain is None else {"OCELLI_GATEWAY_DRAIN_SECONDS": drain}
    spec = pods(helm, {"gateway": {"settings": settings}})["ocelli-gateway"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == grace_seconds


def test_grace_periods_are_longer_than_the_programs_need(helm: Path) -> None:
    made = pods(helm, {})
    pre_stop = int(made["ocelli-gateway"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    taken = {
        "ocelli-gateway": pre_stop + GATEWAY_DEFAULTS.drain_seconds + gateway_program.LAST_ANSWERS_SECONDS,
        "ocelli-store": store_program.DRAIN_SECONDS + store_program.LAST_ANSWERS_SECONDS,
    }
    assert [name for name, seconds in taken.items() if made[name]["spec"]["terminationGracePeriodSeconds"] <= seconds] == []


def test_the_uploads_of_a_gateway_fit_into_its_scratch_folder() -> None:
    uploads = GATEWAY_DEFAULTS.max_concurrent_uploads * operations.EXAMPLES_LIMITS.body_bytes
    classify = GATEWAY_DEFAULTS.max_concurrent_classify_requests * operations.CLASSIFY_LIMITS.body_bytes
    scratch = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]["scratchSize"]
    assert uploads + classify < parse_quantity(scratch)


def test_the_connections_of_all_gateways_fit_into_an_inference_server() -> None:
    gateways = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]["autoscaling"]["maxReplicas"]
    assert gateways * GATEWAY_CONNECTIONS_LIMIT <= CONNECTIONS_LIMIT
    assert GATEWAY_DEFAULTS.max_concurrent_images <= GATEWAY_CONNECTIONS_LIMIT


def test_a_setting_can_be_a_number_or_a_boolean(helm: Path) -> None:
    names = ("QUOTA_CLASSIFIERS", "GATEWAY_PREDICTION_TIMEOUT_SECONDS", "LOG_LEVEL", "QUOTA_STORED_MEGABYTES")
    settings = dict(zip((f"OCELLI_{name}" for name in names), (12_345_678, 0.25, True, "007"), strict=True))
    variables = environment(helm, "gateway", {"gateway": {"settings": settings}})
    assert [variables[name] for name in settings] == ["12345678", "0.25", "true", "007"]


@pytest.mark.parametrize("quantity", ["0.5", 2, 1.5, "100m", "1e9", "12E6", ".5", "5Gi", "20k", "1T", "+1"])
def test_quantities_have_the_syntax_of_kubernetes(helm: Path, quantity: str | float) -> None:
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
def test_replicas_of_the_operator_are_on_different_nodes(helm: Path, replicas: int, spread: bool) -> None:
    pod = pods(helm, {"operator": {"replicas": replicas}})["ocelli-operator"]
    assert ("topologySpreadConstraints" in pod["spec"]) == spread
    for constraint in pod["spec"].get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_affinities_are_passed_on(helm: Path) -> None:
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


def test_the_operator_has_rights_for_its_own_lease(helm: Path) -> None:
    made = {(item["kind"], item["metadata"]["name"]): item for item in parse(render(helm, {"fullnameOverride": "two"}))}
    (container,) = made["Deployment", "two-operator"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "OCELLI_LEASE_NAME", "value": "two-operator"} in container["env"]
    assert made["Role", "two-operator-lease"]["rules"][1]["resourceNames"] == ["two-operator"]
    assert ("Lease", "two-operator") in made


def test_the_namespace_of_the_release_cannot_belong_to_a_tenant(helm: Path) -> None:
    with pytest.raises(AssertionError, match='"ocelli-system" is the namespace of this release'):
        render(helm, {"credentials": {"namespace": NAMESPACE}})


def test_the_namespace_of_users_in_an_existing_secret_is_not_checked(helm: Path) -> None:
    render(helm, {"credentials": {"existingSecret": "users", "namespace": NAMESPACE}, "namespaces": ["team-a"]})


PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
OFFICE = {"ipBlock": {"cidr": "192.0.2.0/24"}}


def peers(helm: Path, values: dict[str, Any], name: str, port: str) -> Any:
    """The peers that the NetworkPolicy's rule for a port admits; None: all."""
    policy = find(parse(render(helm, {**DEFAULT_VALUES, **values})), "NetworkPolicy", name)
    (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": port}]]
    return rule.get("from")


def find(documents: list[dict[str, Any]], kind: str, name: str, namespace: str = "ocelli-system") -> dict[str, Any]:
    (found,) = [
        item
        for item in documents
        if (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")) == (kind, name, namespace)
    ]
    return found


METRICS_PORTS = {"operator": "metrics", "gateway": "internal", "store": "internal"}


@pytest.mark.parametrize("component", METRICS_PORTS)
def test_metrics_are_open_unless_their_readers_are_listed(helm: Path, component: str) -> None:
    port = METRICS_PORTS[component]
    assert peers(helm, {}, f"ocelli-{component}", port) is None
    assert peers(helm, {"networkPolicy": {"metricsFrom": [PROMETHEUS]}}, f"ocelli-{component}", port) == [PROMETHEUS]


def test_only_clients_can_connect_to_the_store_from_every_namespace(helm: Path) -> None:
    ours = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "ocelli"}}}
    assert peers(helm, {}, "ocelli-store", "http") == [ours]


def test_listed_peers_and_the_test_can_connect_to_the_gateway(helm: Path) -> None:
    assert peers(helm, {}, "ocelli-gateway", "http") is None
    documents = parse(render(helm, {"credentials": {"user": "somebody"}}))
    test = find(documents, "Pod", "ocelli-test")["metadata"]["labels"]
    values = {"networkPolicy": {"gatewayFrom": [OFFICE], "metricsFrom": [PROMETHEUS]}}
    office, pod = peers(helm, values, "ocelli-gateway", "http")
    assert office == OFFICE
    assert pod["podSelector"]["matchLabels"].items() <= test.items()


def test_no_service_has_the_port_of_probes_and_metrics(helm: Path) -> None:
    for documents in (parse(render(helm, FULL_VALUES)), parse(render(helm, DEFAULT_VALUES))):
        services = [item for item in documents if item["kind"] == "Service"]
        assert {port["targetPort"] for service in services for port in service["spec"]["ports"]} == {"http"}
        for spec in pod_specs(documents).values():
            for container in spec["containers"]:
                probes = [probe for name, probe in container.items() if name.endswith("Probe")]
                assert all(probe["httpGet"]["port"] in ("internal", "health") for probe in probes)
        monitors = [item["spec"] for item in documents if item["kind"] == "PodMonitor"]
        assert {end["port"] for spec in monitors for end in spec["podMetricsEndpoints"]} <= {"internal", "metrics"}


def test_inference_servers_are_scraped_at_the_metrics_port_of_their_service(helm: Path) -> None:
    (monitor,) = [item for item in parse(render(helm, FULL_VALUES)) if item["kind"] == "ServiceMonitor"]
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [INTERNAL_PORT_NAME]


GATEWAY_PEER = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ocelli-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "ocelli-gateway", "app.kubernetes.io/instance": "ocelli"}},
}


def inference_peers(helm: Path, values: dict[str, Any]) -> Any:
    """Clients of inference servers, and readers of their metrics, for the operator's NetworkPolicies."""
    variables = environment(helm, "operator", values)
    settings = load_settings(ChildSettings, {"OCELLI_STORE_URL": "file:///store", **variables, "OCELLI_BACKBONES_FOLDER": ""})
    peers = settings.network_peers
    return None if peers is None else (list(peers.callers), list(peers.metrics_readers))


@pytest.mark.parametrize("namespaces", [[], ["team-a"]])
def test_the_operator_admits_only_the_gateway_to_inference_servers(helm: Path, namespaces: list[str]) -> None:
    values = {"namespaces": namespaces, "credentials": {"existingSecret": "users"}}
    assert inference_peers(helm, values) == ([GATEWAY_PEER], [])
    documents = parse(render(helm, {**DEFAULT_VALUES, "namespaces": namespaces}))
    policies = {item["metadata"]["name"] for item in documents if item["kind"] == "NetworkPolicy"}
    assert policies == {"ocelli-operator", "ocelli-gateway", "ocelli-store"}
    gateway = find(documents, "Deployment", "ocelli-gateway")["spec"]["template"]["metadata"]["labels"]
    assert GATEWAY_PEER["podSelector"]["matchLabels"].items() <= gateway.items()


def test_the_operator_restricts_no_inference_servers_without_network_policies(helm: Path) -> None:
    assert inference_peers(helm, {"networkPolicy": {"enabled": False}}) is None


def test_a_reader_of_metrics_without_a_namespace_is_in_the_releases_namespace(helm: Path) -> None:
    pods = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    named = {**pods, "namespaceSelector": GATEWAY_PEER["namespaceSelector"]}
    values = {"networkPolicy": {"metricsFrom": [PROMETHEUS, pods, OFFICE]}}
    assert inference_peers(helm, values) == ([GATEWAY_PEER], [PROMETHEUS, named, OFFICE])


@pytest.mark.parametrize("value", ["gatewayFrom", "metricsFrom"])
@pytest.mark.parametrize("peer", [{}, {"namespace": "monitoring"}])
def test_an_invalid_peer_is_refused(helm: Path, value: str, peer: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match=value):
        render(helm, {**DEFAULT_VALUES, "networkPolicy": {value: [peer]}})


@pytest.mark.parametrize("namespaces", [[], ["team-a"]])
def test_monitors_are_refused_if_no_prometheus_can_read_inference_servers(helm: Path, namespaces: list[str]) -> None:
    values = {**DEFAULT_VALUES, "namespaces": namespaces, "monitoring": {"serviceMonitor": {"enabled": True}}}
    with pytest.raises(AssertionError, match=r"networkPolicy\.metricsFrom is empty"):
        render(helm, values)
    assert render(helm, {**values, "networkPolicy": {"enabled": False}})


@pytest.fixture(params=["Ingress", "HTTPRoute"])
def routed_paths(request: pytest.FixtureRequest, helm: Path) -> list[str]:
    """The public path prefixes."""
    (rule,) = find(parse(render(helm, FULL_VALUES)), request.param, "ocelli-gateway")["spec"]["rules"]
    if request.param == "Ingress":
        assert {item["pathType"] for item in rule["http"]["paths"]} == {"Prefix"}
        return [item["path"] for item in rule["http"]["paths"]]
    assert {item["path"]["type"] for item in rule["matches"]} == {"PathPrefix"}
    return [item["path"]["value"] for item in rule["matches"]]


def is_below(path: str, prefix: str) -> bool:
    return f"{path}/".startswith(f"{prefix}/")


PUBLIC = {
    DOCUMENT_PATH,
    CONSOLE_PATH,
    *(
        item.path
        for module in (operations, management_operations)
        for item in vars(module).values()
        if isinstance(item, operations.Operation)
    ),
}


def test_every_operation_has_a_public_path(routed_paths: list[str]) -> None:
    assert len(PUBLIC) > 6
    wanted = {prefix + path for prefix in ("", PREFIX) for path in PUBLIC}
    assert {path for path in wanted if not any(is_below(path, routed) for routed in routed_paths)} == set()
    assert {routed for routed in routed_paths if not any(is_below(path, routed) for path in wanted)} == set()


def test_paths_without_credentials_are_not_public(routed_paths: list[str]) -> None:
    inside = {prefix + path for prefix in ("", PREFIX) for path in (LIVE_PATH, "/healthz", "/metrics", "/readyz", "/")}
    assert {path for path in inside if any(is_below(path.rstrip("/"), routed) for routed in routed_paths)} == set()


@pytest.mark.parametrize("values", [DEFAULT_VALUES, FULL_VALUES], ids=["default", "full"])
def test_only_the_operators_own_container_has_the_api_token(helm: Path, values: dict[str, Any]) -> None:
    spec = find(parse(render(helm, values)), "Deployment", "ocelli-operator")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (volume,) = [
        item["name"]
        for item in spec["volumes"]
        for source in item.get("projected", {"sources": []})["sources"]
        if "serviceAccountToken" in source and "audience" not in source["serviceAccountToken"]
    ]
    mounts = {
        container["name"]: mount["mountPath"]
        for container in spec["containers"] + spec["initContainers"]
        for mount in container["volumeMounts"]
        if mount["name"] == volume
    }
    assert mounts == {"operator": "/var/run/secrets/kubernetes.io/serviceaccount"}


@pytest.mark.parametrize(
    ("value", "kinds"), [("serviceMonitor", ["PodMonitor", "ServiceMonitor"]), ("rules", ["PrometheusRule"])]
)
def test_only_the_prometheus_kinds_in_use_are_required(helm: Path, value: str, kinds: list[str]) -> None:
    values = {**DEFAULT_VALUES, "monitoring": {value: {"enabled": True}}, "networkPolicy": {"metricsFrom": [PROMETHEUS]}}
    needed = ["ocelli.dev/v1alpha1/Classifier", *(f"monitoring.coreos.com/v1/{kind}" for kind in kinds)]
    assert render(helm, values, api_versions=needed)
    for kind in kinds:
        without = [version for version in needed if not version.endswith(f"/{kind}")]
        with pytest.raises(AssertionError, match=rf"monitoring\.{value}\.enabled: the cluster has no {kind};"):
            render(helm, values, api_versions=without)


@pytest.mark.parametrize(
    ("credentials", "secret", "key"),
    [
        ({}, {}, ("ocelli-initial-credentials", "apiKey")),
        ({}, {"name": "tester"}, ("tester", "apiKey")),
        ({"existingSecret": "users"}, {"name": "tester", "key": "key"}, ("tester", "key")),
        ({"existingSecret": "users"}, {}, None),
    ],
)
def test_the_helm_test_logs_in_with_an_existing_key(
    helm: Path, credentials: dict[str, str], secret: dict[str, str], key: tuple[str, str] | None
) -> None:
    documents = parse(render(helm, {"credentials": credentials, "test": {"apiKeySecret": secret}}))
    found = [
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for item in documents
        if item["kind"] == "Pod"
        for variable in item["spec"]["containers"][0]["env"]
        if variable["name"] == "OCELLI_API_KEY" and variable["valueFrom"]["secretKeyRef"]["optional"]
    ]
    assert found == ([] if key is None else [key])


def test_the_helm_test_reports_a_missing_key() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "OCELLI_API_KEY"}
    done = subprocess.run(
        [sys.executable, CHART / "test_release.py"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "Name one in test.apiKeySecret." in done.stdout


def leaves(values: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        below = f"{path}.{key}"
        found += leaves(value, below) if isinstance(value, dict) and value else [below]
    return found


DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
LOG_IN = {"credentials": {"existingSecret": ""}}
METRICS_FROM = {"networkPolicy": {"metricsFrom": [PROMETHEUS]}}
MODES: dict[str, dict[str, Any]] = {
    ".credentials": LOG_IN,
    ".gateway.autoscaling": {"gateway": {"autoscaling": {"enabled": True}}},
    ".gateway.ingress": {"gateway": {"ingress": {"enabled": True, "host": "vision.example.com"}}},
    ".gateway.httpRoute": {"gateway": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "web"}]}}},
    ".gpu": {"gpu": {"enabled": True}},
    ".monitoring.dashboard": {"monitoring": {"dashboard": {"enabled": True}}},
    ".monitoring.rules": {"monitoring": {"rules": {"enabled": True}}},
    ".monitoring.runbookURL": {"monitoring": {"rules": {"enabled": True}}},
    ".monitoring.serviceMonitor": {"monitoring": {"serviceMonitor": {"enabled": True}}, **METRICS_FROM},
    ".signing.publicKeys": {"signing": {"secretName": "ocelli-signing"}},
    ".store.bucket": {"store": {"mode": "bucket", "bucket": {"url": "s3://models"}}},
    ".store.mode": {"store": {"bucket": {"url": "s3://models"}}},
    ".test": LOG_IN,
}
"""Values that are needed for those below a path to have an effect."""
OTHERS: dict[str, Any] = {
    ".backbones": FULL_VALUES["backbones"],
    ".builtIns": [{"name": "default"}],
    ".gateway.httpRoute.hostnames": ["vision.example.com"],
    ".gateway.httpRoute.parentRefs": [{"name": "other"}],
    ".gateway.service.type": "NodePort",
    ".gpu.watchNodes": False,
    ".gateway.settings": {"OCELLI_QUOTA_CLASSIFIERS": "7"},
    ".images.digests": {"operator": f"sha256:{'0' * 64}"},
    ".images.pullPolicy": "Always",
    ".images.pullSecrets": ["other"],
    ".namespaces": ["other"],
    ".networkPolicy.gatewayFrom": [OFFICE],
    ".networkPolicy.metricsFrom": [PROMETHEUS],
    ".operator.settings": {"OCELLI_WORKERS": "7"},
    ".signing.publicKeys": [PUBLIC_KEY],
    ".sources.allowedNetworks": ["10.1.0.0/16"],
    ".sources.deniedNetworks": ["10.1.0.0/16"],
    ".sources.identityBuckets": ["s3://examples"],
    ".sources.proxy": "http://proxy.example.com:3128",
    ".store.embedded.accessModes": ["ReadWriteMany"],
    ".store.embedded.namespaceQuota": "5Gi",
    ".store.mode": "bucket",
}
"""Values that differ from the default, if they cannot be derived from it."""


def change(value: Any, path: str) -> Any:
    """Another valid value."""
    if path in OTHERS:
        return OTHERS[path]
    if path.endswith(".tolerations"):
        return [{"key": "other"}]
    if path.endswith(".affinity"):
        return {"nodeAffinity": {}}
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return f"1{value}" if re.match(r"\d", value) else f"{value}other"
        case {}:
            return {"example.com/other": "other"}
    raise AssertionError(f"another value for {path} can't be guessed: add one to OTHERS")


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


def render_again(helm: Path, values: dict[str, Any]) -> str:
    """The rendering without random values."""
    return re.sub(r'apiKey: "\w{40}"|[0-9a-f]{64}', "", render(helm, values))


@pytest.fixture(scope="module")
def renderings() -> dict[str, str]:
    return {}


# Lookups in a cluster have their own tests.
@pytest.mark.parametrize("path", [path for path in leaves(DEFAULTS) if path != ".preconditions.enabled"])
def test_every_value_makes_a_difference(helm: Path, renderings: dict[str, str], path: str) -> None:
    prefix = max((prefix for prefix in MODES if is_inside(path, prefix)), key=len, default="")
    mode = overlay(DEFAULT_VALUES, MODES.get(prefix, {}))
    if prefix not in renderings:
        renderings[prefix] = render_again(helm, mode)
    value: Any = overlay(DEFAULTS, mode)
    *way, last = path.removeprefix(".").split(".")
    for key in way:
        value = value[key]
    changed: dict[str, Any] = {last: change(value[last], path)}
    for key in reversed(way):
        changed = {key: changed}
    assert render_again(helm, overlay(mode, changed)) != renderings[prefix]


def is_inside(path: str, prefix: str) -> bool:
    return f"{path}.".startswith(f"{prefix}.")


def test_every_value_is_described_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in leaves(DEFAULTS):
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


def rules(helm: Path, *options: str, **monitoring: Any) -> list[dict[str, Any]]:
    """The alerts as they are installed."""
    values = {**DEFAULT_VALUES, "monitoring": {"rules": {"enabled": True}, **monitoring}}
    (rule,) = [item for item in parse(render(helm, values, *options)) if item["kind"] == "PrometheusRule"]
    found: list[dict[str, Any]] = rule["spec"]["groups"][0]["rules"]
    return found


def dashboard_queries() -> list[str]:
    panels = json.loads((CHART / "dashboards" / "ocelli.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_alerts_of_two_installations_are_distinguishable(helm: Path) -> None:
    alerts = rules(helm, "--namespace", "vision")
    assert len(alerts) == len(ALERTS)
    for alert in alerts:
        assert selectors(alert["expr"]) == {'namespace="vision"'}, alert["alert"]


def test_the_dashboard_shows_one_installation_at_a_time() -> None:
    for query in dashboard_queries():
        assert selectors(query) == {'namespace="$namespace"'}, query
    variables = json.loads((CHART / "dashboards" / "ocelli.json").read_text())["templating"]["list"]
    assert "namespace" in {item["name"] for item in variables}


def selectors(query: str) -> set[str]:
    """The first selector of each metric in a query."""
    return set(re.findall(r"\bocelli_[a-z_]+(?:\{([^,}]*))?", query))


def test_alerts_and_dashboard_do_not_count_probes_of_load_balancers_as_requests(helm: Path) -> None:
    queries = [alert["expr"] for alert in rules(helm)] + dashboard_queries()
    counted = re.findall(r"ocelli_gateway_requests_total(\{[^}]*\})?", " ".join(queries))
    assert len(counted) == 3
    for selector in counted:
        assert f'route!="{LIVE_PATH}"' in selector


def test_alerts_link_to_their_runbooks_if_a_url_is_set(helm: Path) -> None:
    assert all("runbook_url" not in alert["annotations"] for alert in rules(helm))
    address = "https://wiki.example.com/runbooks"
    for alert in rules(helm, runbookURL=address):
        assert alert["annotations"]["runbook_url"] == f"{address}#{alert['alert'].lower()}"


def test_every_metric_of_alerts_and_dashboard_exists() -> None:
    text = (CHART / "alerts.yaml").read_text() + (CHART / "dashboards" / "ocelli.json").read_text()
    names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bocelli_[a-z_]+", text)}
    assert {name for name in names if f"`{name}`" not in METRICS} == set()
