"""The NetworkPolicy of a Classifier: who may connect to its inference servers, which ask for no credentials."""

from __future__ import annotations

import copy

from ocelli_api.classifier import Manifest
from ocelli_api.pods import CLASSIFIER_LABEL, COMPONENT_LABEL, INFERENCE_PORT_NAME, Component
from ocelli_operator.config import NetworkPeers
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata, network_policy_name

_OWN_NAMESPACE: Manifest = {"podSelector": {}}


def build_network_policy(owner: ChildOwner, peers: NetworkPeers) -> Manifest:
    """One for the servers of all revisions, so that it is there before the first of them."""
    readers = [*peers.callers, *peers.metrics_readers]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(owner, network_policy_name(owner.name), build_labels(owner, Component.INFERENCE)),
        "spec": {
            "podSelector": {"matchLabels": {CLASSIFIER_LABEL: owner.name, COMPONENT_LABEL: str(Component.INFERENCE)}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "ports": [{"port": INFERENCE_PORT_NAME, "protocol": "TCP"}],
                    "from": [copy.deepcopy(_OWN_NAMESPACE), *(copy.deepcopy(dict(peer)) for peer in readers)],
                }
            ],
        },
    }
