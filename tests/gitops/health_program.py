"""The program that judges objects as Argo CD and Flux do, and asking it."""

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
    """What one tool makes of an object."""

    status: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What both make of it."""

    argo: Health
    kstatus: Health


def judge(objects: Sequence[Mapping[str, Any]], *, script: Path = HEALTH_SCRIPT) -> list[Judgement]:
    """What Argo CD, by a health script, and kstatus make of the objects."""
    lines = "\n".join(json.dumps(item) for item in objects)
    done = subprocess.run(
        [HEALTH_PROGRAM.find_or_build(os.environ), script], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"the program ended with {done.returncode}: {done.stderr}")
    judged = [json.loads(line) for line in done.stdout.splitlines()]
    return [Judgement(argo=Health(**item["argo"]), kstatus=Health(**item["kstatus"])) for item in judged]
