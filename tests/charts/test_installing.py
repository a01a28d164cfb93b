"""Installing into a real API server: what an upgrade keeps, and that wrong values are refused before anything is created."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.pytest_plugin import fresh_namespace
from tests.charts.releases import CHART, FULL_VALUES, Release, call, parse, pod_specs, render

pytestmark = pytest.mark.cluster

BACKBONE = {"name": "resnet18", "weights": "https://models.example.com/resnet18.pth", "sha256": "a" * 64}


@dataclass(frozen=True, kw_only=True)
class Upgrades:
    """What is seen of a release that is installed and upgraded three times."""

    notes: str
    """What Helm said to the installation."""
    exits: list[str]
    """The last line of Helm's answer to each of them."""
    api_keys: list[str]
    """After the installation, and after the first upgrade."""
    digest: str
    """Of the API key, as installed."""
    kept_keys: set[str]
    kept_users: set[str]
    """The gateways' keys and the users after the first upgrade, before which one of each was added."""
    user: dict[str, str]
    """After the second upgrade, before which the Secret with the API key was deleted."""
    left_users: set[str]
    """After the third upgrade, before which the first user was removed."""


def observe_upgrades(release: Release) -> Upgrades:
    def patch(name: str, change: dict[str, Any]) -> None:
        arguments = ("secret", name, "-n", release.namespace, "--type=merge", "-p", json.dumps(change))
        release.cluster.kubectl("patch", *arguments)

    def read(name: str) -> set[str]:
        secret = release.cluster.get("v1", "Secret", name, namespace=release.namespace)
        assert secret is not None
        return set(secret.get("data") or ())

    answers = [release.apply({})]
    api_keys, digest = [release.api_key()], release.initial_user()["apiKeySHA256"]
    patch("ocelli-token-keys", {"data": {"keys.json": base64.b64encode(b"{}").decode()}})
    patch("ocelli-credentials", {"stringData": {"more.json": "{}"}})
    answers.append(release.apply({"gateway": {"replicas": 0, "settings": {"OCELLI_QUOTA_CLASSIFIERS": "7"}}}))
    api_keys.append(release.api_key())
    kept_keys, kept_users = read("ocelli-token-keys"), read("ocelli-credentials")
    release.cluster.kubectl("delete", "secret", "ocelli-initial-credentials", "-n", release.namespace)
    answers.append(release.apply({"credentials": {"owner": "somebody else"}}))
    user = release.initial_user()
    patch("ocelli-credentials", {"data": {"initial.json": None}})
    answers.append(release.apply({}))
    return Upgrades(
        notes=answers[0],
        exits=[answer.splitlines()[-1] for answer in answers],
        api_keys=api_keys,
        digest=digest,
        kept_keys=kept_keys,
        kept_users=kept_users,
        user=user,
        left_users=read("ocelli-credentials"),
    )


@pytest.fixture(scope="module")
def upgrades(helm: Path, prepared: SyncClusterAccess) -> Upgrades:
    with fresh_namespace(prepared, "upgrades") as namespace:
        release = Release(helm, prepared, namespace)
        try:
            return observe_upgrades(release)
        finally:
            release.call("uninstall", "ocelli", "--ignore-not-found")


def test_a_release_installs_and_upgrades(upgrades: Upgrades) -> None:
    assert upgrades.exits == ["exit 0"] * 4


def test_the_notes_say_how_to_log_in(upgrades: Upgrades) -> None:
    assert "get secret ocelli-initial-credentials -o jsonpath" in upgrades.notes


def test_an_upgrade_keeps_the_api_key(upgrades: Upgrades) -> None:
    before, after = upgrades.api_keys
    assert after == before


def test_an_upgrade_keeps_the_api_key_after_its_secret_was_deleted(upgrades: Upgrades) -> None:
    owned = {"namespace": "default", "owner": "somebody else"}
    assert upgrades.user == {"user": "ocelli", "apiKeySHA256": upgrades.digest, **owned}


def test_an_upgrade_does_not_restore_a_removed_user(upgrades: Upgrades) -> None:
    assert upgrades.left_users == {"more.json"}


