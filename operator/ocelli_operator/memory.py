"""What passes remember of one Classifier between them. A successor does without, and only does a little twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

REMEMBERED_LIMIT = 50
"""Of each kind, for one Classifier: children and manifests of earlier revisions are forgotten first."""
WAIT_FIRST_SECONDS = 1.0
WAIT_LIMIT_SECONDS = 60.0


@dataclass(kw_only=True)
class ClassifierMemory:
    """See `Observed` for what the mappings mean."""

    progress_written_at: datetime | None = None
    dropped_revision: str | None = None
    applied: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    hindrances: dict[str, str] = field(default_factory=dict)
    network_policy_blocked: bool = False
    """By the last plan."""
    wait_seconds: float = WAIT_FIRST_SECONDS
    """How long to wait before what was hindered is tried again."""

    def note(self, noted: dict[str, str], key: str, text: str) -> None:
        """Remember it in one of the mappings."""
        noted.pop(key, None)
        noted[key] = text
        if len(noted) > REMEMBERED_LIMIT:
            del noted[next(iter(noted))]

    def next_wait_seconds(self) -> float:
        """Ever longer, until nothing is hindered any more."""
        seconds = self.wait_seconds
        self.wait_seconds = min(seconds * 2, WAIT_LIMIT_SECONDS)
        return seconds
