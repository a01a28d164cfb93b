"""The trainer's outcome as a stored document and as a termination message."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ocelli_api.documents import parse_fields
from ocelli_api.outcome import (
    Comparison,
    Outcome,
    OutcomeReason,
    ProgressReport,
    parse_comparison,
    parse_termination_message,
)


def make_outcome(message: str = "Learned from 100 images") -> Outcome:
    return Outcome(
        reason=OutcomeReason.SUCCEEDED,
        message=message,
        revision="0123456789",
        attempt=3,
        accuracy=0.93,
        accuracy_interval=(0.874, 0.967),
        judged_images=100,
        artifact_digest="a" * 64,
        backbone="EfficientNetLite0",
        backbone_digest="b" * 64,
        finished_at="2026-01-02T03:04:05.678Z",
    )


COMPARED = Comparison(baseline="aaaaaaaaaa", drop=0.083, drop_interval=(0.031, 0.135), images=240, reclassified=12)
NOT_COMPARABLE = Comparison(baseline="aaaaaaaaaa", fault="no image that neither learned from was judged by both")


@pytest.mark.parametrize("comparison", [COMPARED, NOT_COMPARABLE], ids=["figures", "fault"])
def test_a_comparison_survives_the_termination_message(comparison: Comparison) -> None:
    outcome = replace(make_outcome("x" * 10_000), comparison=comparison)
    parsed = parse_termination_message(outcome.to_termination_message())
    assert parsed is not None
    assert parsed.comparison == comparison


@pytest.mark.parametrize(
    "document",
    [
        7,
        {},
        {"drop": 0.1, "dropInterval": [0, 0.2], "images": 9},
        {"baseline": "aaaaaaaaaa"},
        {"baseline": "a" * 11, "drop": 0.1, "dropInterval": [0, 0.2], "images": 9},
        {"baseline": "aaaaaaaaaa", "drop": 1.1, "dropInterval": [0, 0.2], "images": 9},
        {"baseline": "aaaaaaaaaa", "drop": True, "dropInterval": [0, 0.2], "images": 9},
        {"baseline": "aaaaaaaaaa", "drop": 0.1, "dropInterval": [0], "images": 9},
        {"baseline": "aaaaaaaaaa", "drop": 0.1, "dropInterval": [0, float("nan")], "images": 9},
        {"baseline": "aaaaaaaaaa", "drop": 0.1, "dropInterval": [0, 0.2], "images": 0},
        {"baseline": "aaaaaaaaaa", "drop": 0.1, "dropInterval": [0, 0.2], "images": 2**40},
        {"baseline": "aaaaaaaaaa", "drop": 0.1, "dropInterval": [0, 0.2], "images": 9, "reclassified": -1},
        {"baseline": "aaaaaaaaaa", "fault": "x" * 513},
    ],
    ids=str,
)
def test_a_comparison_that_status_could_not_hold_counts_as_none(document: object) -> None:
    assert parse_comparison(document) is None


def test_an_outcome_survives_the_termination_message() -> None:
    assert parse_termination_message(make_outcome().to_termination_message()) == make_outcome()


@pytest.mark.parametrize("message", ["x" * 10_000, "犬" * 10_000, '"\\' * 5_000])
def test_a_long_message_is_cut_and_the_rest_survives(message: str) -> None:
    text = make_outcome(message).to_termination_message()
    parsed = parse_termination_message(text)
    assert len(text.encode()) <= 2048
    assert parsed is not None
    assert (parsed.artifact_digest, parsed.accuracy_interval, parsed.judged_images) == ("a" * 64, (0.874, 0.967), 100)


def test_an_outcome_of_an_earlier_release_is_read_and_written_unchanged() -> None:
    stored = {"reason": "Succeeded", "message": "Learned", "revision": "0123456789", "attempt": 3, "accuracy": 0.93}
    outcome = parse_fields(Outcome, stored)
    assert (outcome.accuracy_interval, outcome.judged_images) == (None, None)
    assert outcome.to_json() == stored


@pytest.mark.parametrize("interval", [0.9, [0.9], [0.8, 0.9, 1.0], True], ids=str)
def test_an_invalid_interval_makes_an_outcome_invalid(interval: object) -> None:
    text = json.dumps({**make_outcome().to_json(), "accuracyInterval": interval})
    assert parse_termination_message(text) is None


@pytest.mark.parametrize("text", ["", "Killed", "[]", "{}", '{"reason": "Magic"}', '"text"', "{", "[" * 4096])
def test_other_termination_messages_are_not_outcomes(text: str) -> None:
    assert parse_termination_message(text) is None


@pytest.mark.parametrize("field", ["message", "revision", "attempt"])
@pytest.mark.parametrize("value", [7.5, None, ["text"]], ids=str)
def test_a_required_field_of_another_type_makes_an_outcome_invalid(field: str, value: object) -> None:
    assert parse_termination_message(json.dumps({**make_outcome().to_json(), field: value})) is None


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [
        ("backbone", {"name": "x"}, "backbone"),
        ("backbone", "x" * 513, "backbone"),
        ("finishedAt", "yesterday", "finished_at"),
        ("finishedAt", "2026-13-45T00:00:00Z", "finished_at"),
        ("finishedAt", 7, "finished_at"),
    ],
)
def test_a_value_that_a_status_cannot_hold_is_left_out_of_an_outcome(key: str, value: object, attribute: str) -> None:
    outcome = parse_termination_message(json.dumps({**make_outcome().to_json(), key: value}))
    assert outcome is not None
    assert getattr(outcome, attribute) is None


def test_an_estimate_that_is_not_a_time_is_left_out_of_progress() -> None:
    document = {"stage": "Reading", "percent": 5, "dataValid": True, "estimatedCompletion": "soon"}
    assert parse_fields(ProgressReport, document).estimated_completion is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", -1), ("images", True), ("imagesTotal", 2**31), ("device", "x" * 65), ("device", 3), ("accuracy", 1.1)],
)
def test_progress_that_status_cannot_show_is_left_out(name: str, value: object) -> None:
    usable = {"stage": "Reading", "percent": 5, "dataValid": True}
    assert parse_fields(ProgressReport, {**usable, name: value}) == parse_fields(ProgressReport, usable)


@pytest.mark.parametrize("message", ["a\ud83d.jpg", "\udcff" * 3000])
def test_half_of_a_surrogate_pair_in_a_message_is_replaced(message: str) -> None:
    read = parse_fields(Outcome, {**make_outcome().to_json(), "message": message})
    sent = parse_termination_message(make_outcome(message).to_termination_message())
    assert sent is not None
    assert read.message == message.replace("\ud83d", "\ufffd").replace("\udcff", "\ufffd")
    assert sent.message.rstrip("…") == read.message[: len(sent.message.rstrip("…"))]


def test_an_emoji_in_a_message_survives_the_termination_message() -> None:
    outcome = make_outcome("damaged: \U0001f436.jpg")
    assert parse_termination_message(outcome.to_termination_message()) == outcome
