"""Pods of the tests themselves, as the `restricted` Pod Security Standard wants them."""

from __future__ import annotations

import os
from typing import Any

from tests.product.instance import Document


def store_image() -> str:
    """The smallest of the images, which has Python and is on every node."""
    return f"{os.environ['IMAGE_PREFIX']}store:{os.environ['IMAGE_TAG']}"


def build_pod(metadata: Document, container: Document, volume: Document, mounted_at: str, **spec: Any) -> Document:
    """A Pod of one container and one volume."""
    container = {
        "name": "main",
        "image": store_image(),
        **container,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "volume", "mountPath": mounted_at}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "volume", **volume}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod, **spec}}


def build_server(metadata: Document, port: int, container: Document, volume: Document, mounted_at: str) -> list[Document]:
    """Such a Pod that listens, and a Service before it, a port of each node."""
    probe = {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}}
    metadata = {**metadata, "labels": {"app": metadata["name"]}}
    service = {"type": "NodePort", "selector": metadata["labels"], "ports": [{"port": port}]}
    return [
        build_pod(metadata, {**container, **probe}, volume, mounted_at),
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]