def test_an_upgrade_keeps_the_signing_keys_of_the_gateways(upgrades: Upgrades) -> None:
    assert "keys.json" in upgrades.kept_keys


def test_an_upgrade_keeps_added_users(upgrades: Upgrades) -> None:
    assert upgrades.kept_users == {"initial.json", "more.json"}


def refusal(cluster: SyncClusterAccess, namespace: str, spec: dict[str, Any]) -> str:
    """The API server's objection to a Pod in a namespace that enforces the `restricted` standard; nothing is created."""
    # These name other objects of the release, or objects that may be missing in the cluster.
    spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "judged", "namespace": namespace}, "spec": spec}
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", input_text=json.dumps(pod), check=False)
    return done.stderr


@pytest.fixture
def restricted_namespace(prepared: SyncClusterAccess, namespace: str) -> str:
    prepared.kubectl("label", "namespace", namespace, "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
    prepared.wait_for("its ServiceAccount", lambda: prepared.get("v1", "ServiceAccount", "default", namespace=namespace))
    return namespace


@pytest.mark.parametrize("values", [{}, FULL_VALUES], ids=["default", "full"])
def test_every_pod_meets_the_restricted_standard(
    helm: Path, prepared: SyncClusterAccess, restricted_namespace: str, values: dict[str, Any]
) -> None:
    for name, spec in pod_specs(parse(render(helm, values))).items():
        assert refusal(prepared, restricted_namespace, spec) == "", name


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"securityContext": {"runAsNonRoot": True}}, "seccompProfile"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "restricted volume types"),
    ],
)
def test_a_pod_that_violates_the_restricted_standard_is_refused(
    helm: Path, prepared: SyncClusterAccess, restricted_namespace: str, worse: dict[str, Any], words: str
) -> None:
    spec = pod_specs(parse(render(helm, {})))["ocelli-gateway"]
    for container in spec["containers"]:
        del container["volumeMounts"]
    assert words in refusal(prepared, restricted_namespace, {**spec, **worse})


def test_the_notes_mention_the_test_only_if_it_is_enabled(release: Release) -> None:
    def notes(values: dict[str, Any]) -> str:
        return release.apply(values, "--dry-run=server")

    assert "helm test ocelli" in notes({})
    release.cluster.kubectl("create", "secret", "generic", "users", "-n", release.namespace)
    values = {"credentials": {"existingSecret": "users"}}
    said = notes(values)
    assert said.endswith("exit 0")
    assert "helm test" not in said
    assert "helm test ocelli" in notes({**values, "test": {"apiKeySecret": {"name": "tester"}}})


def test_uninstalling_keeps_only_the_stores_claim(release: Release) -> None:
    def find_cluster_wide() -> str:
        kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,priorityclasses"
        return release.cluster.kubectl("get", kinds, "-o", "name").stdout

    before = find_cluster_wide()
    release.apply({})
    release.call("uninstall", "ocelli", "--wait")
    kinds = "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb,pvc,leases"
    left = release.cluster.kubectl("get", kinds, "-n", release.namespace, "-o", "name").stdout.split()
    assert (left, find_cluster_wide()) == (
        ["configmap/kube-root-ca.crt", "serviceaccount/default", "persistentvolumeclaim/ocelli-store"],
        before,
    )


