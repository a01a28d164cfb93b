"""Gates: whether a trained revision may serve, according to `spec.promotion`. Pure.

Only revisions that have never served are judged. One that has served, that is pinned, or that a person approved serves without
a gate: a person decided, or the gates were met before. Gates compare figures as status shows them, with three decimals, so that
nobody sees an accuracy of 0.700 refused by a minimum of 0.7.

Where a figure that a gate needs does not exist, the gate is not met: a check that was not made must not look like one that was
passed. An approval is the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from ocelli_api.classifier import Approval, Classifier, Promotion
from ocelli_api.classifier_status import AccuracyDrop, ClassifierStatus, HistoryEntry
from ocelli_api.conditions import ConditionStatus, PromotedReason, StalledReason
from ocelli_operator.failure import Failure
from ocelli_operator.learning import Learning
from ocelli_operator.snapshot import Snapshot
from ocelli_operator.status import Verdict, data_checked, describe_measurement, false, trained, true, unknown


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether a trained revision may serve, and what status says about that."""

    may_serve: bool
    promoted: Verdict | None = None
    """None: `spec.promotion` asks for nothing."""
    failure: Failure | None = None
    """A gate is not met. None while a revision only waits for approval: nothing has failed, and no deploy should."""


@dataclass(frozen=True, kw_only=True)
class _Unmet:
    """A gate that is not met."""

    reason: PromotedReason
    fact: str
    remedy: str
    """What to do about it, apart from an approval."""


def judge_promotion(snapshot: Snapshot, learning: Learning) -> Judgement:
    """Whether the current revision may serve. A revision without an artifact is not judged."""
    if learning.artifact is None:
        return Judgement(may_serve=True)
    promoted = judge_revision(snapshot.classifier, learning.artifact)
    if promoted is None or promoted.status is ConditionStatus.TRUE:
        return Judgement(may_serve=True, promoted=promoted)
    if promoted.reason == PromotedReason.AWAITING_APPROVAL:
        return Judgement(may_serve=False, promoted=promoted)
    spec = snapshot.classifier.spec
    failure = Failure(
        reason=StalledReason(promoted.reason),
        message=promoted.message,
        data_valid=data_checked(spec),
        trained=trained(spec, snapshot.current, learning.artifact),
    )
    return Judgement(may_serve=False, promoted=promoted, failure=failure)


def judge_revision(classifier: Classifier, artifact: HistoryEntry) -> Verdict | None:
    """`Promoted` for a trained revision; None if `spec.promotion` asks for nothing."""
    spec, status, revision = classifier.spec, classifier.status, artifact.revision
    if spec.promotion == Promotion():
        return None
    has_served = revision == status.served_revision or find_promotion(status, revision) is not None
    # What has served keeps the figures that it was promoted with, whatever serves now.
    unmet = _find_unmet(spec.promotion, artifact, None if has_served else status.served_revision)
    if unmet is None and spec.promotion.approval is Approval.AUTOMATIC:
        return true(PromotedReason.GATES_MET, f"revision {revision} {_describe_met(spec.promotion, artifact)}")
    although = "" if unmet is None else f"; without that it would not: {unmet.fact}"
    if revision == spec.approved_revision:
        return true(PromotedReason.APPROVED, f"revision {revision} serves, because spec.approvedRevision names it{although}")
    if revision == spec.pinned_revision:
        return true(PromotedReason.APPROVED, f"revision {revision} serves, because spec.pinnedRevision names it{although}")
    if has_served:
        message = f"revision {revision} has served before; spec.promotion applies to revisions that have not served yet"
        return true(PromotedReason.SERVED_BEFORE, message)
    served = status.served_revision
    meanwhile = "no revision serves" if served is None else f"revision {served} continues to serve"
    approval = f'set spec.approvedRevision to "{revision}"'
    if unmet is None:
        met = _describe_met(spec.promotion, artifact)
        message = f"{classifier}: revision {revision} {met}; it waits for approval, and {meanwhile}; {approval}"
        return false(PromotedReason.AWAITING_APPROVAL, message)
    message = f"{classifier}: {unmet.fact}; {meanwhile}; {unmet.remedy}, or {approval}"
    verdict = unknown if unmet.reason is PromotedReason.NOT_COMPARABLE else false
    return verdict(unmet.reason, message)


def find_promotion(status: ClassifierStatus, revision: str) -> str | None:
    """When a revision first served; None if it never did.

    Earlier releases recorded no such time, not even of the served revision. They had no gates, so every revision that they
    trained counts as served, at the time of its training.
    """
    entries = {entry.revision: entry for entry in status.history}
    entry = entries.get(revision)
    served = None if status.served_revision is None else entries.get(status.served_revision)
    if entry is None:
        return None
    return entry.trained_at if served is not None and served.promoted_at is None else entry.promoted_at


