"""The disruption budget of a Classifier: a node drain evicts its inference servers one at a time."""

from __future__ import annotations

from ocelli_api.classifier import Manifest, Serving
from ocelli_api.pods import Component
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata, selector_labels


def needs_disruption_budget(serving: Serving) -> bool:
    """Only above one replica: a budget for a single server would either protect nothing or block every drain."""
    least = serving.autoscaling.min_replicas if serving.autoscaling is not None else serving.replicas
    return least > 1


def build_disruption_budget(owner: ChildOwner, served_revision: str) -> Manifest:
    """The PodDisruptionBudget over the inference servers of the served revision."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": build_metadata(owner, owner.name, build_labels(owner, Component.INFERENCE, served_revision)),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_labels(owner.name, Component.INFERENCE, served_revision)},
        },
    }
