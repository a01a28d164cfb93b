"""The autoscaler of a Classifier. Its target is the Deployment of the served revision, and changes with it."""

from __future__ import annotations

from ocelli_api.classifier import Autoscaling, Manifest
from ocelli_api.pods import Component, deployment_name
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata


def build_autoscaler(owner: ChildOwner, autoscaling: Autoscaling, served_revision: str) -> Manifest:
    """The HorizontalPodAutoscaler over the Deployment of the served revision."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": build_metadata(owner, owner.name, build_labels(owner, Component.INFERENCE, served_revision)),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": deployment_name(owner.name, served_revision),
            },
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_utilization},
                    },
                }
            ],
        },
    }
