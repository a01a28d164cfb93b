"""What `ocelli doctor` finds: one fact for each check, and the remedy where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """Something works worse than it could, or will stop working."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    level: Level
    fact: str
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"check": self.check, "level": self.level.value, "fact": self.fact}
        return found if self.remedy is None else {**found, "remedy": self.remedy}


def ok(check: str, fact: str) -> Finding:
    return Finding(check=check, level=Level.OK, fact=fact)


def warning(check: str, fact: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, fact=fact, remedy=remedy)


def problem(check: str, fact: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.PROBLEM, fact=fact, remedy=remedy)
