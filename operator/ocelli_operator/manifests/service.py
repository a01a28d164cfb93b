"""The Service of a Classifier: a stable address for clients other than the gateway, which finds Pods by itself."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.pods import INFERENCE_PORT, INFERENCE_PORT_NAME, INTERNAL_PORT, INTERNAL_PORT_NAME, Component
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata, selector_labels, service_name


def build_service(owner: ChildOwner, served_revision: str) -> Manifest:
    """The Service that selects the inference servers of the served revision."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(owner, service_name(owner.name), build_labels(owner, Component.INFERENCE, served_revision)),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(owner.name, Component.INFERENCE, served_revision),
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                # The second one is for Prometheus, which discovers servers through their Service.
                for name, port in ((INFERENCE_PORT_NAME, INFERENCE_PORT), (INTERNAL_PORT_NAME, INTERNAL_PORT))
            ],
        },
    }
