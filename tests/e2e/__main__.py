"""`make e2e CLUSTER=kind`, or CLUSTER=context:NAME: install the charts as users do, run `helm test` and these tests.

With `kind` the cluster is the one in KUBECONFIG, if that is kind's, else one is created; images are built and loaded. The tests
that need a second one create and delete it. The nodes of a context must be able to pull the images (IMAGE_PREFIX, IMAGE_TAG),
and this machine to reach its nodes; what was installed there is taken away. No other cluster is ever touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.cluster import KIND_CONFIG, KIND_VARIABLE, NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import ADDRESS_VARIABLE
from tests.product.instance import CHECKOUT

KIND_CLUSTER = "ocelli"
USER_KUBECONFIG = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def prepare_kind(cluster: Cluster) -> str:
    """A kind cluster, with the images of this checkout on its nodes; its name."""
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
    return name


def main(pytest_arguments: Sequence[str]) -> int:
    """The exit code of the tests."""
    chosen = os.environ.get("CLUSTER", "")
    if chosen == "kind":
        cluster = Cluster(USER_KUBECONFIG)
        name = prepare_kind(cluster)
        return run_tests(cluster, pytest_arguments, {KIND_VARIABLE: name})
    if not chosen.startswith("context:"):
        print("e2e: set CLUSTER=kind or CLUSTER=context:NAME; the charts are installed into that cluster", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "kubeconfig")
        view = ("kubectl", "config", "view", "--raw", "--minify", "--flatten", "--context", chosen.removeprefix("context:"))
        cluster.kubeconfig.write_text(Cluster(USER_KUBECONFIG).run(*view))
        if cluster.is_installed():
            print(
                f"e2e: {SYSTEM_NAMESPACE} has a release ocelli already, which is not the tests'; uninstall it first",
                file=sys.stderr,
            )
            return 2
        try:
            return run_tests(cluster, pytest_arguments, {})
        finally:
            cluster.remove()


def run_tests(cluster: Cluster, pytest_arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Install the charts and run the tests; the exit code."""
    cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE)
    cluster.install_and_test("gateway.service.type=NodePort")
    own = {"KUBECONFIG": str(cluster.kubeconfig), ADDRESS_VARIABLE: cluster.address()}
    # A test that needs the second cluster may have to make it first.
    command = (sys.executable, "-m", "pytest", "tests/e2e", "--timeout=900", *pytest_arguments)
    return subprocess.run(command, env={**os.environ, **own, **variables}, cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
