"""The report on the data of a training: counts, sizes, duplicates, and images that a person should look at. Pure.

Checks and trainings write the same one. Lists are bounded and have their total.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_storage.archives import shown_name
from ocelli_training.corrections import CorrectionCounts
from ocelli_training.dataset import Dataset, Example
from ocelli_training.evaluate import JudgedImage
from ocelli_training.suspicion import Suspicion

NEAR_DUPLICATES_REPORTED = 100
OUTLIERS_REPORTED = 100
SMALL_IMAGES_REPORTED = 100
SUSPECTS_REPORTED = 1000
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found in the examples of one revision."""

    dataset: Dataset
    groups: NDArray[np.intp]
    """intp[N]: for each example the row of the oldest of its near duplicates, its own where it has none."""
    suspicion: Suspicion | None
    """None: there are too few examples to find suspicious ones."""
    corrections: CorrectionCounts
    """What `spec.corrections` changed."""
    input_side_pixels: int
    """The shorter side of the backbone's input."""

    @property
    def near_duplicates(self) -> list[tuple[Example, Example]]:
        """Examples with the oldest of their near duplicates."""
        examples = self.dataset.examples
        return [(examples[row], examples[oldest]) for row, oldest in enumerate(self.groups.tolist()) if row != oldest]

    @property
    def conflicts(self) -> list[tuple[Example, Example]]:
        """See `find_conflicts`."""
        return find_conflicts(self.dataset.examples, self.groups)

    @property
    def small_images(self) -> list[Example]:
        """Examples that are smaller than the backbone's input."""
        return [
            example
            for example in self.dataset.examples
            if example.sides is not None and example.sides[0] < self.input_side_pixels
        ]

    @property
    def given_away_count(self) -> int:
        """Files whose image is in another set too, and belongs to that; without those that a correction moves."""
        return sum(file.owner is not None for report in self.dataset.reports for file in report.given_away)

    def shown_images(self, misclassified: Iterable[str] = ()) -> Iterator[str]:
        """Digests of the images that a person should look at, the most important first. Some come more than once.

        `misclassified` are those of an evaluation.
        """
        examples = self.dataset.examples
        for pair in self.conflicts[:NEAR_DUPLICATES_REPORTED]:
            yield from (example.digest for example in pair)
        for report in self.dataset.reports:
            yield from (file.digest for file in report.given_away[:NEAR_DUPLICATES_REPORTED] if file.digest is not None)
        if self.suspicion is not None:
            suspects = [suspect.row for suspect in self.suspicion.label_errors.suspects[:SUSPECTS_REPORTED]]
            outliers = list(self.suspicion.outliers[:OUTLIERS_REPORTED])
            # In turns: both lists may be longer than what can be shown.
            for rows in zip_longest(suspects, outliers):
                yield from (examples[row].digest for row in rows if row is not None)
        yield from misclassified
        for pair in self.near_duplicates[:NEAR_DUPLICATES_REPORTED]:
            yield from (example.digest for example in pair)
        yield from (example.digest for example in self.small_images[:SMALL_IMAGES_REPORTED])

    def to_json(self) -> dict[str, Any]:
        """The field `data` of reports."""
        examples, near_duplicates, conflicts = self.dataset.examples, self.near_duplicates, self.conflicts
        small = self.small_images
        return {
            "images": len(examples),
            "sets": [report.to_json() for report in self.dataset.reports],
            "corrections": self.corrections.to_json(),
            "nearDuplicatesCount": len(near_duplicates),
            "nearDuplicates": [
                {
                    "image": image_name(example),
                    "sha256": example.digest,
                    "oldest": image_name(oldest),
                    "oldestSHA256": oldest.digest,
                }
                for example, oldest in near_duplicates[:NEAR_DUPLICATES_REPORTED]
            ],
            "conflictsCount": len(conflicts),
            "conflicts": [
                {
                    "image": image_name(image),
                    "sha256": image.digest,
                    "class": self._class_name(image),
                    "nearDuplicate": image_name(near_duplicate),
                    "nearDuplicateSHA256": near_duplicate.digest,
                    "nearDuplicateClass": self._class_name(near_duplicate),
                }
                for image, near_duplicate in conflicts[:NEAR_DUPLICATES_REPORTED]
            ],
            **self._describe_suspicious(),
            "sides": describe_sides(examples),
            "inputSidePixels": self.input_side_pixels,
            "smallImagesCount": len(small),
            "smallImages": [
                {
                    "image": image_name(example),
                    "sha256": example.digest,
                    "class": self._class_name(example),
                    "sides": list(example.sides or ()),
                }
                for example in small[:SMALL_IMAGES_REPORTED]
            ],
        }

    def _describe_suspicious(self) -> dict[str, Any]:
        if self.suspicion is None:
            # Not 0: nothing was looked for.
            return {
                "estimatedLabelErrors": None,
                "suspectedLabelErrorsCount": None,
                "suspectedLabelErrors": [],
                "outliersCount": None,
                "outliers": [],
            }
        examples, found = self.dataset.examples, self.suspicion
        return {
            "estimatedLabelErrors": found.label_errors.estimated,
            "suspectedLabelErrorsCount": len(found.label_errors.suspects),
            "suspectedLabelErrors": [
                {
                    "image": image_name(examples[suspect.row]),
                    "sha256": examples[suspect.row].digest,
                    "class": self._class_name(examples[suspect.row]),
                    "probability": round(suspect.given_probability, _DECIMALS),
                    "suggestedClass": self.dataset.reports[suspect.suggested].example_set.class_name,
                    "suggestedProbability": round(suspect.suggested_probability, _DECIMALS),
                }
                for suspect in found.label_errors.suspects[:SUSPECTS_REPORTED]
            ],
            "outliersCount": len(found.outliers),
            "outliers": [
                {"image": image_name(examples[row]), "sha256": examples[row].digest, "class": self._class_name(examples[row])}
                for row in found.outliers[:OUTLIERS_REPORTED]
            ],
        }

    def _class_name(self, example: Example) -> str | None:
        return self.dataset.reports[example.set_index].example_set.class_name


def image_name(example: Example) -> str:
    """An example as reports name it: its source, and the file in it."""
    return f"{example.source} › {shown_name(example.name)}"


def judged_images(examples: Iterable[Example]) -> list[JudgedImage]:
    """Examples as an evaluation names them."""
    return [JudgedImage(name=image_name(example), sha256=example.digest) for example in examples]


def describe_sides(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Smallest, median and largest of the shorter and of the longer sides, in pixels; empty if no side is known."""
    sides = np.array([example.sides for example in examples if example.sides is not None], dtype=np.intp).reshape(-1, 2)
    return {
        name: {"smallest": int(column.min()), "median": round(float(np.median(column))), "largest": int(column.max())}
        for name, column in zip(("shorter", "longer"), sides.T, strict=True)
        if len(column)
    }


def find_conflicts(examples: Sequence[Example], groups: NDArray[np.intp]) -> list[tuple[Example, Example]]:
    """Images with a near duplicate in another example set: one of the two has the wrong class, or the classes overlap.

    `groups` (intp[N]) is the row of the oldest example in each example's group.
    """
    members: dict[int, list[Example]] = {}
    conflicts: list[tuple[Example, Example]] = []
    for row, group in enumerate(groups.tolist()):
        for other in members.setdefault(group, []):
            if other.set_index != examples[row].set_index:
                conflicts.append((examples[row], other))
                break
        members[group].append(examples[row])
    return conflicts
