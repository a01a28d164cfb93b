"""One figure: the measured value, the goal, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Bound(StrEnum):
    """On which side of its goal a figure has to be."""

    AT_MOST = "<="
    AT_LEAST = ">="
    ABOVE = ">"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """As text: a line of a table."""

    what: str
    value: float
    goal: float
    unit: str
    bound: Bound = Bound.AT_MOST

    @property
    def met(self) -> bool:
        match self.bound:
            case Bound.AT_MOST:
                return self.value <= self.goal
            case Bound.AT_LEAST:
                return self.value >= self.goal
            case Bound.ABOVE:
                return self.value > self.goal

    def __str__(self) -> str:
        verdict = "met" if self.met else "missed"
        return f"{self.what:66} {self.value:8.2f} {self.unit:2} {self.bound:2} {self.goal:6.2f} {self.unit:2} {verdict}"
