"""The report of a training for people: what it was learned from and how good it is, as JSON and as one page of HTML.

It lies beside the artifact and is not part of it: it names files, and says when the training was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from ocelli_storage.archives import shown_name
from ocelli_training.dataset import Dataset, Example
from ocelli_training.evaluate import Evaluation
from ocelli_training.fit import Fit, Protocol
from ocelli_training.near_duplicates import have_near_duplicate

FORMAT_VERSION = 1
NEAR_DUPLICATES_REPORTED = 100
_MATRIX_LIMIT_CLASSES = 25
"""A wider confusion matrix nobody reads: its largest errors are listed instead."""
_LISTED_LIMIT = 200
_NONE_OF_THEM = "none of the classes"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a training has to tell."""

    classifier: str
    """`namespace/name`."""
    classifier_id: str
    revision: str
    trained_at: datetime
    backbone: str
    """With why it was taken."""
    backbone_digest: str
    artifact_digest: str
    dataset: Dataset
    evaluation: Evaluation
    near_duplicates: tuple[Example, ...]
    """Evaluated images that have a near duplicate among those learned from."""

    def to_json(self) -> dict[str, Any]:
        """The contents of `report.json`."""
        return {
            "formatVersion": FORMAT_VERSION,
            "classifier": self.classifier,
            "classifierID": self.classifier_id,
            "revision": self.revision,
            "trainedAt": self.trained_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "backbone": {"description": self.backbone, "digest": self.backbone_digest},
            "artifactDigest": self.artifact_digest,
            "data": {
                "images": len(self.dataset.examples),
                "sets": [report.to_json() for report in self.dataset.reports],
                "nearDuplicatesCount": len(self.near_duplicates),
                "nearDuplicates": [image_name(example) for example in self.near_duplicates[:NEAR_DUPLICATES_REPORTED]],
            },
            "evaluation": self.evaluation.to_json(),
        }


def image_name(example: Example) -> str:
    """An example as reports name it: its source, and the file in it."""
    return f"{example.source} › {shown_name(example.name)}"


def find_near_duplicates(dataset: Dataset, prints: NDArray[np.float32], fit: Fit) -> tuple[Example, ...]:
    """Evaluated images with a near duplicate among those that their judges learned from: they flatter the evaluation.

    Only those of the same example set: a copy in another one misleads, and does not flatter. With cross-validation, among all
    other images: most of those were learned from by its judges. `prints` are the fingerprints of the dataset's examples.
    """
    sets = np.array([example.set_index for example in dataset.examples])
    judged = np.zeros(len(prints), dtype=np.bool_)
    judged[fit.evaluated_rows] = True
    learned, own_matches = (~judged, 0) if fit.protocol is Protocol.HOLDOUT else (np.ones_like(judged), 1)
    leaked = np.zeros_like(judged)
    for set_index in range(len(dataset.reports)):
        rows = np.flatnonzero(judged & (sets == set_index))
        candidates = prints[learned & (sets == set_index)]
        leaked[rows] = have_near_duplicate(prints[rows], candidates, least_matches=own_matches + 1)
    return tuple(dataset.examples[row] for row in np.flatnonzero(leaked))


def render_page(report: Mapping[str, Any]) -> str:
    """One page of HTML that needs nothing else, from the contents of `report.json`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["class_name"] = lambda name: _NONE_OF_THEM if name is None else name
    template = environment.from_string(resources.files("ocelli_training").joinpath("report.html").read_text(encoding="utf-8"))
    evaluation = report["evaluation"]
    names = [item["class"] for item in report["data"]["sets"]]
    return template.render(
        report=report,
        names=names if len(names) <= _MATRIX_LIMIT_CLASSES else None,
        cells={(cell["actual"], cell["predicted"]): cell["images"] for cell in evaluation["confusion"]},
        largest_errors=_largest_errors(evaluation["confusion"]),
        listed_limit=_LISTED_LIMIT,
        held_out=evaluation["protocol"] == Protocol.HOLDOUT,
    )


def _largest_errors(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    errors = [cell for cell in cells if cell["actual"] != cell["predicted"]]
    return sorted(errors, key=lambda cell: -int(cell["images"]))[:_LISTED_LIMIT]