def _find_unmet(rules: Promotion, artifact: HistoryEntry, other_served: str | None) -> _Unmet | None:
    """The first gate that is not met; `other_served` is the revision that serves instead, None if there is none."""
    if rules.min_accuracy is not None:
        unmet = _check_accuracy(rules.min_accuracy, artifact)
        if unmet is not None:
            return unmet
    # There is nothing to be worse than.
    if rules.max_accuracy_drop is None or (other_served is None and artifact.comparison is None):
        return None
    return _check_drop(rules.max_accuracy_drop, artifact, other_served)


def _check_accuracy(least: str, artifact: HistoryEntry) -> _Unmet | None:
    if artifact.accuracy is None or artifact.accuracy_interval is None:
        # Without an interval it is that of an earlier release, which was not balanced over the classes.
        return _Unmet(
            reason=PromotedReason.NOT_COMPARABLE,
            fact=(
                f"revision {artifact.revision} has no balanced accuracy, because an earlier release trained it, and "
                f"spec.promotion.minAccuracy is {least}"
            ),
            remedy="remove minAccuracy",
        )
    if Decimal(artifact.accuracy) >= Decimal(least):
        return None
    missing = Decimal(least) - Decimal(artifact.accuracy)
    return _Unmet(
        reason=PromotedReason.BELOW_MINIMUM_ACCURACY,
        fact=(
            f"revision {artifact.revision} has an accuracy of {artifact.accuracy} ({describe_measurement(artifact)}), which is "
            f"{missing} less than spec.promotion.minAccuracy, {least}"
        ),
        remedy="improve the examples, lower minAccuracy",
    )


def _check_drop(most: str, artifact: HistoryEntry, other_served: str | None) -> _Unmet | None:
    revision, fault = artifact.revision, _find_fault(artifact, other_served)
    if fault is not None:
        return _Unmet(
            reason=PromotedReason.NOT_COMPARABLE,
            fact=f"whether revision {revision} meets spec.promotion.maxAccuracyDrop is unknown: {fault}",
            remedy="remove maxAccuracyDrop",
        )
    if Decimal(_find_drop(artifact).drop) <= Decimal(most):
        return None
    return _Unmet(
        reason=PromotedReason.REGRESSED,
        fact=f"revision {revision} {_describe_drop(artifact)}, and spec.promotion.maxAccuracyDrop is {most}",
        remedy="improve the examples, raise maxAccuracyDrop",
    )


def _find_fault(artifact: HistoryEntry, other_served: str | None) -> str | None:
    """Why the drop against the revision that serves instead is unknown."""
    comparison = artifact.comparison
    if comparison is None:
        return f"it was not compared with revision {other_served} when it was trained"
    if other_served not in (None, comparison.baseline):
        return f"it was compared with revision {comparison.baseline}, and revision {other_served} serves now"
    if comparison.accuracy_drop is None:
        return comparison.fault or f"it cannot be compared with revision {comparison.baseline}"
    return None


def _describe_met(rules: Promotion, artifact: HistoryEntry) -> str:
    """What the gates saw, as the rest of a sentence about the revision."""
    facts = []
    if rules.min_accuracy is not None:
        accuracy = f"an accuracy of {artifact.accuracy} ({describe_measurement(artifact)})"
        facts.append(f"has {accuracy}, and spec.promotion.minAccuracy is {rules.min_accuracy}")
    compared = artifact.comparison is not None and artifact.comparison.accuracy_drop is not None
    if rules.max_accuracy_drop is not None and compared:
        facts.append(f"{_describe_drop(artifact)}, and spec.promotion.maxAccuracyDrop is {rules.max_accuracy_drop}")
    if rules.max_accuracy_drop is not None and not compared:
        facts.append("had no other revision to be compared with")
    return "; ".join(facts) or "was trained"


def _describe_drop(artifact: HistoryEntry) -> str:
    comparison, drop = artifact.comparison, _find_drop(artifact)
    assert comparison is not None
    change = Decimal(drop.drop)
    lower, upper = Decimal(drop.lower), Decimal(drop.upper)
    images = f"{comparison.images} images that neither learned from"
    if comparison.reclassified_images is not None:
        images += f", without {comparison.reclassified_images} whose class was changed"
    if change > 0:
        return (
            f"is {change} less accurate than revision {comparison.baseline} on {images} "
            f"(95 % interval of the drop {lower} to {upper})"
        )
    if change == 0:
        return f"is as accurate as revision {comparison.baseline} on {images} (95 % interval of the drop {lower} to {upper})"
    return (
        f"is {-change} more accurate than revision {comparison.baseline} on {images} "
        f"(95 % interval of the gain {-upper} to {-lower})"
    )


def _find_drop(artifact: HistoryEntry) -> AccuracyDrop:
    """The drop of a revision whose comparison has no fault."""
    drop = None if artifact.comparison is None else artifact.comparison.accuracy_drop
    assert drop is not None
    return drop
