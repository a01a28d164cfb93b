"""The operations about the quality of revisions, as a table. They belong to the management API, see `management_operations`.

It must not know how operations are carried out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ocelli_gateway import fields, quality_fields
from ocelli_gateway.fields import Field
from ocelli_gateway.management_fields import REVISION
from ocelli_gateway.operation import Answer, Operation, Tag
from ocelli_gateway.operations import ALWAYS, NOT_FOUND

_REVISION_EXAMPLE, _OTHER_EXAMPLE = "0f3a9c1d2e", "5b60c1d3aa"
_IMAGE_EXAMPLE = "9f" * 32
_NOTHING_STORED = replace(NOT_FOUND, description="There is no such classifier or revision, or nothing of the kind is stored.")


def _operation(name: str, address: str, answer: Answer, *more: Field[Any], summary: str, description: str) -> Operation:
    return Operation(
        name=name,
        method="GET",
        path=f"/ocelli/v1/classifiers/{{classifier_id}}/revisions/{{revision}}/{address}",
        summary=summary,
        description=description,
        fields=(fields.CLASSIFIER_ID, REVISION, *more),
        answers=(answer, *ALWAYS, _NOTHING_STORED),
        tag=Tag.MANAGEMENT,
    )


GET_EVALUATION = _operation(
    "getEvaluation",
    "evaluation",
    Answer(
        status=200,
        description="The metrics.",
        schema="Evaluation",
        example={
            "revision": _REVISION_EXAMPLE,
            "trained": "2026-04-02T08:16:31.000Z",
            "protocol": "CrossValidation",
            "images": 40,
            "accuracy": {"value": 0.95, "lower": 0.81, "upper": 0.98, "images": 40},
            "calibration_error": 0.04,
            "has_negatives": False,
            "classes": [{"class": "owl", "images": 20, "precision": 0.9, "recall": 0.95, "f1": 0.924324}],
            "confusion": [{"actual": "owl", "predicted": "owl", "images": 19}],
        },
    ),
    summary="Get the evaluation of a revision",
    description=(
        "The accuracy is that of the training's report: balanced over the classes, near duplicates count as one image. Classes "
        "and confusion matrix are those of the images whose scores are still stored; the images of a cell are listed by "
        "`listJudgedImages` with its `actual` and `predicted`."
    ),
)
LIST_JUDGED_IMAGES = _operation(
    "listJudgedImages",
    "images",
    Answer(
        status=200,
        description="The images of this page, and the total.",
        schema="JudgedImages",
        example={
            "revision": _REVISION_EXAMPLE,
            "total": 1,
            "images": [
                {
                    "image": _IMAGE_EXAMPLE,
                    "name": "owls.zip › barn.jpg",
                    "actual": "owl",
                    "predicted": "heron",
                    "scores": {"heron": 0.81, "owl": 0.32},
                    "test_set": False,
                    "thumbnail": True,
                }
            ],
        },
    ),
    quality_fields.ACTUAL,
    quality_fields.PREDICTED,
    quality_fields.WRONG,
    quality_fields.TEST,
    quality_fields.SORT,
    quality_fields.LIMIT,
    quality_fields.OFFSET,
    summary="List the judged images of a revision",
    description="Their scores are judged scores: of heads that did not learn from the image. The served scores may differ.",
)
GET_JUDGED_SCORES = _operation(
    "getJudgedScores",
    "scores",
    Answer(
        status=200,
        description="The scores, an image in each row.",
        schema="JudgedScores",
        example={
            "revision": _REVISION_EXAMPLE,
            "classes": ["heron", "owl"],
            "has_negatives": False,
            "actual": [1],
            "scores": [[0.81, 0.32]],
            "images": [_IMAGE_EXAMPLE],
        },
    ),
    summary="Get all judged scores of a revision",
    description="Of the images that its evaluation is about, at most 5,000 images and 500,000 scores: otherwise a sample.",
)
GET_DATA_REPORT = _operation(
    "getDataReport",
    "data",
    Answer(
        status=200,
        description="What was found in the images.",
        schema="DataReport",
        example={
            "revision": _REVISION_EXAMPLE,
            "of": "training",
            "written": "2026-04-02T08:16:31.000Z",
            "images": 40,
            "sets": [
                {
                    "class": "owl",
                    "images": 20,
                    "files": 21,
                    "duplicates_count": 0,
                    "skipped_count": 1,
                    "skipped": [{"name": "owls.zip › notes.txt", "reason": "NotAnImage"}],
                    "given_away_count": 0,
                    "given_away": [],
                }
            ],
            "near_duplicates_count": 0,
            "near_duplicates": [],
            "conflicts_count": 0,
            "conflicts": [],
            "suspected_label_errors_count": 1,
            "suspected_label_errors": [
                {
                    "image": _IMAGE_EXAMPLE,
                    "name": "owls.zip › barn.jpg",
                    "class": "owl",
                    "probability": 0.08,
                    "suggested_class": "heron",
                    "suggested_probability": 0.91,
                    "thumbnail": True,
                }
            ],
            "outliers_count": 0,
            "outliers": [],
            "small_images_count": 0,
            "small_images": [],
            "corrections": {"relabelled": 0, "dropped": 0, "unchanged": 0, "unknown_count": 0},
        },
    ),
    summary="Get the report on the images of a revision",
    description="That of its training, or of its check where it was not trained yet. Lists are bounded; counts are totals.",
)
COMPARE_REVISIONS = _operation(
    "compareRevisions",
    "compare/{other}",
    Answer(
        status=200,
        description="What got better, and what worse.",
        schema="RevisionComparison",
        example={
            "revision": _REVISION_EXAMPLE,
            "other": _OTHER_EXAMPLE,
            "images": 40,
            "accuracy": {_REVISION_EXAMPLE: 0.95, _OTHER_EXAMPLE: 0.925},
            "better_count": 1,
            "worse_count": 0,
            "better": [
                {
                    "image": _IMAGE_EXAMPLE,
                    "actual": "owl",
                    "predicted": {_REVISION_EXAMPLE: "owl", _OTHER_EXAMPLE: "heron"},
                    "thumbnail": True,
                }
            ],
            "worse": [],
            "only_in": {_REVISION_EXAMPLE: 10, _OTHER_EXAMPLE: 0},
        },
    ),
    quality_fields.OTHER_REVISION,
    summary="Compare two revisions",
    description=(
        "On the images that both were judged on, with the classes that they have in the first one. `better` are those that "
        "only the first one predicts correctly, at most 500; `worse` those that only the other one does."
    ),
)
GET_THUMBNAILS = _operation(
    "getThumbnails",
    "thumbnails",
    Answer(
        status=200,
        description="The thumbnails that there are.",
        schema="Thumbnails",
        example={"thumbnails": {_IMAGE_EXAMPLE: "/9j/4AAQ"}},
    ),
    quality_fields.IMAGES,
    summary="Get thumbnails of images of a revision",
    description="JPEG files in base64, with sides of at most 128 pixels. Images without one are left out.",
)
