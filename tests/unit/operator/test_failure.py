"""The record of the last failure: read from status as every release wrote it, and written back unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.classifier import parse_classifier
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_api.conditions import Condition, ConditionStatus, ConditionType, StalledReason
from ocelli_operator.actions import StartTraining
from ocelli_operator.failure import LastFailure, failed_learning, find_last_failure, record_last_failure
from ocelli_operator.observed import Observed
from ocelli_operator.plan import plan_classifier
from tests.gitops.states import load_object
from tests.unit.operator.factories import NOW, make_settings

FAILURE = LastFailure(
    failure=failed_learning(StalledReason.TRAINING_FAILED, "no"), revision="0123456789", retrain_nonce=3, training_hash="ab"
)
STALLED = Condition(type=ConditionType.STALLED, status=ConditionStatus.TRUE, reason=StalledReason.TRAINING_FAILED, message="no")


def test_a_recorded_failure_is_found_with_its_conditions() -> None:
    status = record_last_failure(ClassifierStatus(conditions=(STALLED,)), FAILURE)
    assert find_last_failure(status) == FAILURE


@pytest.mark.parametrize("conditions", [(), (replace(STALLED, status=ConditionStatus.FALSE),)])
def test_nothing_has_failed_while_nothing_is_stalled(conditions: tuple[Condition, ...]) -> None:
    assert find_last_failure(record_last_failure(ClassifierStatus(conditions=conditions), FAILURE)) is None


def test_a_cleared_record_is_not_found() -> None:
    status = record_last_failure(ClassifierStatus(conditions=(STALLED,)), FAILURE)
    assert find_last_failure(record_last_failure(status, None)) is None


@pytest.mark.parametrize(
    "state", ["invalid-data", "source-unreadable", "training-failed", "retraining-failed", "pretrained-without-weights"]
)
def test_a_failure_that_an_earlier_release_stored_is_neither_lost_nor_tried_again(state: str) -> None:
    classifier = parse_classifier(load_object(state))
    plan = plan_classifier(Observed(classifier=classifier, now=NOW), make_settings())
    assert [action for action in plan.actions if isinstance(action, StartTraining)] == []
    assert plan.status.condition(ConditionType.STALLED) == classifier.status.condition(ConditionType.STALLED)
    assert find_last_failure(plan.status) == find_last_failure(classifier.status)
