"""What `spec.corrections` changed about a dataset. Pure.

`dataset.build_dataset` applies them. Here they are counted, because a correction without effect is often a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Correction
from ocelli_training.dataset import ExampleSet, SourceReading, find_owners

UNKNOWN_REPORTED = 100
_UNKNOWN_SHOWN = 3
_SHOWN_DIGEST_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class CorrectionCounts:
    """The effects of all corrections of a definition."""

    relabelled: int = 0
    """Images that belong to another class than their sources say."""
    dropped: int = 0
    unchanged: int = 0
    """Images that belong to that class anyway."""
    unknown: tuple[str, ...] = ()
    """Digests of images that no source has: they were replaced, erased or mistyped."""

    def to_json(self) -> dict[str, Any]:
        return {
            "relabelled": self.relabelled,
            "dropped": self.dropped,
            "unchanged": self.unchanged,
            "unknownCount": len(self.unknown),
            "unknown": list(self.unknown[:UNKNOWN_REPORTED]),
        }

    def describe_unknown(self) -> str:
        """A clause for the outcome's message; empty if every image was found."""
        if not self.unknown:
            return ""
        shown = ", ".join(f"{digest[:_SHOWN_DIGEST_LENGTH]}…" for digest in self.unknown[:_UNKNOWN_SHOWN])
        return f"; no source has {len(self.unknown)} of the images that spec.corrections names ({shown})"


def count_corrections(
    corrections: Sequence[Correction],
    sets: Sequence[ExampleSet],
    readings: Sequence[Sequence[SourceReading]],
    test_sets: Sequence[ExampleSet] = (),
    readings_of_test: Sequence[Sequence[SourceReading]] = (),
) -> CorrectionCounts:
    """Compare the corrections with what the sources say. An image that is in both, examples and test images, counts once."""
    owners: dict[str, set[str | None]] = {}
    for some_sets, some_readings in ((sets, readings), (test_sets, readings_of_test)):
        for digest, index in find_owners(some_sets, some_readings).items():
            owners.setdefault(digest, set()).add(some_sets[index].class_name)
    known = [item for item in corrections if item.image in owners]
    relabelled = sum(bool(item.class_name) and owners[item.image] != {item.class_name} for item in known)
    dropped = sum(not item.class_name for item in known)
    return CorrectionCounts(
        relabelled=relabelled,
        dropped=dropped,
        unchanged=len(known) - relabelled - dropped,
        unknown=tuple(item.image for item in corrections if item.image not in owners),
    )
