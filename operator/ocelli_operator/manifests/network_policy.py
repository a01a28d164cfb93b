"""The NetworkPolicy of a Classifier: who may connect to its inference servers, which have no authentication."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_api.pods import CLASSIFIER_LABEL, COMPONENT_LABEL, INFERENCE_PORT_NAME, INTERNAL_PORT_NAME, Component
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata, network_policy_name
from ocelli_operator.settings import NetworkPeers


def build_network_policy(owner: ChildOwner, peers: NetworkPeers) -> Manifest:
    """One policy covers the servers of all revisions, so that it can exist before the first of them."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(owner, network_policy_name(owner.name), build_labels(owner, Component.INFERENCE)),
        "spec": {
            "podSelector": {"matchLabels": {CLASSIFIER_LABEL: owner.name, COMPONENT_LABEL: str(Component.INFERENCE)}},
            "policyTypes": ["Ingress"],
            "ingress": [
                _build_rule(INFERENCE_PORT_NAME, peers.callers),
                _build_rule(INTERNAL_PORT_NAME, peers.metrics_readers),
            ],
        },
    }


def _build_rule(port_name: str, peers: Iterable[Mapping[str, Any]]) -> Manifest:
    """Pods of the Classifier's own namespace may always connect. A rule without peers would admit every Pod."""
    own_namespace: Manifest = {"podSelector": {}}
    return {
        "ports": [{"port": port_name, "protocol": "TCP"}],
        "from": [own_namespace, *(copy.deepcopy(dict(peer)) for peer in peers)],
    }
