"""The ServiceAccounts and rights of operator and gateway, as the chart grants them and `make run` applies them."""

from __future__ import annotations

from pathlib import Path

import yaml

from ocelli_api.classifier import Manifest

CHECKOUT = Path(__file__).resolve().parents[1]
NAMESPACE_FILE = CHECKOUT / "deploy" / "namespace.yaml"
KINDS = {"ServiceAccount", "Secret", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
COMPONENT_LABEL = "app.kubernetes.io/component"
OPERATOR_CLUSTER_ROLE = "ocelli-system-ocelli-operator"
"""The operator's rights in namespaces; those on nodes are another ClusterRole."""
OPERATOR_LEASE_ROLE = "ocelli-operator-lease"


def load_rights(component: str) -> list[Manifest]:
    """Everything that `operator` or `gateway` needs to log in and work, cluster-wide."""
    documents = yaml.safe_load_all((CHECKOUT / "deploy" / "local" / "ocelli.yaml").read_text())
    rights = [
        manifest
        for manifest in documents
        if manifest["kind"] in KINDS and manifest["metadata"]["labels"][COMPONENT_LABEL] == component
    ]
    assert rights, component
    for manifest in rights:
        # The chart's preconditions would find another installation in the cluster that the tests share.
        del manifest["metadata"]["labels"]
    return rights


def load_own_roles(component: str, namespace: str) -> list[Manifest]:
    """The Roles and RoleBindings of its own namespace, moved to another one: its Lease or its keys are there."""
    roles = [item for item in load_rights(component) if item["kind"] in ("Role", "RoleBinding")]
    for role in roles:
        role["metadata"]["namespace"] = namespace
    return roles
