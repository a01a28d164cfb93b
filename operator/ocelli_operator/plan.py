"""What to do about one Classifier: from everything observed to actions and the status to write. Pure.

Level-triggered: nothing rests on what happened before this moment except what status, the children and the store hold, so that
an operator killed at any step ends in the same state. Three questions in turn: is the current revision learned (`learning`),
which Deployments should there be and who answers (`rollout`), what does status say (`judgement`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, ClassifierStatus, DataRetention
from ocelli_api.conditions import ReadyReason, ReconcilingReason, TrainedReason
from ocelli_api.names import is_classifier_id
from ocelli_api.revision import current_revision
from ocelli_operator.actions import Action, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.case import Case
from ocelli_operator.judgement import Judgement, build_conditions, judge_available, plan_status
from ocelli_operator.learning import TRAINING_FAILURES, Learning, plan_learning
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.observed import Observed, StartKind
from ocelli_operator.ownership import keep_own
from ocelli_operator.rollout import plan_rollout
from ocelli_operator.settings import ChildSettings
from ocelli_operator.status import NOT_CHECKED, false, true

PROGRESS_POLL_SECONDS = 2.0
LABEL_DELAY_SECONDS = 1.0
"""The write wakes its Classifier by itself; a webhook that takes the label away again causes no writes without a pause."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do: the actions in their order, then the status, if it differs from the observed one."""

    status: ClassifierStatus
    actions: tuple[Action, ...] = ()
    requeue_after_seconds: float | None = None
    """When to look again though nothing changes; None: never."""
    begins: frozenset[StartKind] = frozenset()
    """What the actions begin."""
    waits: frozenset[StartKind] = frozenset()
    """What has to wait until it is this Classifier's turn; then it is looked at again."""
    network_policy_blocked: bool = False
    """The NetworkPolicy cannot be made, or changed, as it should be."""


def plan_classifier(observed: Observed, settings: ChildSettings) -> Plan:
    """Decide about one Classifier."""
    classifier = observed.classifier
    if classifier.deleted:
        # Whatever was made for it goes by its ownerReferences.
        return Plan(status=classifier.status)
    if classifier.status.classifier_id is None:
        return _plan_adoption(observed)
    case = Case(
        observed=keep_own(observed),
        settings=settings,
        owner=ChildOwner(classifier=classifier, classifier_id=classifier.status.classifier_id),
        current=current_revision(classifier.spec),
    )
    if classifier.labels.get(CLASSIFIER_ID_LABEL) != classifier.status.classifier_id:
        # By itself: this write makes the object another one than the rest was decided about.
        restore = RestoreLabel(classifier_id=classifier.status.classifier_id)
        return Plan(status=classifier.status, actions=(restore,), requeue_after_seconds=LABEL_DELAY_SECONDS)
    learning = plan_learning(case)
    rollout = plan_rollout(case, learning)
    actions: tuple[Action, ...] = (*learning.actions, *rollout.actions)
    if _should_drop_examples(case, learning):
        actions = (*actions, DropExamples(revision=case.current))
    return Plan(
        status=plan_status(case, learning, rollout),
        actions=actions,
        requeue_after_seconds=PROGRESS_POLL_SECONDS if learning.running else learning.look_again_seconds,
        begins=rollout.begins | {StartKind.TRAINING for action in actions if isinstance(action, StartTraining)},
        waits=learning.waits | rollout.waits,
        network_policy_blocked=rollout.network_policy_blocked,
    )


def _should_drop_examples(case: Case, learning: Learning) -> bool:
    """Whether examples that are not to be kept were learned from, or in vain, and nobody has seen them go yet."""
    if case.classifier.spec.data_retention is not DataRetention.DROP_AFTER_TRAINING:
        return False
    ended = learning.artifact is not None or (learning.failure is not None and learning.failure.reason in TRAINING_FAILURES)
    return ended and case.observed.dropped_revision != case.current


def _plan_adoption(observed: Observed) -> Plan:
    """The first write settles the id: everything stored lies under it, and a crash must not draw another one."""
    classifier = observed.classifier
    label = classifier.labels.get(CLASSIFIER_ID_LABEL, "")
    keeps_label = is_classifier_id(label) and not observed.id_taken
    classifier_id = label if keeps_label else observed.fresh_classifier_id
    message = "the operator has seen the object and starts its training"
    judgement = Judgement(
        data_valid=NOT_CHECKED,
        trained=false(TrainedReason.QUEUED, message),
        available=judge_available(None, 0),
        ready=false(ReadyReason.TRAINING, message),
        reconciling=true(ReconcilingReason.TRAINING, message),
        stalled=None,
    )
    return Plan(
        status=replace(
            classifier.status,
            observed_generation=classifier.generation,
            classifier_id=classifier_id,
            conditions=build_conditions(judgement, classifier.status.conditions, classifier.generation, observed.now),
        ),
        requeue_after_seconds=0.0,
    )
