"""The v3 status as a function of spec and status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.classifier import Classifier, ClassifierSpec, ExampleClass, Serving, Source
from ocelli_api.classifier_status import ClassifierStatus, HistoryEntry
from ocelli_api.conditions import Condition, ConditionStatus, ConditionType, PromotedReason, StalledReason
from ocelli_api.lifecycle import Lifecycle, find_awaited_approval, lifecycle
from ocelli_api.revision import spec_revision

SPEC = ClassifierSpec(
    classes=tuple(ExampleClass(name=name, examples=(Source(upload=name[0] * 64),)) for name in ("beagle", "collie"))
)
CURRENT = spec_revision(SPEC)
EARLIER = "0123456789"
STALLED = Condition(type=ConditionType.STALLED, status=ConditionStatus.TRUE, reason=StalledReason.TRAINING_FAILED)


def make_classifier(spec: ClassifierSpec = SPEC, **status: object) -> Classifier:
    return Classifier(
        namespace="team-a",
        name="dogs",
        uid="1",
        generation=1,
        resource_version="1",
        created_at="",
        deleted=False,
        labels={},
        annotations={},
        spec=spec,
        status=replace(ClassifierStatus(), **status),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("claim", "classifier", "expected"),
    [
        ("an object that no operator has seen is training", make_classifier(), Lifecycle.TRAINING),
        ("the first rollout is still the first training", make_classifier(served_revision=CURRENT), Lifecycle.TRAINING),
        (
            "the settled current revision is ready",
            make_classifier(served_revision=CURRENT, settled_revision=CURRENT),
            Lifecycle.READY,
        ),
        (
            "another revision than the settled one is being retrained",
            make_classifier(served_revision=EARLIER, settled_revision=EARLIER),
            Lifecycle.RETRAINING,
        ),
        (
            "an edit during the first rollout is a retraining, because something answers already",
            make_classifier(served_revision=EARLIER),
            Lifecycle.RETRAINING,
        ),
        (
            "a raised nonce is a retraining until its work has ended",
            make_classifier(replace(SPEC, retrain_nonce=1), served_revision=CURRENT, settled_revision=CURRENT),
            Lifecycle.RETRAINING,
        ),
        (
            "a nonce whose work has ended is ready",
            make_classifier(
                replace(SPEC, retrain_nonce=1), served_revision=CURRENT, settled_revision=CURRENT, observed_retrain_nonce=1
            ),
            Lifecycle.READY,
        ),
        (
            "a stalled current revision has failed",
            make_classifier(conditions=(STALLED,), failed_revision=CURRENT),
            Lifecycle.FAILED,
        ),
        (
            "a failed retraining has failed though an earlier revision serves",
            make_classifier(conditions=(STALLED,), failed_revision=CURRENT, served_revision=EARLIER, settled_revision=EARLIER),
            Lifecycle.FAILED,
        ),
        (
            "a new nonce after a failure is a training again",
            make_classifier(replace(SPEC, retrain_nonce=1), conditions=(STALLED,), failed_revision=CURRENT),
            Lifecycle.TRAINING,
        ),
        (
            "a new revision after a failure is a training again",
            make_classifier(conditions=(STALLED,), failed_revision=EARLIER),
            Lifecycle.TRAINING,
        ),
        (
            "scaling changes nothing",
            make_classifier(replace(SPEC, serving=Serving(replicas=3)), served_revision=CURRENT, settled_revision=CURRENT),
            Lifecycle.READY,
        ),
        (
            "a pinned revision that is settled is ready",
            make_classifier(replace(SPEC, pinned_revision=EARLIER), served_revision=EARLIER, settled_revision=EARLIER),
            Lifecycle.READY,
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " in value else "",
)
def test_v3_status(claim: str, classifier: Classifier, expected: Lifecycle) -> None:
    assert lifecycle(classifier) is expected, claim


def awaiting(revision: str, reason: PromotedReason = PromotedReason.AWAITING_APPROVAL) -> Classifier:
    """A Classifier whose condition `Promoted` is about this revision."""
    condition = Condition(type=ConditionType.PROMOTED, status=ConditionStatus.FALSE, reason=reason)
    return make_classifier(history=(HistoryEntry(revision=revision, trained_at=""),), conditions=(condition,))


@pytest.mark.parametrize(
    ("claim", "classifier", "expected"),
    [
        ("the trained revision is to be approved", awaiting(CURRENT), True),
        ("an edit is being trained, and only the one before it is to be approved", awaiting(EARLIER), False),
        ("a gate is not met", awaiting(CURRENT, PromotedReason.REGRESSED), False),
        ("nothing is asked for", make_classifier(), False),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_whether_an_approval_is_awaited(claim: str, classifier: Classifier, expected: bool) -> None:
    assert (find_awaited_approval(classifier) is not None) is expected, claim
    assert lifecycle(classifier) is Lifecycle.TRAINING