def test_uninstalling_deletes_the_stores_claim_if_requested(release: Release) -> None:
    release.apply({"store": {"embedded": {"storageClassName": "charts-test", "keepOnUninstall": False}}})
    release.call("uninstall", "ocelli", "--wait")
    claims = json.loads(release.cluster.kubectl("get", "pvc", "-n", release.namespace, "-o", "json").stdout)["items"]
    # A controller deletes them a moment later.
    assert all("deletionTimestamp" in item["metadata"] for item in claims)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gatway": {}}, "additional properties 'gatway' not allowed"),
        ({"store": {"embedded": {"namespaceQuota": "5 GB"}}}, "'5 GB' does not match pattern"),
        ({"store": {"mode": "nfs"}}, "value must be one of 'embedded', 'bucket'"),
        ({"images": {"digests": {"operator": "1.2.3"}}}, "'1.2.3' does not match pattern"),
        ({"images": {"pullPolicy": "Sometimes"}}, "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ({"operator": {"settings": {"OCELLI_NOPE": "1"}}}, "invalid propertyName 'OCELLI_NOPE'"),
        ({"operator": {"settings": {"OCELLI_NAMESPACES": "team-a"}}}, "invalid propertyName 'OCELLI_NAMESPACES'"),
        ({"gateway": {"settings": {"OCELLI_GATEWAY_PORT": 80}}}, "invalid propertyName 'OCELLI_GATEWAY_PORT'"),
        ({"gateway": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}}}, "minReplicas (3) is above max"),
        (
            {"gateway": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
            "gateway.resources.requests.cpu is not set",
        ),
        ({"gateway": {"scratchSize": "10K"}}, "'10K' does not match pattern"),
        ({"store": {"embedded": {"size": "1.2.3Gi"}}}, "'1.2.3Gi' does not match pattern"),
        ({"training": {"resources": {"limits": {"memory": "4 Gi"}}}}, "'4 Gi' does not match pattern"),
        ({"training": {"resources": {"limits": {"cpu": -1}}}}, "minimum: got -1, want 0"),
        ({"gateway": {"replicas": "two"}}, "got string, want integer"),
        ({"credentials": {"user": "apikey"}}, "'not' failed"),
        ({"builtIns": ["food"]}, "got string, want object"),
        ({"builtIns": [{"name": "drinks"}]}, "value must be one of 'default', 'food', 'explicit'"),
        ({"builtIns": [{"name": "default"}, {"name": "default"}]}, 'builtIns: "default" is listed twice'),
        (
            {"builtIns": [{"name": "food", "pretrained": {"weights": {"url": "https://a/b.onnx"}}}]},
            'the weights of "food" are your own; set its pretrained.labels, too',
        ),
        ({"builtIns": [{"name": "food", "pretrained": {"labels": {"packaged": "Foods"}}}]}, "value must be one of 'ImageNet',"),
        ({"builtIns": [{"name": "food", "pretrained": {"weights": {"url": "file:///food/"}}}]}, "does not match pattern"),
        ({"backbones": [{"name": "resnet18"}]}, "missing properties 'weights', 'sha256'"),
        ({"backbones": [{**BACKBONE, "weights": "/models/resnet18.pth"}]}, "does not match pattern '^https?://'"),
        ({"backbones": [{**BACKBONE, "sha256": "5c106cde"}]}, "'5c106cde' does not match pattern"),
        ({"backbones": [{**BACKBONE, "name": "EfficientNetLite0"}]}, "'not' failed"),
        ({"backbones": [{**BACKBONE, "name": "HogColor"}]}, "'not' failed"),
        ({"store": {"mode": "bucket"}}, "store.bucket.url is empty; name the bucket"),
        ({"store": {"mode": "bucket", "bucket": {"url": "s3://a", "secretName": "none"}}}, 'there is no Secret "none"'),
        ({"credentials": {"existingSecret": "none"}}, 'credentials.existingSecret: there is no Secret "none"'),
        ({"credentials": {"namespace": "nowhere"}}, 'namespace "nowhere" does not exist; create it'),
        ({"namespaces": ["team-a"]}, 'credentials.namespace "default" is not among namespaces; add it, or name one of them'),
        ({"namespaces": ["default", "nowhere"]}, 'namespace "nowhere" does not exist; create it'),
        ({"store": {"embedded": {"storageClassName": "none"}}}, 'there is no StorageClass "none"'),
        ({"store": {"embedded": {"storageClassName": ""}}}, "no default StorageClass for the store's claim"),
        ({"store": {"embedded": {"existingClaim": "none"}}}, 'there is no PersistentVolumeClaim "none"'),
        ({"gateway": {"replicas": 0, "ingress": {"enabled": True}}}, "gateway.ingress.host is empty"),
        ({"gateway": {"replicas": 0, "httpRoute": {"enabled": True}}}, "gateway.httpRoute.parentRefs is empty"),
        (
            {"gateway": {"replicas": 0, "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}},
            "the cluster has no HTTPRoute",
        ),
        ({"monitoring": {"rules": {"enabled": True}}}, "monitoring.rules.enabled: the cluster has no PrometheusRule"),
    ],
)
def test_a_wrong_value_is_refused_with_a_remedy(release: Release, values: dict[str, Any], words: str) -> None:
    said = release.apply(values, "--dry-run=server")
    assert words in said
    assert said.endswith("exit 1")


def test_a_second_release_next_to_one_for_all_namespaces_is_refused(release: Release) -> None:
    release.apply({})
    other = f"{release.namespace}-other"
    release.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    said = Release(release.helm, release.cluster, other).apply({}, "--dry-run=server")
    name = f"{release.namespace}-ocelli-operator"
    assert f'the ClusterRole "{name}", manages the Classifiers of all namespaces; give it a list of `namespaces`' in said


def test_two_releases_with_the_same_name_for_different_namespaces_install(release: Release) -> None:
    other = Release(release.helm, release.cluster, f"{release.namespace}-other")
    spaces = [f"{release.namespace}-{team}" for team in ("one", "two")]
    for name in (other.namespace, *spaces):
        release.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    gpu = {"enabled": True, "watchNodes": True}
    try:
        for each, space in zip((release, other), spaces, strict=True):
            said = each.apply({"namespaces": [space], "credentials": {"namespace": space}, "gpu": gpu})
            assert said.endswith("exit 0"), said
    finally:
        other.call("uninstall", "ocelli", "--ignore-not-found")


@pytest.fixture
def tenants_release(release: Release) -> Release:
    """A user with all rights in the release's namespace and in another one, and with no other rights."""
    own, team = release.namespace, f"{release.namespace}-team"
    release.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}})
    release.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "installer"}}, namespace=own)
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "installer"}}
    for namespace in (own, team):
        rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "installer"}
        who = {"kind": "ServiceAccount", "name": "installer", "namespace": own}
        release.cluster.apply({**rbac, "kind": "Role", "rules": [rule]}, namespace=namespace)
        release.cluster.apply({**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [who]}, namespace=namespace)
    return Release(release.helm, release.cluster, own, release.cluster.service_account_kubeconfig(own, "installer"))


