"""One figure of ours next to another one."""

from __future__ import annotations

from dataclasses import dataclass

HEADING = f"{'what':68} {'ours':>9} {'other':>9}      ratio     goal"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """As text: a line of a table, below `HEADING`."""

    what: str
    ours: float
    other: float
    unit: str
    ratio: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def __str__(self) -> str:
        bound, verdict = (">=" if self.at_least else "<="), "met" if self.met else "missed"
        figures = f"{self.ours:9.3f} {self.other:9.3f} {self.unit:2}"
        return f"{self.what:68} {figures} {self.ratio:7.3f} {bound} {self.goal:5.2f} {verdict}"
