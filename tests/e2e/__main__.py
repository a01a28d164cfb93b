"""`make e2e CLUSTER=kind`, or CLUSTER=context:NAME: install the charts as users do, run `helm test` and these tests.

With `kind` the cluster is the one in KUBECONFIG, if that is kind's, else one is created; images are built and loaded. The tests
that need a second one create and delete it. The nodes of a context must be able to pull the images (IMAGE_PREFIX, IMAGE_TAG).
No other cluster is ever touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.cluster import CHECKOUT, KIND_CONFIG, KIND_VARIABLE, NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import ADDRESS_VARIABLE

KIND_CLUSTER = "ocelli"


def prepare_kind(cluster: Cluster) -> None:
    """A kind cluster, with the images of this checkout on its nodes."""
    clusters = cluster.run("kind", "get", "clusters").split()
    context = subprocess.run(("kubectl", "config", "current-context"), capture_output=True, text=True, check=False).stdout
    name = context.strip().removeprefix("kind-")
    if not context.startswith("kind-") or name not in clusters:
        name = os.environ.get("KIND_CLUSTER_NAME", KIND_CLUSTER)
        if name not in clusters:
            cluster.create_kind(name, "--config", KIND_CONFIG)
        cluster.run("kubectl", "config", "use-context", f"kind-{name}")
    cluster.run("make", "images")
    cluster.load_images(name)


def main(pytest_arguments: Sequence[str]) -> int:
    """The exit code of the tests."""
    chosen = os.environ.get("CLUSTER", "")
    cluster = Cluster(Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"))
    if chosen == "kind":
        prepare_kind(cluster)
    elif chosen.startswith("context:"):
        cluster.run("kubectl", "config", "use-context", chosen.removeprefix("context:"))
    else:
        print("e2e: set CLUSTER=kind or CLUSTER=context:NAME; the charts are installed into that cluster", file=sys.stderr)
        return 2
    cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE)
    cluster.install_and_test("gateway.service.type=NodePort")
    variables = {
        "KUBECONFIG": str(cluster.kubeconfig),
        ADDRESS_VARIABLE: cluster.address(),
        "OCELLI_E2E_CONTROL_PLANE": cluster.control_plane(),
        **({KIND_VARIABLE: "1"} if chosen == "kind" else {}),
    }
    command = (sys.executable, "-m", "pytest", "tests/e2e", *pytest_arguments)
    return subprocess.run(command, env={**os.environ, **variables}, cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
