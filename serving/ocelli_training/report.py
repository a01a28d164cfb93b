"""The report of a training for people: its data and the quality of its result, as JSON and as one page of HTML.

It is stored next to the artifact and is not part of it: it contains file names and the time of the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from ocelli_api.documents import build_document
from ocelli_api.outcome import Comparison
from ocelli_api.times import format_time
from ocelli_model.artifact import Artifact
from ocelli_storage.archives import shown_name
from ocelli_training.corrections import CorrectionCounts
from ocelli_training.dataset import Dataset, Example
from ocelli_training.evaluate import Evaluation, Protocol
from ocelli_training.fit import Recipe
from ocelli_training.label_errors import LabelErrors

FORMAT_VERSION = 2
NEAR_DUPLICATES_REPORTED = 100
OUTLIERS_REPORTED = 100
SMALL_IMAGES_REPORTED = 100
SUSPECTS_REPORTED = 1000
EXCLUDED_REPORTED = 100
_DECIMALS = 6
_MATRIX_LIMIT_CLASSES = 25
"""A larger confusion matrix is not readable: its largest errors are listed instead."""
_LISTED_LIMIT = 200


def describe_artifact(classifier: str, artifact: Artifact, backbone: str) -> dict[str, Any]:
    """What every report begins with. `classifier` is its `namespace/name`; `backbone` says why the backbone was chosen."""
    return {
        "classifier": classifier,
        "classifierID": artifact.classifier_id,
        "revision": artifact.revision,
        "trainedAt": format_time(datetime.now(UTC), timespec="seconds"),
        "backbone": {"description": backbone, "digest": artifact.backbone_digest},
        "artifactDigest": artifact.digest,
    }


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a training reports."""

    artifact: Mapping[str, Any]
    """See `describe_artifact`."""
    dataset: Dataset
    corrections: CorrectionCounts
    recipe: Recipe
    evaluation: Evaluation
    groups: NDArray[np.intp]
    """intp[N]: for each example the row of the oldest of its near duplicates, its own where it has none."""
    label_errors: LabelErrors
    """Rows are those of the examples."""
    outliers: Sequence[int]
    """Rows of the examples that are unlike those of every class, the most unlike first."""
    input_side_pixels: int
    """The shorter side of the backbone's input."""
    excluded_from_test: Sequence[Example] = ()
    """Images of the Classifier's own test set that are also examples, or near duplicates of examples."""
    comparison: Comparison | None = None
    """With the revision that served; None if there was none."""
    tuning: Mapping[str, Any] | None = None
    """Recipe and figures of fine-tuning; None: there was none."""
    before_tuning: Evaluation | None = None
    """Of the linear heads that the tuned network began with; None: no network was tuned."""

    def to_json(self) -> dict[str, Any]:
        """The contents of `report.json`."""
        examples = self.dataset.examples
        near_duplicates = [(examples[row], examples[oldest]) for row, oldest in enumerate(self.groups) if row != oldest]
        conflicts = find_conflicts(examples, self.groups)
        small = [example for example in examples if example.sides is not None and example.sides[0] < self.input_side_pixels]
        return {
            "formatVersion": FORMAT_VERSION,
            **self.artifact,
            "data": {
                "images": len(examples),
                "sets": [report.to_json() for report in self.dataset.reports],
                "corrections": self.corrections.to_json(),
                "nearDuplicatesCount": len(near_duplicates),
                "nearDuplicates": [
                    {"image": image_name(example), "oldest": image_name(oldest)}
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
                "estimatedLabelErrors": self.label_errors.estimated,
                "suspectedLabelErrorsCount": len(self.label_errors.suspects),
                "suspectedLabelErrors": [
                    {
                        "image": image_name(examples[suspect.row]),
                        "sha256": examples[suspect.row].digest,
                        "class": self._class_name(examples[suspect.row]),
                        "probability": round(suspect.given_probability, _DECIMALS),
                        "suggestedClass": self.dataset.reports[suspect.suggested].example_set.class_name,
                        "suggestedProbability": round(suspect.suggested_probability, _DECIMALS),
                    }
                    for suspect in self.label_errors.suspects[:SUSPECTS_REPORTED]
                ],
                "outliersCount": len(self.outliers),
                "outliers": [
                    {
                        "image": image_name(examples[row]),
                        "sha256": examples[row].digest,
                        "class": self._class_name(examples[row]),
                    }
                    for row in self.outliers[:OUTLIERS_REPORTED]
                ],
                "sides": _describe_sides(examples),
                "inputSidePixels": self.input_side_pixels,
                "smallImagesCount": len(small),
                "smallImages": [
                    {"image": image_name(example), "class": self._class_name(example), "sides": list(example.sides or ())}
                    for example in small[:SMALL_IMAGES_REPORTED]
                ],
            },
            "recipe": {
                "views": [str(view) for view in self.recipe.views],
                "penalty": self.recipe.penalty,
                **({} if self.tuning is None else {"fineTuning": {**self.tuning, **self._linear()}}),
            },
            "evaluation": {**self.evaluation.to_json(), **self._excluded()},
            **({} if self.comparison is None else {"comparison": build_document(self.comparison)}),
        }

    def _linear(self) -> dict[str, Any]:
        if self.before_tuning is None:
            return {}
        summary = self.before_tuning.summary()
        return {"linearAccuracy": summary["accuracy"], "linearAccuracyInterval": summary["accuracyInterval"]}

    def _excluded(self) -> dict[str, Any]:
        if self.evaluation.protocol is not Protocol.TEST_SET:
            return {}
        return {"excluded": [image_name(example) for example in self.excluded_from_test[:EXCLUDED_REPORTED]]}

    def _class_name(self, example: Example) -> str | None:
        return self.dataset.reports[example.set_index].example_set.class_name


def image_name(example: Example) -> str:
    """An example as reports name it: its source, and the file in it."""
    return f"{example.source} › {shown_name(example.name)}"


def _describe_sides(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Smallest, median and largest of the shorter and of the longer sides, in pixels."""
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


def render_page(report: Mapping[str, Any]) -> str:
    """The contents of `report.json` as one self-contained HTML page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["class_name"] = lambda name: "none of the classes" if name is None else name
    environment.filters["set_name"] = lambda name: "negative examples" if name is None else name
    template = environment.from_string(resources.files("ocelli_training").joinpath("report.html").read_text(encoding="utf-8"))
    evaluation = report["evaluation"]
    names = [item["class"] for item in report["data"]["sets"]]
    return template.render(
        report=report,
        names=names if len(names) <= _MATRIX_LIMIT_CLASSES else None,
        cells={(cell["actual"], cell["predicted"]): cell["images"] for cell in evaluation["confusion"]},
        largest_errors=_largest_errors(evaluation["confusion"]),
        listed_limit=_LISTED_LIMIT,
    )


def _largest_errors(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    errors = [cell for cell in cells if cell["actual"] != cell["predicted"]]
    return sorted(errors, key=lambda cell: -int(cell["images"]))[:_LISTED_LIMIT]
