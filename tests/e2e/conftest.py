"""What users install: the charts on a real cluster. `make e2e` installs them; without it these tests are not collected."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from ocelli_quickstart.digits import write_samples
from tests.product.instance import Ocelli

ADDRESS_VARIABLE = "OCELLI_E2E_ADDRESS"
"""The gateway's address, as this machine reaches its Service; set by `make e2e`, together with KUBECONFIG."""
SYSTEM_NAMESPACE = "ocelli-system"
NAMESPACE = "ocelli-e2e-a"
"""Of the classifiers of the API key."""
OTHER_NAMESPACE = "ocelli-e2e-b"

collect_ignore_glob = [] if ADDRESS_VARIABLE in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def ocelli(tmp_path_factory: pytest.TempPathFactory) -> Ocelli:
    """The installation, reached by REST with the generated API key, and by kubectl in the key's namespace."""
    state_dir: Path = tmp_path_factory.mktemp("e2e")
    write_samples(state_dir / "samples")
    cluster = Ocelli(
        address=os.environ[ADDRESS_VARIABLE],
        user="apikey",
        password="",
        state_dir=state_dir,
        kubectl_command=("kubectl", f"--namespace={NAMESPACE}"),
    )
    encoded = cluster.kubectl(
        "get", "secret", "ocelli-initial-credentials", f"--namespace={SYSTEM_NAMESPACE}", "-o", "jsonpath={.data.apiKey}"
    )
    return Ocelli(**{**vars(cluster), "password": base64.b64decode(encoded).decode()})