def without_cluster_wide_rights(release: Release, **preconditions: bool) -> dict[str, Any]:
    team = f"{release.namespace}-team"
    bucket = {"mode": "bucket", "bucket": {"url": "s3://models"}}
    return {"namespaces": [team], "credentials": {"namespace": team}, "store": bucket, "preconditions": preconditions}


def test_a_user_with_rights_in_two_namespaces_can_install(tenants_release: Release) -> None:
    said = tenants_release.apply(without_cluster_wide_rights(tenants_release, enabled=False))
    assert said.endswith("exit 0"), said


def test_preconditions_without_the_right_to_check_them_fail_as_forbidden(tenants_release: Release) -> None:
    said = tenants_release.apply(without_cluster_wide_rights(tenants_release))
    assert 'namespaces "kube-system" is forbidden' in said


def test_without_the_resources_the_chart_says_what_to_install_first(helm: Path) -> None:
    done = call(helm, "template", "ocelli", str(CHART), "--kube-version", "1.37.2")
    assert done.returncode == 1
    assert "install the chart ocelli-crds first" in done.stderr


@pytest.mark.parametrize(("settings", "warns"), [({}, True), ({"OCELLI_GATEWAY_TRUSTED_PROXIES": "10.1.0.0/16"}, False)])
def test_the_notes_warn_about_an_ingress_without_trusted_proxies(
    release: Release, settings: dict[str, str], warns: bool
) -> None:
    gateway = {"replicas": 0, "ingress": {"enabled": True, "host": "ocelli.example"}, "settings": settings}
    said = release.apply({"gateway": gateway}, "--dry-run=server")
    assert said.endswith("exit 0"), said
    assert ("WARNING: gateway.settings.OCELLI_GATEWAY_TRUSTED_PROXIES is empty." in said) == warns
