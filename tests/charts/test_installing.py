"""Installing into a real API server: what an upgrade keeps, and that wrong values are refused before anything is created."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from tests.charts.releases import CHART, FULL_VALUES, Release, call, parse, pod_specs, render

pytestmark = pytest.mark.cluster

BACKBONE = {"name": "resnet18", "weights": "https://models.example.com/resnet18.pth", "sha256": "a" * 64}


def test_a_release_installs(release: Release) -> None:
    assert release.apply({}).endswith("exit 0")


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


def test_the_notes_say_how_to_log_in(release: Release) -> None:
    assert "get secret ocelli-initial-credentials -o jsonpath" in release.apply({})


def test_the_notes_mention_the_test_only_if_it_is_enabled(release: Release) -> None:
    assert "helm test ocelli" in release.apply({})
    release.cluster.kubectl("create", "secret", "generic", "users", "-n", release.namespace)
    values = {"credentials": {"existingSecret": "users"}}
    assert "helm test" not in release.apply(values)
    assert "helm test ocelli" in release.apply({**values, "test": {"apiKeySecret": {"name": "tester"}}})


def test_an_upgrade_keeps_the_api_key(release: Release) -> None:
    release.apply({})
    drawn = release.api_key()
    assert release.apply({"gateway": {"replicas": 0, "settings": {"OCELLI_QUOTA_CLASSIFIERS": "7"}}}).endswith("exit 0")
    assert release.api_key() == drawn


def test_an_upgrade_keeps_the_api_key_after_its_secret_was_deleted(release: Release) -> None:
    release.apply({})
    digest = release.initial_user()["apiKeySHA256"]
    release.cluster.kubectl("delete", "secret", "ocelli-initial-credentials", "-n", release.namespace)
    assert release.apply({"credentials": {"owner": "somebody else"}}).endswith("exit 0")
    assert release.initial_user() == {
        "user": "ocelli",
        "apiKeySHA256": digest,
        "namespace": "default",
        "owner": "somebody else",
    }


def test_an_upgrade_does_not_restore_a_removed_user(release: Release) -> None:
    release.apply({})
    patch = json.dumps({"data": {"initial.json": None}})
    release.cluster.kubectl("patch", "secret", "ocelli-credentials", "-n", release.namespace, "--type=merge", "-p", patch)
    assert release.apply({}).endswith("exit 0")
    secret = release.cluster.get("v1", "Secret", "ocelli-credentials", namespace=release.namespace)
    assert secret is not None
    assert not secret.get("data")


def test_an_upgrade_keeps_the_signing_keys_of_the_gateways(release: Release) -> None:
    release.apply({})
    patch = json.dumps({"data": {"keys.json": base64.b64encode(b"{}").decode()}})
    release.cluster.kubectl("patch", "secret", "ocelli-token-keys", "-n", release.namespace, "--type=merge", "-p", patch)
    assert release.apply({}).endswith("exit 0")
    secret = release.cluster.get("v1", "Secret", "ocelli-token-keys", namespace=release.namespace)
    assert secret is not None
    assert "keys.json" in secret["data"]


def test_an_upgrade_keeps_added_users(release: Release) -> None:
    release.apply({})
    patch = json.dumps({"stringData": {"more.json": "{}"}})
    release.cluster.kubectl("patch", "secret", "ocelli-credentials", "-n", release.namespace, "--type=merge", "-p", patch)
    assert release.apply({}).endswith("exit 0")
    secret = release.cluster.get("v1", "Secret", "ocelli-credentials", namespace=release.namespace)
    assert secret is not None
    assert set(secret["data"]) == {"initial.json", "more.json"}


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
