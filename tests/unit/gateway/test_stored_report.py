"""Reports as people see them: which fields are taken, and what a hostile report cannot do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocelli_gateway import stored_report
from ocelli_gateway.stored_report import StoredReportError, parse_report

DIGEST, OTHER = "1" * 64, "2" * 64
IMAGE = {"image": "owls.zip › barn.jpg", "sha256": DIGEST, "class": "owl"}


def make_report(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "images": 40,
        "sets": [
            {
                "class": "owl",
                "files": 21,
                "usable": 20,
                "distinct": 20,
                "duplicates": 0,
                "skippedCount": 1,
                "skipped": [{"source": "owls.zip", "name": "notes.txt", "reason": "NotAnImage"}],
                "givenAwayCount": 0,
                "givenAway": [],
            }
        ],
        "corrections": {"relabelled": 1, "dropped": 0, "unchanged": 0, "unknownCount": 0, "unknown": []},
        "nearDuplicatesCount": 0,
        "nearDuplicates": [],
        "conflictsCount": 1,
        "conflicts": [
            {**IMAGE, "nearDuplicate": "herons.zip › x.jpg", "nearDuplicateSHA256": OTHER, "nearDuplicateClass": None}
        ],
        "suspectedLabelErrorsCount": None,
        "suspectedLabelErrors": [],
        "outliersCount": 1,
        "outliers": [IMAGE],
        "smallImagesCount": 0,
        "smallImages": [],
        **changes,
    }
    return {
        "trainedAt": "2026-05-04T11:50:00Z",
        "data": data,
        "evaluation": {
            "protocol": "CrossValidation",
            "images": 40,
            "accuracy": 0.9,
            "accuracyInterval": [0.8, 0.95],
            "calibrationError": 0.1,
            "misclassified": [{"image": "owls.zip › barn.jpg", "sha256": DIGEST}],
        },
    }


def parse(document: Any) -> stored_report.StoredReport:
    return parse_report(json.dumps(document).encode())


def test_names_of_listed_images_are_known() -> None:
    assert parse(make_report()).names == {DIGEST: "owls.zip › barn.jpg", OTHER: "herons.zip › x.jpg"}


def test_lists_have_digests_as_images_and_names_apart() -> None:
    data = parse(make_report()).data
    assert data["conflicts"] == [
        {
            "image": DIGEST,
            "name": "owls.zip › barn.jpg",
            "class": "owl",
            "near_duplicate": OTHER,
            "near_duplicate_name": "herons.zip › x.jpg",
            "near_duplicate_class": None,
        }
    ]
    assert data["sets"][0]["skipped"] == [{"name": "owls.zip › notes.txt", "reason": "NotAnImage"}]


def test_what_was_not_looked_for_is_left_out() -> None:
    data = parse(make_report()).data
    assert "suspected_label_errors_count" not in data
    assert data["outliers_count"] == 1


def test_a_check_has_faults_and_no_evaluation() -> None:
    document = make_report()
    del document["evaluation"], document["trainedAt"]
    report = parse({**document, "checkedAt": "2026-05-04T11:50:00Z", "faultsCount": 1, "faults": ['class "owl" has 1']})
    assert (report.evaluation, report.written_at) == (None, "2026-05-04T11:50:00.000Z")
    assert report.faults == {"faults_count": 1, "faults": ['class "owl" has 1']}


def test_an_accuracy_of_an_earlier_release_is_not_taken() -> None:
    assert parse({**make_report(), "evaluation": {"accuracy": 0.9, "images": 3}}).evaluation is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"data": 7}',
        b'{"trainedAt": "yesterday"}',
        b'{"trainedAt": "2026-05-04T11:50:00"}',
        b'{"evaluation": {"accuracyInterval": [0, 1, 2]}}',
        b'{"evaluation": {"accuracyInterval": [0, 1], "protocol": "<img>", "images": 1, "accuracy": 1}}',
        b'{"evaluation": {"accuracyInterval": [0, 1], "protocol": "TestSet", "images": 1, "accuracy": NaN}}',
    ],
)
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(StoredReportError):
        parse_report(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": -1},
        {"images": True},
        {"images": 10**400},
        {"sets": {"class": "owl"}},
        {"outliers": [{**IMAGE, "sha256": "<img onerror=x>"}]},
        {"outliers": [{**IMAGE, "image": ["owls"]}]},
        {"outliers": [7]},
    ],
    ids=["negative", "true", "huge", "no list", "no digest", "no name", "no image"],
)
def test_odd_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StoredReportError):
        parse(make_report(**changes))


def test_a_document_of_many_values_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_report, "parse_document", None)
    with pytest.raises(StoredReportError, match="too many values"):
        parse_report(b"[" + b"[]," * 700_000 + b"0]")


def test_lists_of_an_answer_are_bounded() -> None:
    data = parse(make_report(outliers=[IMAGE] * 3000, outliersCount=3000)).data
    assert (len(data["outliers"]), data["outliers_count"]) == (1000, 3000)


def test_lone_surrogates_in_names_are_replaced() -> None:
    report = parse(make_report(outliers=[{**IMAGE, "image": "a\ud800b"}]))
    assert report.data["outliers"][0]["name"] == "a?b"
