"""The program that judges objects as Argo CD and Flux do: building it once into the cache folder, and asking it.

Its module pins the Kubernetes libraries at the control plane's release, so that after a build of the control plane little is
left to compile.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_local.binaries import cache_folder, find_installed_go

MODULE_FOLDER = Path(__file__).with_name("health")
CHECKOUT = Path(__file__).resolve().parents[2]
HEALTH_SCRIPT = CHECKOUT / "deploy" / "gitops" / "argocd" / "classifier-health.lua"


class GoMissingError(Exception):
    """There is no Go that is new enough, and the program was not built before."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """What one tool makes of an object."""

    status: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What both make of it."""

    argo: Health
    kstatus: Health


def program_path(environ: Mapping[str, str]) -> Path:
    """Where the program of these sources lies, built or not."""
    digest = hashlib.sha256(platform.machine().encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE_FOLDER / name).read_bytes())
    return cache_folder(environ) / f"gitops-health-{digest.hexdigest()[:12]}"


def find_or_build(environ: Mapping[str, str]) -> Path:
    """The program. Several callers build only once.

    Raises:
        GoMissingError: it is not built yet, and can't be.
        subprocess.CalledProcessError: the build failed; its notes say why.
    """
    program = program_path(environ)
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with open(program.with_name(f"{program.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(environ, program)
    return program


def _build(environ: Mapping[str, str], program: Path) -> None:
    minimum = re.search(r"^go (\S+)", (MODULE_FOLDER / "go.mod").read_text(), re.MULTILINE)
    assert minimum is not None
    go, _older = find_installed_go(environ, minimum.group(1))
    if go is None:
        raise GoMissingError(f"no Go {minimum.group(1)} or newer on PATH or in .venv")
    with tempfile.TemporaryDirectory(prefix=".build-", dir=program.parent) as folder:
        built = Path(folder) / program.name
        # The flags of the control plane's build, whose compiled packages are then used again.
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", str(built)]
        settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
        try:
            subprocess.run(
                [go, "build", *flags, "."],
                cwd=MODULE_FOLDER,
                env={**environ, **settings},
                capture_output=True,
                text=True,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise
        built.rename(program)


def judge(objects: Sequence[Mapping[str, Any]], *, script: Path = HEALTH_SCRIPT) -> list[Judgement]:
    """What Argo CD, by a health script, and kstatus make of the objects."""
    lines = "\n".join(json.dumps(item) for item in objects)
    done = subprocess.run(
        [find_or_build(os.environ), script], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"the program ended with {done.returncode}: {done.stderr}")
    judged = [json.loads(line) for line in done.stdout.splitlines()]
    return [Judgement(argo=Health(**item["argo"]), kstatus=Health(**item["kstatus"])) for item in judged]
