"""May a trained revision serve? Every answer of `spec.promotion`, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.classifier import Classifier
from ocelli_api.classifier_status import AccuracyDrop, ClassifierStatus, HistoryEntry, RevisionComparison
from ocelli_api.revision import spec_revision
from ocelli_operator.gates import judge_revision
from ocelli_operator.status import Verdict
from tests.unit.operator.factories import CLASSIFIER_ID, make_artifact, make_classifier

OLD = "0ld0000000"


def compared(
    drop: str = "0.010",
    *,
    baseline: str = OLD,
    lower: str = "-0.020",
    upper: str = "0.040",
    reclassified: int | None = None,
) -> RevisionComparison:
    return RevisionComparison(
        baseline=baseline,
        accuracy_drop=AccuracyDrop(drop=drop, lower=lower, upper=upper),
        images=240,
        reclassified_images=reclassified,
    )


def classifier_with(served: str | None = OLD, **spec: Any) -> Classifier:
    return make_classifier(ClassifierStatus(classifier_id=CLASSIFIER_ID, served_revision=served), **spec)


def judge(
    promotion: dict[str, str],
    *,
    served: str | None = OLD,
    comparison: RevisionComparison | None = None,
    artifact: dict[str, Any] | None = None,
    **spec: Any,
) -> Verdict | None:
    """The judgement of a revision with an accuracy of 0.934."""
    classifier = classifier_with(served, promotion=promotion, **spec)
    entry = replace(make_artifact(classifier), comparison=comparison, **(artifact or {}))
    status = replace(classifier.status, history=(entry,))
    return judge_revision(replace(classifier, status=status), entry)


def revision_of(**spec: Any) -> str:
    return spec_revision(classifier_with(**spec).spec)


REVISION = revision_of()

MINIMUM = {"minAccuracy": "0.9"}
HIGH = {"minAccuracy": "0.95"}
DROP = {"maxAccuracyDrop": "0.02"}
MANUAL = {"approval": "Manual"}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "the accuracy is enough": ({"promotion": MINIMUM}, "True/GatesMet"),
    "the accuracy is exactly enough": ({"promotion": {"minAccuracy": "0.9340"}}, "True/GatesMet"),
    "the accuracy is too low": ({"promotion": HIGH}, "False/BelowMinimumAccuracy"),
    "the first revision is too low": ({"promotion": HIGH, "served": None}, "False/BelowMinimumAccuracy"),
    "an earlier release measured it": (
        {"promotion": MINIMUM, "artifact": {"accuracy_interval": None}},
        "Unknown/NotComparable",
    ),
    "it was not measured": ({"promotion": MINIMUM, "artifact": {"accuracy": None}}, "Unknown/NotComparable"),
    "it drops less than allowed": ({"promotion": DROP, "comparison": compared()}, "True/GatesMet"),
    "it drops exactly as much as allowed": ({"promotion": DROP, "comparison": compared("0.020")}, "True/GatesMet"),
    "it drops more than allowed": ({"promotion": DROP, "comparison": compared("0.021")}, "False/Regressed"),
    "it is better, and no drop is allowed": (
        {"promotion": {"maxAccuracyDrop": "0"}, "comparison": compared("-0.100", lower="-0.200", upper="0.000")},
        "True/GatesMet",
    ),
    "nothing served when it was trained": ({"promotion": DROP, "served": None}, "True/GatesMet"),
    "it was not compared": ({"promotion": DROP}, "Unknown/NotComparable"),
    "it could not be compared": (
        {"promotion": DROP, "comparison": RevisionComparison(baseline=OLD, fault="they have no common image")},
        "Unknown/NotComparable",
    ),
    "it was compared with another revision": (
        {"promotion": DROP, "comparison": compared(baseline="1111111111")},
        "Unknown/NotComparable",
    ),
    "the accuracy comes before the drop": (
        {"promotion": {**HIGH, **DROP}, "comparison": compared("0.300")},
        "False/BelowMinimumAccuracy",
    ),
    "both gates are met": ({"promotion": {**MINIMUM, **DROP}, "comparison": compared()}, "True/GatesMet"),
    "it waits for approval": ({"promotion": MANUAL}, "False/AwaitingApproval"),
    "the first revision waits for approval": ({"promotion": MANUAL, "served": None}, "False/AwaitingApproval"),
    "gates come before approval": ({"promotion": {**HIGH, **MANUAL}}, "False/BelowMinimumAccuracy"),
    "it is approved": ({"promotion": MANUAL, "approvedRevision": REVISION}, "True/Approved"),
    "another one is approved": ({"promotion": MANUAL, "approvedRevision": OLD.replace("l", "1")}, "False/AwaitingApproval"),
    "it is approved although it is too low": ({"promotion": HIGH, "approvedRevision": REVISION}, "True/Approved"),
    "it is approved although it regressed": (
        {"promotion": DROP, "comparison": compared("0.300"), "approvedRevision": REVISION},
        "True/Approved",
    ),
    "it is pinned": ({"promotion": {**HIGH, **MANUAL}, "pinnedRevision": REVISION}, "True/Approved"),
    "it has served before": (
        {"promotion": {**HIGH, **MANUAL}, "artifact": {"promoted_at": "2026-05-04T11:50:00.000Z"}},
        "True/ServedBefore",
    ),
    "it serves, and the minimum was raised since": ({"promotion": HIGH, "served": REVISION}, "True/ServedBefore"),
    "it serves, and was compared with the one before": (
        {"promotion": DROP, "served": REVISION, "comparison": compared()},
        "True/GatesMet",
    ),
    "it was the first, and is rolled back to": (
        {"promotion": DROP, "artifact": {"promoted_at": "2026-05-04T11:50:00.000Z"}},
        "True/GatesMet",
    ),
    "it was promoted, and is rolled back to": (
        {
            "promotion": DROP,
            "comparison": compared(baseline="1111111111"),
            "artifact": {"promoted_at": "2026-05-04T11:50:00.000Z"},
        },
        "True/GatesMet",
    ),
    "it serves, and was the first": ({"promotion": DROP, "served": REVISION}, "True/GatesMet"),
}


@pytest.mark.parametrize("what", CASES)
def test_whether_a_revision_may_serve(what: str) -> None:
    arguments, expected = CASES[what]
    verdict = judge(**arguments)
    assert verdict is not None
    assert f"{verdict.status}/{verdict.reason}" == expected


def test_nothing_is_judged_where_the_spec_asks_for_nothing() -> None:
    assert judge({}) is None
    assert judge({"approval": "Automatic"}) is None


MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "the accuracy is too low": (
        {"promotion": HIGH},
        f"Classifier team-a/dogs: revision {REVISION} has an accuracy of 0.934 (95 % interval 0.871 to 0.967, 100 images "
        f"judged), which is 0.016 less than spec.promotion.minAccuracy, 0.95; revision {OLD} continues to serve; improve the "
        f'examples, lower minAccuracy, or set spec.approvedRevision to "{REVISION}"',
    ),
    "it drops more than allowed": (
        {"promotion": DROP, "comparison": compared("0.083", lower="0.031", upper="0.135")},
        f"Classifier team-a/dogs: revision {REVISION} is 0.083 less accurate than revision {OLD} on 240 images that neither "
        "learned from (95 % interval of the drop 0.031 to 0.135), and spec.promotion.maxAccuracyDrop is 0.02; "
        f"revision {OLD} continues to serve; improve the examples, raise maxAccuracyDrop, or set spec.approvedRevision to "
        f'"{REVISION}"',
    ),
    "images are left out": (
        {
            "promotion": {**MINIMUM, **DROP},
            "comparison": compared("0.015", reclassified=12),
            "artifact": {"excluded_images": 4},
        },
        f"revision {REVISION} has an accuracy of 0.934 (95 % interval 0.871 to 0.967, 100 images judged, without 4 found among "
        "the examples), and spec.promotion.minAccuracy is 0.9; is 0.015 less accurate than revision 0ld0000000 on 240 images "
        "that neither learned from, without 12 whose class was changed (95 % interval of the drop -0.020 to 0.040), and "
        "spec.promotion.maxAccuracyDrop is 0.02",
    ),
    "it could not be compared": (
        {"promotion": DROP, "comparison": RevisionComparison(baseline=OLD, fault="they have no common image")},
        f"Classifier team-a/dogs: whether revision {REVISION} meets spec.promotion.maxAccuracyDrop is unknown: they have no "
        f"common image; revision {OLD} continues to serve; remove maxAccuracyDrop, or set spec.approvedRevision to "
        f'"{REVISION}"',
    ),
    "the first revision waits for approval": (
        {"promotion": {**MINIMUM, **MANUAL}, "served": None},
        f"Classifier team-a/dogs: revision {REVISION} has an accuracy of 0.934 (95 % interval 0.871 to 0.967, 100 images "
        "judged), and spec.promotion.minAccuracy is 0.9; it waits for approval, and no revision serves; "
        f'set spec.approvedRevision to "{REVISION}"',
    ),
    "it is better": (
        {"promotion": DROP, "comparison": compared("-0.050", lower="-0.090", upper="-0.010")},
        f"revision {REVISION} is 0.050 more accurate than revision {OLD} on 240 images that neither learned from "
        "(95 % interval of the gain 0.010 to 0.090), and spec.promotion.maxAccuracyDrop is 0.02",
    ),
    "it is approved although it is too low": (
        {"promotion": HIGH, "approvedRevision": REVISION},
        f"revision {REVISION} serves, because spec.approvedRevision names it; without that it would not: revision {REVISION} "
        "has an accuracy of 0.934 (95 % interval 0.871 to 0.967, 100 images judged), which is 0.016 less than "
        "spec.promotion.minAccuracy, 0.95",
    ),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_the_message_has_figures_and_remedy(what: str) -> None:
    arguments, expected = MESSAGES[what]
    verdict = judge(**arguments)
    assert verdict is not None
    assert verdict.message == expected


def test_the_verdict_is_the_same_before_and_after_the_switch() -> None:
    before = judge(DROP, comparison=compared())
    after = judge(DROP, comparison=compared(), served=REVISION, artifact={"promoted_at": "2026-05-04T11:50:00.000Z"})
    assert before == after


def test_promotion_is_not_part_of_the_revision() -> None:
    assert revision_of(promotion={**HIGH, **DROP, **MANUAL}, approvedRevision=REVISION) == REVISION


def test_an_entry_of_an_earlier_release_has_neither_comparison_nor_promotion() -> None:
    entry = HistoryEntry(revision=OLD, trained_at="2026-05-04T11:50:00.000Z")
    assert (entry.comparison, entry.promoted_at) == (None, None)
