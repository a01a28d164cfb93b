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
from markupsafe import Markup

from ocelli_api.documents import build_document
from ocelli_api.outcome import Comparison, EvaluationProtocol
from ocelli_api.times import format_time
from ocelli_model.artifact import Artifact
from ocelli_training.data_report import DataReport, image_name
from ocelli_training.dataset import Example
from ocelli_training.evaluate import Evaluation
from ocelli_training.fit import Recipe
from ocelli_training.settings import TrainerSettings

FORMAT_VERSION = 2
EXCLUDED_REPORTED = 100
_DECIMALS = 6
_MATRIX_LIMIT_CLASSES = 25
"""A larger confusion matrix is not readable: its largest errors are listed instead."""
_LISTED_LIMIT = 200


def describe_artifact(settings: TrainerSettings, artifact: Artifact, backbone: str) -> dict[str, Any]:
    """What every report begins with. `backbone` says why the backbone was chosen."""
    return {
        "classifier": settings.classifier,
        "classifierID": settings.classifier_id,
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
    data: DataReport
    recipe: Recipe
    evaluation: Evaluation
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
        return {
            "formatVersion": FORMAT_VERSION,
            **self.artifact,
            "data": self.data.to_json(),
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
        if self.evaluation.protocol is not EvaluationProtocol.TEST_SET:
            return {}
        return {"excluded": [image_name(example) for example in self.excluded_from_test[:EXCLUDED_REPORTED]]}


def render_page(report: Mapping[str, Any], thumbnails: Mapping[str, str] | None = None) -> str:
    """The contents of `report.json` as one self-contained HTML page. `thumbnails` are lines of HTML by digest."""
    names = [item["class"] for item in report["data"]["sets"]]
    confusion = report["evaluation"]["confusion"]
    return _render(
        "report.html",
        thumbnails or {},
        report=report,
        names=names if len(names) <= _MATRIX_LIMIT_CLASSES else None,
        cells={(cell["actual"], cell["predicted"]): cell["images"] for cell in confusion},
        largest_errors=_largest_errors(confusion),
    )


def render_check_page(report: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
    """The report of a check as one self-contained HTML page."""
    return _render("check.html", thumbnails, report=report)


def _render(template: str, thumbnails: Mapping[str, str], **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_load_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["class_name"] = lambda name: "none of the classes" if name is None else name
    environment.filters["set_name"] = lambda name: "negative examples" if name is None else name
    # Each on a line of its own, see `ocelli_storage.thumbnails`. Built from bytes and keys only, so they need no escaping.
    environment.filters["thumbnail"] = lambda digest: Markup(f"\n{thumbnails[digest]}\n") if digest in thumbnails else ""
    return environment.get_template(template).render(listed_limit=_LISTED_LIMIT, **values)


def _load_template(name: str) -> str:
    return resources.files("ocelli_training").joinpath(name).read_text(encoding="utf-8")


def _largest_errors(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    errors = [cell for cell in cells if cell["actual"] != cell["predicted"]]
    return sorted(errors, key=lambda cell: -int(cell["images"]))[:_LISTED_LIMIT]
