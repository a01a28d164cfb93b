"""A shell for the commands of the pages, with a cluster as the current one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands in a folder; the first that fails ends them and the test."""

    kubeconfig: Path
    folder: Path

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ("bash", "-eux", "-o", "pipefail", "-c", commands),
            cwd=self.folder,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done
