"""The command line `ocelli`, as a user of an instance has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.product.instance import Ocelli


def run_ocelli(ocelli: Ocelli, *arguments: str, home: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run `ocelli` with these arguments, logged in; `path` is put before the PATH."""
    variables = {
        "HOME": str(home),
        "OCELLI_URL": ocelli.address,
        "OCELLI_USER": ocelli.user,
        "OCELLI_PASSWORD": ocelli.password,
        "KUBECONFIG": str(ocelli.state_dir / "kubeconfig"),
        "PATH": f"{path}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "ocelli_cli", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False)
