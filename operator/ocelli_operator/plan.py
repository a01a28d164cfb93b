"""What to do about one Classifier: from everything observed to the actions and the status to write. Pure.

Level-triggered: the plan follows only from what status, the children and the store hold now, so that an operator that is killed
at any step reaches the same state. It answers four questions in turn: is the current revision trained (`learning`), may it
serve (`gates`), which Deployments should there be and which revision serves (`rollout`), what does status say (`verdicts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, DataRetention
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_api.conditions import ConditionType, ReadyReason, ReconcilingReason, TrainedReason
from ocelli_api.names import is_classifier_id
from ocelli_api.pods import TrainingStep
from ocelli_api.revision import current_revision
from ocelli_operator.actions import Action, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.failure import TRAINING_FAILURES
from ocelli_operator.gates import judge_promotion
from ocelli_operator.learning import Learning, plan_learning
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.observed import Observed, StartKind
from ocelli_operator.ownership import keep_own
from ocelli_operator.rollout import plan_rollout
from ocelli_operator.settings import ChildSettings
from ocelli_operator.snapshot import Snapshot
from ocelli_operator.source_changes import plan_observed_sources
from ocelli_operator.status import NOT_CHECKED, false, true
from ocelli_operator.verdicts import build_conditions, judge_available, plan_status

LABEL_DELAY_SECONDS = 1.0
"""The write triggers a reconcile by itself. If a webhook removes the label again, this pause separates the writes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do: the actions in their order, then the status, if it differs from the observed one."""

    status: ClassifierStatus
    actions: tuple[Action, ...] = ()
    requeue_after_seconds: float | None = None
    """When to reconcile again although nothing changes; None: never."""
    begins: frozenset[StartKind] = frozenset()
    """What the actions start."""
    waits: frozenset[StartKind] = frozenset()
    """What waits for this Classifier's turn, which triggers another reconcile."""
    network_policy_blocked: bool = False
    """The NetworkPolicy cannot be created, or changed, as it should be."""


def plan_classifier(observed: Observed, settings: ChildSettings) -> Plan:
    """Decide about one Classifier."""
    classifier = observed.classifier
    if classifier.deleted:
        # Kubernetes deletes its children by their ownerReferences.
        return Plan(status=classifier.status)
    if classifier.status.classifier_id is None:
        return _plan_adoption(observed)
    seen = plan_observed_sources(observed)
    if seen != classifier.status.observed_sources:
        # Alone: the revision, about which everything else is decided, may follow from it.
        return Plan(status=replace(classifier.status, observed_sources=seen), requeue_after_seconds=0.0)
    own, name_conflicts = keep_own(observed)
    snapshot = Snapshot(
        observed=own,
        name_conflicts=name_conflicts,
        settings=settings,
        owner=ChildOwner(classifier=classifier, classifier_id=classifier.status.classifier_id),
        current=current_revision(classifier),
    )
    if classifier.labels.get(CLASSIFIER_ID_LABEL) != classifier.status.classifier_id:
        # Alone: this write changes the object that everything else would be decided about.
        restore = RestoreLabel(classifier_id=classifier.status.classifier_id)
        return Plan(status=classifier.status, actions=(restore,), requeue_after_seconds=LABEL_DELAY_SECONDS)
    learning = plan_learning(snapshot)
    judgement = judge_promotion(snapshot, learning)
    rollout = plan_rollout(snapshot, learning, judgement)
    actions: tuple[Action, ...] = (*learning.actions, *rollout.actions)
    if _should_drop_examples(snapshot, learning):
        actions = (*actions, DropExamples(revision=snapshot.current))
    return Plan(
        status=plan_status(snapshot, learning, judgement, rollout),
        actions=actions,
        requeue_after_seconds=learning.requeue_after_seconds,
        begins=rollout.begins | ({StartKind.TRAINING} if _starts_trainer(snapshot, actions) else set()),
        waits=learning.waits | rollout.waits,
        network_policy_blocked=rollout.network_policy_blocked,
    )


def _starts_trainer(snapshot: Snapshot, actions: Iterable[Action]) -> bool:
    # A training Job for a queue of Kueue is created suspended. A check is not, whatever the queue.
    is_queued = snapshot.classifier.spec.training.queue_name is not None
    starts = [action.step for action in actions if isinstance(action, StartTraining)]
    return any(step is TrainingStep.CHECK or not is_queued for step in starts)


def _should_drop_examples(snapshot: Snapshot, learning: Learning) -> bool:
    """Whether a training has ended whose examples must not be kept, and this process has not deleted them yet."""
    if snapshot.classifier.spec.data_retention is not DataRetention.DROP_AFTER_TRAINING:
        return False
    ended = learning.artifact is not None or (learning.failure is not None and learning.failure.reason in TRAINING_FAILURES)
    return ended and snapshot.observed.memory.dropped_revision != snapshot.current


def _plan_adoption(observed: Observed) -> Plan:
    """The first write records the id: everything is stored under it, so a crash must not draw another one."""
    classifier = observed.classifier
    label = classifier.labels.get(CLASSIFIER_ID_LABEL, "")
    keeps_label = is_classifier_id(label) and not observed.id_taken
    classifier_id = label if keeps_label else observed.fresh_classifier_id
    work = ReconcilingReason.CHECKING_DATA if classifier.spec.suspend else ReconcilingReason.TRAINING
    begins = "the check of its data" if classifier.spec.suspend else "its training"
    message = f"the operator has accepted the Classifier and starts {begins}"
    verdicts = {
        ConditionType.READY: false(ReadyReason(work), message),
        ConditionType.AVAILABLE: judge_available(None, 0),
        ConditionType.TRAINED: false(TrainedReason.QUEUED, message),
        ConditionType.DATA_VALID: NOT_CHECKED,
        ConditionType.RECONCILING: true(work, message),
    }
    return Plan(
        status=replace(
            classifier.status,
            observed_generation=classifier.generation,
            classifier_id=classifier_id,
            conditions=build_conditions(verdicts, classifier.status.conditions, classifier.generation, observed.now),
        ),
        requeue_after_seconds=0.0,
    )
