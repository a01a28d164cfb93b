"""`make e2e CLUSTER=kind`, or CLUSTER=context:NAME: install the charts as users do, run `helm test` and these tests.

With `kind` the cluster is the one in KUBECONFIG, if that is kind's, else one is created; images are built and loaded. The nodes
of a context must be able to pull the images (IMAGE_PREFIX, IMAGE_TAG). No other cluster is ever touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.conftest import ADDRESS_VARIABLE, NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE

CHECKOUT = Path(__file__).resolve().parents[2]
COMPONENTS = ("operator", "gateway", "store", "trainer", "inference")
KIND_CLUSTER = "ocelli"
KIND_CONFIG = "tests/e2e/kind.yaml"


class Environment:
    """The cluster, and how its programs are called."""

    def __init__(self) -> None:
        self.prefix, self.tag = os.environ["IMAGE_PREFIX"], os.environ["IMAGE_TAG"]

    def run(self, *command: str, input_text: str | None = None) -> str:
        """Run a program, show what it says on standard error, return its output."""
        print("e2e:", *command, flush=True)
        return subprocess.run(command, input=input_text, stdout=subprocess.PIPE, text=True, check=True, cwd=CHECKOUT).stdout

    def prepare_kind(self) -> None:
        """A kind cluster, with the images of this checkout on its nodes."""
        clusters = self.run("kind", "get", "clusters").split()
        context = subprocess.run(("kubectl", "config", "current-context"), capture_output=True, text=True, check=False).stdout
        name = context.strip().removeprefix("kind-")
        if not context.startswith("kind-") or name not in clusters:
            name = os.environ.get("KIND_CLUSTER_NAME", KIND_CLUSTER)
            if name not in clusters:
                image = ("--image", os.environ["KIND_IMAGE"]) if os.environ.get("KIND_IMAGE") else ()
                self.run("kind", "create", "cluster", "--name", name, *image, "--config", KIND_CONFIG)
            self.run("kubectl", "config", "use-context", f"kind-{name}")
        self.run("make", "images")
        for component in COMPONENTS:
            self.run("kind", "load", "docker-image", "--name", name, f"{self.prefix}{component}:{self.tag}")

    def install(self) -> None:
        """The charts, as the README says, in namespaces that enforce the `restricted` Pod Security Standard."""
        for namespace in (SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
            self.run("kubectl", "apply", "-f", "-", input_text=json.dumps(manifest))
        started = time.monotonic()
        self.run("helm", "upgrade", "--install", "ocelli-crds", "charts/ocelli-crds")
        self.run(
            *("helm", "upgrade", "--install", "ocelli", "charts/ocelli", "--namespace", SYSTEM_NAMESPACE, "--wait"),
            *("--timeout", "5m", "--set", f"images.prefix={self.prefix}", "--set", f"images.tag={self.tag}"),
            *("--set", f"credentials.namespace={NAMESPACE}", "--set", "gateway.service.type=NodePort"),
        )
        print(f"e2e: installed after {time.monotonic() - started:.1f} s", flush=True)
        self.run("helm", "test", "ocelli", "--namespace", SYSTEM_NAMESPACE, "--timeout", "5m")
        print(f"e2e: trained and classified after {time.monotonic() - started:.1f} s", flush=True)

    def address(self) -> str:
        """The gateway's Service on the node of the control plane, which no test drains."""
        port = self.run(
            *("kubectl", "get", "service", "ocelli-gateway", "--namespace", SYSTEM_NAMESPACE),
            *("-o", "jsonpath={.spec.ports[0].nodePort}"),
        )
        node = self.run(
            *("kubectl", "get", "nodes", "-l", "node-role.kubernetes.io/control-plane"),
            *("-o", 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'),
        )
        return f"http://{node}:{port}"

    def control_plane(self) -> str:
        """The name of the node of the control plane, which with kind is that of its container."""
        return self.run(
            "kubectl", "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "jsonpath={.items[0].metadata.name}"
        )


def main(pytest_arguments: Sequence[str]) -> int:
    """The exit code of the tests."""
    cluster = os.environ.get("CLUSTER", "")
    environment = Environment()
    if cluster == "kind":
        environment.prepare_kind()
    elif cluster.startswith("context:"):
        environment.run("kubectl", "config", "use-context", cluster.removeprefix("context:"))
    else:
        print("e2e: set CLUSTER=kind or CLUSTER=context:NAME; the charts are installed into that cluster", file=sys.stderr)
        return 2
    environment.install()
    variables = {
        ADDRESS_VARIABLE: environment.address(),
        "OCELLI_E2E_CONTROL_PLANE": environment.control_plane(),
        "OCELLI_E2E_IMAGES": environment.prefix,
        "OCELLI_E2E_TAG": environment.tag,
    }
    command = (sys.executable, "-m", "pytest", "tests/e2e", *pytest_arguments)
    return subprocess.run(command, env={**os.environ, **variables}, cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
