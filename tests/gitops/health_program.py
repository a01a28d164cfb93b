"""The program that assesses objects as Argo CD and Flux do, and calling it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.go_programs import GoProgram

CHECKOUT = Path(__file__).resolve().parents[2]
HEALTH_SCRIPT = CHECKOUT / "deploy" / "gitops" / "argocd" / "classifier-health.lua"
HEALTH_PROGRAM = GoProgram(name="gitops-health", module_folder=Path(__file__).with_name("health"))


@dataclass(frozen=True, kw_only=True)
class Health:
    """The health of an object by one tool."""

    status: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The health of an object by both tools."""

    argo: Health
    kstatus: Health


def assess(objects: Sequence[Mapping[str, Any]], *, script: Path = HEALTH_SCRIPT) -> list[Assessment]:
    """The health of the objects, by Argo CD with a health script and by kstatus."""
    lines = "\n".join(json.dumps(item) for item in objects)
    done = subprocess.run(
        [HEALTH_PROGRAM.find_or_build(os.environ), script], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"the program ended with {done.returncode}: {done.stderr}")
    assessed = [json.loads(line) for line in done.stdout.splitlines()]
    return [Assessment(argo=Health(**item["argo"]), kstatus=Health(**item["kstatus"])) for item in assessed]
