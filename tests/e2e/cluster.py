"""Clusters of these tests, and the charts on them, with the programs that users use."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.product.instance import CHECKOUT

COMPONENTS = ("operator", "gateway", "store", "trainer", "inference")
KIND_CONFIG = "tests/e2e/kind.yaml"
KIND_VARIABLE = "OCELLI_E2E_KIND"
"""The name of the kind cluster, where it is one: tests may read its node, and make a second cluster."""
SYSTEM_NAMESPACE = "ocelli-system"
NAMESPACE = "ocelli-e2e-a"
"""Of the classifiers of the API key."""
OTHER_NAMESPACE = "ocelli-e2e-b"


class Cluster:
    """One cluster; the images are those of IMAGE_PREFIX and IMAGE_TAG."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.prefix, self.tag = os.environ["IMAGE_PREFIX"], os.environ["IMAGE_TAG"]

    def run(self, *command: str, input_text: str | None = None, folder: Path = CHECKOUT) -> str:
        """Run a program with its standard error shown, and return its output."""
        print("e2e:", *command, flush=True)
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, input=input_text, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment
        )
        return done.stdout

    def create_kind(self, name: str, *options: str) -> None:
        """A kind cluster, with the node image KIND_IMAGE where that is set."""
        image = ("--image", os.environ["KIND_IMAGE"]) if os.environ.get("KIND_IMAGE") else ()
        self.run("kind", "create", "cluster", "--name", name, *image, *options)

    def load_images(self, name: str) -> None:
        """The images of this checkout onto every node of a kind cluster."""
        for component in COMPONENTS:
            self.run("kind", "load", "docker-image", "--name", name, f"{self.prefix}{component}:{self.tag}")

    def create_namespaces(self, *names: str) -> None:
        """Namespaces that enforce the `restricted` Pod Security Standard."""
        for name in names:
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            self.run("kubectl", "apply", "-f", "-", input_text=json.dumps(manifest))

    def install(self, *settings: str, timeout: str = "5m") -> None:
        """Install the charts as in the README; a setting is `NAME=VALUE`. Raises an error if they are not ready in time."""
        self.run("helm", "upgrade", "--install", "ocelli-crds", "charts/ocelli-crds", "--wait")
        own = (
            f"images.prefix={self.prefix}",
            f"images.tag={self.tag}",
            f"credentials.namespace={NAMESPACE}",
            # Web servers of the tests are Pods.
            "sources.allowedNetworks={10.0.0.0/8}",
        )
        options = [part for setting in (*own, *settings) for part in ("--set", setting)]
        release = ("ocelli", "charts/ocelli", "--namespace", SYSTEM_NAMESPACE)
        self.run("helm", "upgrade", "--install", *release, "--wait", "--timeout", timeout, *options)

    def test_release(self) -> None:
        """`helm test`: a classifier is trained, and classifies."""
        self.run("helm", "test", "ocelli", "--namespace", SYSTEM_NAMESPACE, "--timeout", "5m")

    def install_and_test(self, *settings: str) -> None:
        """From nothing to the first classification, timed."""
        started = time.monotonic()
        self.install(*settings)
        print(f"e2e: installed after {time.monotonic() - started:.1f} s", flush=True)
        self.test_release()
        print(f"e2e: trained and classified after {time.monotonic() - started:.1f} s", flush=True)

    def address(self, service: str = "ocelli-gateway", namespace: str = SYSTEM_NAMESPACE) -> str:
        """A NodePort Service on the node of the control plane, which no test drains, or on another where that is not shown."""
        port = self.run(
            *("kubectl", "get", "service", service, "--namespace", namespace),
            *("-o", "jsonpath={.spec.ports[0].nodePort}"),
        )
        nodes = json.loads(self.run("kubectl", "get", "nodes", "-o", "json"))["items"]
        node = max(nodes, key=lambda item: "node-role.kubernetes.io/control-plane" in item["metadata"]["labels"])
        return f"http://{next(item['address'] for item in node['status']['addresses'] if item['type'] == 'InternalIP')}:{port}"

    def is_installed(self) -> bool:
        """Whether there is a release already."""
        return self.run("helm", "list", "--all", "--short", "--namespace", SYSTEM_NAMESPACE, "--filter", "^ocelli$") != ""

    def remove(self) -> None:
        """Remove the installation with all its objects and data."""
        self.run("helm", "uninstall", "ocelli", "--namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait")
        self.run("helm", "uninstall", "ocelli-crds", "--ignore-not-found")
        self.run("kubectl", "delete", "crd", "classifiers.ocelli.dev", "--ignore-not-found")
        self.run("kubectl", "delete", "namespace", "--ignore-not-found", SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE)
