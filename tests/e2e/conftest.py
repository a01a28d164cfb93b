"""The charts on a real cluster, as users install them. Only `make e2e` collects these tests."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocelli_quickstart.samples import write_samples
from tests.e2e.cluster import KIND_VARIABLE, NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.few_samples import write_few_samples
from tests.product.conftest import browser  # noqa: F401
from tests.product.instance import Ocelli

ADDRESS_VARIABLE = "OCELLI_E2E_ADDRESS"
"""The gateway's address, as this machine reaches its Service; set by `make e2e`, together with KUBECONFIG."""
NEW_CLUSTER = "ocelli-new"

collect_ignore_glob = [] if ADDRESS_VARIABLE in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above the sample images."""
    folder: Path = tmp_path_factory.mktemp("e2e")
    write_samples(folder / "samples")
    write_few_samples(folder / "samples", folder / "samples" / "few")
    return folder


@pytest.fixture(scope="session")
def ocelli(samples: Path) -> Ocelli:
    """The installation, reached by REST with the generated API key, and by kubectl in the key's namespace."""
    return connect(Path(os.environ["KUBECONFIG"]), os.environ[ADDRESS_VARIABLE], samples)


@pytest.fixture
def client(ocelli: Ocelli) -> Iterator[httpx.Client]:
    with ocelli.client() as client:
        yield client


@pytest.fixture(scope="session")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A second cluster of one node, with the images on it. Each test installs what it needs, and removes it."""
    if KIND_VARIABLE not in os.environ:
        pytest.skip("needs a second cluster, which only CLUSTER=kind makes")
    cluster = Cluster(tmp_path_factory.mktemp("new-cluster") / "kubeconfig")
    try:
        cluster.create_kind(NEW_CLUSTER)
        cluster.load_images(NEW_CLUSTER)
        yield cluster
    finally:
        cluster.run("kind", "delete", "cluster", "--name", NEW_CLUSTER)


def connect(kubeconfig: Path, address: str, samples: Path) -> Ocelli:
    """An installation, with the API key of its Secret."""
    kubectl = ("kubectl", f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}")
    cluster = Ocelli(address=address, user="apikey", password="", state_dir=samples, kubectl_command=kubectl)
    encoded = cluster.kubectl(
        "get", "secret", "ocelli-initial-credentials", f"--namespace={SYSTEM_NAMESPACE}", "-o", "jsonpath={.data.apiKey}"
    )
    return Ocelli(**{**vars(cluster), "password": base64.b64decode(encoded).decode()})


def create_failing(client: httpx.Client, ocelli: Ocelli) -> str:
    """The same images for both classes: the training fails."""
    zero = (ocelli.samples / "zero.zip").read_bytes()
    files = {"zero_positive_examples": zero, "again_positive_examples": zero}
    identity: str = client.post("/v3/classifiers", data={"name": "failing"}, files=files).json()["classifier_id"]
    return identity
