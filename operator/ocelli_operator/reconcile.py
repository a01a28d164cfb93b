"""Reconcile one Classifier: observe, plan, apply. `plan` decides everything; everything that waits for I/O is here.

A reconcile that changes nothing writes nothing. Actions come before the status, so that status never reports something that was
not done yet. Every action is idempotent.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest
from ocelli_api.classifier_status import ClassifierStatus, HistoryEntry
from ocelli_api.conditions import ConditionType, ReadyReason
from ocelli_api.documents import build_document
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id
from ocelli_api.pods import CLASSIFIER_LABEL, TrainingStep
from ocelli_api.revision import current_revision
from ocelli_cluster.client import AdmissionError, ApiError, ClusterClient, ConflictError, InvalidError, NotFoundError
from ocelli_cluster.field_ownership import claim_created
from ocelli_cluster.resources import CLASSIFIERS, JOBS, PODS, ObjectKey
from ocelli_operator.actions import Action, ApplyChild, DeleteChild, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.cluster_view import RESOURCE_OF_KIND, ClusterView
from ocelli_operator.events import EventRecorder
from ocelli_operator.failure import find_last_failure
from ocelli_operator.job_events import find_pod_refusal
from ocelli_operator.job_workers import ends_attempt
from ocelli_operator.kueue import KueueAdmission
from ocelli_operator.kueue_workloads import observe_admission
from ocelli_operator.learning import next_attempt
from ocelli_operator.manifests.metadata import APPLIED_AS_ANNOTATION, FIELD_MANAGER, job_names
from ocelli_operator.memory import WAIT_FIRST_SECONDS, Memory, Refusal
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import (
    ChildKind,
    Observed,
    ObservedJob,
    ObservedPod,
    project_child,
    project_identity,
    project_pod,
)
from ocelli_operator.ownership import describe_conflict
from ocelli_operator.plan import Plan, plan_classifier
from ocelli_operator.settings import ChildSettings
from ocelli_operator.source_changes import find_source_occurrences
from ocelli_operator.source_polls import SourcePolls
from ocelli_operator.starts import Starts, find_waiting_since
from ocelli_operator.status import Occurrence, describe_start, find_occurrences, quota_message, refusal_message
from ocelli_operator.store_contact import StoreOutageError
from ocelli_operator.training_store import TrainingStore
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import StoreQuotaError, StoreUnavailableError

logger = logging.getLogger(__name__)

EXCERPT_CHARACTERS = 600


class _NameConflictError(Exception):
    """An existing object has the name of a child to create. The message completes a sentence that begins with the child."""


@dataclass(frozen=True, kw_only=True)
class ReconcilerParts:
    """What a reconciler works with."""

    client: ClusterClient
    view: ClusterView
    store: TrainingStore
    events: EventRecorder
    metrics: OperatorMetrics
    starts: Starts
    source_polls: SourcePolls
    settings: ChildSettings
    clock: Callable[[], datetime]


class _ActionResult(Enum):
    DONE = auto()
    REFUSED = auto()
    """The manifest was refused, and the plan does not know it yet."""
    BLOCKED = auto()
    """The manifest is still refused, as the plan says."""


class Reconciler:
    """Brings Classifiers to what they should be. It remembers nothing that a successor would need."""

    def __init__(self, parts: ReconcilerParts) -> None:
        self._parts = parts
        self._memories: dict[str, Memory] = {}
        """By UID of the Classifier."""
        self._lost_artifacts: dict[ObjectKey, str] | None = None
        """By Classifier, the served revision whose artifact is missing; None until the first sweep of the store."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Returns after how many seconds to reconcile again although nothing changes (None: never).

        Raises:
            ClusterError, ObjectStoreError: the reconcile could not be completed; try again later.
        """
        classifier = self._parts.view.classifier(key)
        starts = self._parts.starts
        if classifier is None:
            starts.forget(key)
            self._parts.source_polls.forget(key)
            return None
        try:
            return await self._reconcile(key, classifier)
        except Exception:
            # It waits for something other than its turn, so others must not queue behind it.
            starts.forget(key)
            raise
        finally:
            starts.release(key, self._parts.view.workloads(key))

    async def _reconcile(self, key: ObjectKey, classifier: Classifier) -> float | None:
        view, memory = self._parts.view, self._memories.setdefault(classifier.uid, Memory())
        # Before the store is read: a Job that has ended by then has stored its artifact. A later change reconciles again.
        observed = Observed(
            classifier=classifier, now=self._parts.clock(), jobs=view.jobs(key), pods=view.pods(key), memory=memory
        )
        observed, read_error = await self._read_store(key, observed)
        observed = await self._observe(key, observed)
        observed = replace(observed, source_poll=self._parts.source_polls.observe(key, classifier))
        store_error = read_error
        # No await from here to the claim, so that no other reconcile can claim the same place.
        starts = self._parts.starts
        observed = replace(
            observed, allowed_starts=starts.find_allowed(key), training_limit=starts.find_training_limit(key.namespace)
        )
        plan = plan_classifier(observed, self._parts.settings)
        starts.note(key, begins=plan.begins, waits=plan.waits, since=find_waiting_since(classifier))
        self._remember(classifier, replace(observed.memory, network_policy_blocked=plan.network_policy_blocked))
        blocked = False
        for action in plan.actions:
            try:
                result = await self._act(classifier, action)
            except StoreUnavailableError as error:
                # Raised below, after everything that does not need the store.
                store_error = error
                continue
            if result is _ActionResult.REFUSED:
                # The next plan takes the refusal into account.
                return 0.0
            blocked |= result is _ActionResult.BLOCKED
        if store_error is not read_error:
            # The store failed during an action: status has to say so.
            outage = plan_classifier(replace(observed, store_error=str(store_error)), self._parts.settings)
            plan = replace(plan, status=outage.status)
        if plan.status != classifier.status:
            await self._write_status(classifier, plan)
        if store_error is not None and not isinstance(store_error, StoreOutageError):
            raise store_error
        requeue_after_seconds = plan.requeue_after_seconds if store_error is None else store_error.retry_after_seconds
        memory = self._memory(classifier)
        if blocked:
            # A user of the namespace has to act, so this is not an error of the operator. No watch reports when that is done.
            self._parts.metrics.reconciles.labels("waiting").inc()
            self._remember(classifier, memory.after_wait())
            return memory.wait_seconds if requeue_after_seconds is None else min(memory.wait_seconds, requeue_after_seconds)
        self._remember(classifier, replace(memory, wait_seconds=WAIT_FIRST_SECONDS))
        changed = bool(plan.actions) or plan.status != classifier.status
        self._parts.metrics.reconciles.labels("changed" if changed else "unchanged").inc()
        return requeue_after_seconds

    def _memory(self, classifier: Classifier) -> Memory:
        return self._memories.get(classifier.uid, Memory())

    def _remember(self, classifier: Classifier, memory: Memory) -> None:
        # The Classifier may have been deleted since the reconcile started.
        if classifier.uid in self._memories:
            self._memories[classifier.uid] = memory

    def forget(self, classifier: Classifier) -> None:
        """A Classifier was deleted."""
        self._memories.pop(classifier.uid, None)

    def count_blocked_network_policies(self) -> int:
        """How many Classifiers lack their NetworkPolicy, or have an outdated one, according to their last plans."""
        return sum(memory.network_policy_blocked for memory in self._memories.values())

    def note_lost_artifacts(self, lost: Mapping[ObjectKey, str]) -> set[ObjectKey]:
        """The artifacts of exactly these served revisions are missing. Returns the Classifiers for which that is a change."""
        before, self._lost_artifacts = self._lost_artifacts or {}, dict(lost)
        return {key for key, _ in before.items() ^ lost.items()}

    def _is_artifact_lost(self, key: ObjectKey, classifier: Classifier) -> bool:
        """Whether the artifact of the served revision is missing."""
        status = classifier.status
        if status.served_revision is None:
            return False
        if self._lost_artifacts is not None:
            return self._lost_artifacts.get(key) == status.served_revision
        # Until the first sweep, what a predecessor found holds. It trains a served revision only if the artifact is missing.
        if _has_training(status, status.served_revision):
            return True
        ready = status.condition(ConditionType.READY)
        return ready is not None and ready.reason == ReadyReason.ARTIFACT_LOST

    # --- observe

    async def _read_store(self, key: ObjectKey, observed: Observed) -> tuple[Observed, StoreUnavailableError | None]:
        """Add what is needed from the store. What status and the Pods already show is not read: the store may be away.

        After an error, the artifact is the one in status.
        """
        classifier = observed.classifier
        status, current = classifier.status, current_revision(classifier)
        if status.classifier_id is None or classifier.deleted:
            return observed, None
        recorded = next((entry for entry in status.history if entry.revision == current), None)
        lost = self._is_artifact_lost(key, classifier)
        observed = replace(observed, artifact_lost=lost)
        is_served = status.served_revision == current
        trains_again = status.observed_retrain_nonce != classifier.spec.retrain_nonce or _has_training(status, current)
        if recorded is not None and is_served and not (lost and trains_again):
            return replace(observed, artifact=recorded), None
        if lost and is_served:
            # Its entry in the history is outdated: it is trained again, or was restored.
            recorded = None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=status.classifier_id)
        attempt, job, store = next_attempt(status, current), _find_job(observed), self._parts.store
        try:
            if job is not None and not job.finished:
                trainers = [pod for pod in observed.pods if pod.identity.owner_uid == job.identity.uid]
                if not any(ends_attempt(pod) for pod in trainers):
                    # A trainer that has not started has stored nothing, and a running one only its progress.
                    running = any(pod.phase == "Running" for pod in trainers)
                    progress = await store.load_progress(location, current, attempt) if running else None
                    return replace(observed, progress=progress), None
            artifact = await self._load_artifact(location, recorded, current, attempt)
            if artifact is not None:
                if lost and is_served and self._lost_artifacts is not None:
                    self._lost_artifacts.pop(key, None)
                return replace(observed, artifact=artifact, artifact_lost=lost and not is_served), None
            return replace(
                observed,
                outcome=await store.load_outcome(location, current, attempt) if job is None or job.finished else None,
                check=await store.load_check(location, current, attempt) if job is None or _is_check(job) else None,
                store_fault=store.find_fault(location, current, attempt),
                progress=await store.load_progress(location, current, attempt) if job is not None else None,
            ), None
        except StoreUnavailableError as error:
            # An attempt starts only after the store was seen to have no artifact.
            known = recorded if status.training_revision != current else None
            return replace(observed, artifact=known, store_error=str(error)), error

    async def _load_artifact(
        self, location: ClassifierLocation, recorded: HistoryEntry | None, revision: str, attempt: int
    ) -> HistoryEntry | None:
        """The artifact of a revision that is not served. The data of one in the history is not read again."""
        if recorded is None:
            return await self._parts.store.load_artifact(location, revision, attempt)
        return recorded if await self._parts.store.holds_artifact(location, revision) else None

    async def _observe(self, key: ObjectKey, observed: Observed) -> Observed:
        """Add the other children, why Kubernetes refuses a Pod, and an id where one is needed."""
        view, classifier, pods, pod_refusal = self._parts.view, observed.classifier, observed.pods, ""
        needs_id = classifier.status.classifier_id is None and not classifier.deleted
        job = None if needs_id or classifier.deleted or observed.artifact is not None else _find_job(observed)
        admission: KueueAdmission | None = None
        if job is not None and job.suspended and not job.finished and not job.identity.deleting:
            admission = await observe_admission(self._parts.client, classifier.namespace, job.identity.uid)
        elif job is not None:
            if job.finished and not job.succeeded:
                pods = await self._fresh_trainers(classifier, job, pods)
            pod_refusal = await find_pod_refusal(self._parts.client, job, pods, self._parts.clock())
        return replace(
            observed,
            now=self._parts.clock(),
            pods=pods,
            deployments=view.deployments(key),
            services=view.children(ChildKind.SERVICE, key),
            autoscalers=view.children(ChildKind.AUTOSCALER, key),
            disruption_budgets=view.children(ChildKind.DISRUPTION_BUDGET, key),
            network_policies=view.children(ChildKind.NETWORK_POLICY, key),
            gpu_nodes=view.gpu_nodes(),
            fresh_classifier_id=self._draw_classifier_id(classifier) if needs_id else "",
            id_taken=self._is_id_taken(classifier) if needs_id else False,
            pod_refusal=pod_refusal,
            admission=admission,
        )

    async def _fresh_trainers(
        self, classifier: Classifier, job: ObservedJob, pods: tuple[ObservedPod, ...]
    ) -> tuple[ObservedPod, ...]:
        """The Pods, with the trainers of a failed Job read live: how they ended is final, and two watches have no common order,
        so that the end of the Job may be seen before that of its Pod."""
        selector = f"{CLASSIFIER_LABEL}={classifier.name},batch.kubernetes.io/job-name={job.identity.name}"
        listing = await self._parts.client.list_objects(PODS, classifier.namespace, selector)
        fresh = tuple(project_pod(manifest) for manifest in listing.items)
        names = {pod.identity.name for pod in fresh}
        return (*(pod for pod in pods if pod.identity.name not in names), *fresh)

    def _draw_classifier_id(self, classifier: Classifier) -> str:
        while True:
            drawn = build_classifier_id(classifier.name, secrets.randbelow(NUMBER_LIMIT) + 1)
            if not self._parts.view.classifiers_with_id(classifier.namespace, drawn):
                return drawn

    def _is_id_taken(self, classifier: Classifier) -> bool:
        label = classifier.labels.get(CLASSIFIER_ID_LABEL)
        if label is None:
            return False
        age = (classifier.created_at, classifier.name)
        return any(
            other.status.classifier_id == label or (other.created_at, other.name) < age
            for other in self._parts.view.classifiers_with_id(classifier.namespace, label)
            if other.name != classifier.name and not other.deleted
        )

    # --- apply

    async def _act(self, classifier: Classifier, action: Action) -> _ActionResult:
        try:
            if isinstance(action, RestoreLabel):
                await self._restore_label(classifier, action.classifier_id)
            elif isinstance(action, StartTraining):
                await self._start_training(classifier, action)
            elif isinstance(action, ApplyChild):
                await self._apply_child(classifier, action)
            elif isinstance(action, DropExamples):
                await self._drop_examples(classifier, action)
            else:
                await self._delete_child(classifier, action)
        except (InvalidError, AdmissionError, StoreQuotaError, _NameConflictError) as error:
            if not isinstance(action, StartTraining | ApplyChild):
                raise
            memory, refusal = self._memory(classifier), _build_refusal(error)
            known = memory.refusals.get(action.manifest_hash)
            self._remember(classifier, memory.with_refusal(action.manifest_hash, refusal))
            return _ActionResult.REFUSED if known is None or refusal.invalid else _ActionResult.BLOCKED
        if isinstance(action, StartTraining | ApplyChild):
            self._remember(classifier, self._memory(classifier).without_refusal(action.manifest_hash))
        return _ActionResult.DONE

    async def _restore_label(self, classifier: Classifier, classifier_id: str) -> None:
        try:
            manifest = await self._parts.client.apply(
                CLASSIFIERS,
                classifier.namespace,
                classifier.name,
                {"metadata": {"labels": {CLASSIFIER_ID_LABEL: classifier_id}, "uid": classifier.uid}},
                field_manager=FIELD_MANAGER,
            )
        except NotFoundError:
            return
        self._parts.view.take(CLASSIFIERS, manifest)

    async def _start_training(self, classifier: Classifier, action: StartTraining) -> None:
        assert classifier.status.classifier_id is not None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.status.classifier_id)
        await self._parts.store.save_definition(location, action.revision, action.attempt, action.definition)
        name = action.manifest["metadata"]["name"]
        try:
            manifest = await self._parts.client.create(JOBS, classifier.namespace, action.manifest, field_manager=FIELD_MANAGER)
        except ConflictError as error:
            # It was created by a request whose response was lost, or by a predecessor; or it belongs to something else.
            manifest = await self._find_own(classifier, ChildKind.JOB, name, error)
            if manifest["metadata"].get("labels", {}).get(CLASSIFIER_LABEL) != classifier.name:
                raise _NameConflictError(f"already exists without the label {CLASSIFIER_LABEL}; delete it") from None
        else:
            self._parts.metrics.jobs_started.inc()
            logger.info("training job created", extra={"classifier": str(classifier), "job": name})
            await self._record(classifier, describe_start(action.step, name, action.revision))
        self._parts.view.take(JOBS, manifest)

    async def _apply_child(self, classifier: Classifier, action: ApplyChild) -> None:
        name, uid = action.manifest["metadata"]["name"], action.uid
        if uid is None:
            manifest = await self._create_child(classifier, action)
        else:
            manifest = await self._change_child(action, uid)
        child = project_child(manifest)
        if not child.matches(action.manifest):
            # A webhook rewrote it, and would do so again. The annotation records the result for this process's successor.
            autoscaled = classifier.spec.serving.autoscaling is not None
            applied_hash = child.applied_hash(action.manifest, autoscaled=autoscaled)
            if child.applied_as != applied_hash:
                metadata = {"uid": child.identity.uid, "annotations": {APPLIED_AS_ANNOTATION: applied_hash}}
                manifest = await self._parts.client.patch(
                    RESOURCE_OF_KIND[action.kind],
                    classifier.namespace,
                    name,
                    {"metadata": metadata},
                    field_manager=FIELD_MANAGER,
                )
            # Webhooks may have rewritten it once more.
            applied_hash = project_child(manifest).applied_hash(action.manifest, autoscaled=autoscaled)
            self._remember(classifier, self._memory(classifier).with_applied(child.identity.uid, applied_hash))
        self._parts.view.take(RESOURCE_OF_KIND[action.kind], manifest)
        logger.info("child applied", extra={"classifier": str(classifier), "kind": str(action.kind), "child": name})

    async def _create_child(self, classifier: Classifier, action: ApplyChild) -> Manifest:
        """By POST, so that an existing object is never taken over."""
        resource, name = RESOURCE_OF_KIND[action.kind], action.manifest["metadata"]["name"]
        try:
            return await self._parts.client.create(resource, classifier.namespace, action.manifest, field_manager=FIELD_MANAGER)
        except ConflictError as error:
            found = await self._find_own(classifier, action.kind, name, error)
        # It was created by a request whose response was lost, or its labels were removed.
        return await self._change_child(action, found["metadata"]["uid"])

    async def _find_own(self, classifier: Classifier, kind: ChildKind, name: str, error: ConflictError) -> Manifest:
        """The Classifier's own child that a create conflicted with.

        Raises:
            _NameConflictError: the object is not the Classifier's own, or is being deleted.
            ConflictError: the conflict has another cause.
        """
        if not error.already_exists:
            raise error
        try:
            manifest = await self._parts.client.get(RESOURCE_OF_KIND[kind], classifier.namespace, name)
        except NotFoundError:
            # It was deleted since.
            raise error from None
        identity = project_identity(manifest)
        if identity.owner_uid != classifier.uid or identity.deleting:
            raise _NameConflictError(describe_conflict(identity))
        return manifest

    async def _change_child(self, action: ApplyChild, uid: str) -> Manifest:
        """Apply a manifest to the object with this UID, not to another one that has its name by now."""
        client, resource, manifest = self._parts.client, RESOURCE_OF_KIND[action.kind], action.manifest
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        try:
            found = await client.get(resource, namespace, name)
        except NotFoundError as error:
            raise ConflictError(409, f"{action.kind} {namespace}/{name} was deleted meanwhile") from error
        claimed = claim_created(found, FIELD_MANAGER)
        if claimed is not None:
            version = {"uid": uid, "resourceVersion": found["metadata"]["resourceVersion"]}
            patch = {"metadata": {**version, "managedFields": claimed}}
            await client.patch(resource, namespace, name, patch, field_manager=FIELD_MANAGER)
        body = {**manifest, "metadata": {**manifest["metadata"], "uid": uid}}
        return await client.apply(resource, namespace, name, body, field_manager=FIELD_MANAGER)

    async def _drop_examples(self, classifier: Classifier, action: DropExamples) -> None:
        assert classifier.status.classifier_id is not None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.status.classifier_id)
        dropped = await self._parts.store.drop_uploads(location)
        self._remember(classifier, replace(self._memory(classifier), dropped_revision=action.revision))
        if dropped:
            logger.info("examples dropped", extra={"classifier": str(classifier), "zips": dropped})
            note = f"{dropped} uploads were deleted: spec.dataRetention is DropAfterTraining and their training has ended"
            await self._record(classifier, Occurrence(type="Normal", reason="ExamplesDropped", action="Train", note=note))

    async def _delete_child(self, classifier: Classifier, action: DeleteChild) -> None:
        identity = action.identity
        try:
            await self._parts.client.delete(RESOURCE_OF_KIND[action.kind], identity.namespace, identity.name, uid=identity.uid)
        except (NotFoundError, ConflictError):
            # It is already deleted, or another object has its name by now.
            return
        logger.info(
            "child deleted",
            extra={"classifier": str(classifier), "kind": str(action.kind), "child": identity.name, "why": action.why},
        )
        if action.kind is ChildKind.JOB:
            note = f"Job {identity.name} was deleted: {action.why}"
            await self._record(classifier, Occurrence(type="Normal", reason="TrainingSuperseded", action="Train", note=note))

    async def _write_status(self, classifier: Classifier, plan: Plan) -> None:
        body: Manifest = {
            # Only if the object has not changed since it was read: the decision must not rest on something older.
            "metadata": {"resourceVersion": classifier.resource_version, "uid": classifier.uid},
            "status": build_document(plan.status),
        }
        try:
            manifest = await self._parts.client.apply(
                CLASSIFIERS, classifier.namespace, classifier.name, body, field_manager=FIELD_MANAGER, subresource="status"
            )
        except NotFoundError:
            if await self._is_there(classifier):
                # The object exists, so it is the status that cannot be written.
                self._parts.metrics.status_refused.inc()
                raise
            return
        except ConflictError:
            raise
        except ApiError:
            self._parts.metrics.status_refused.inc()
            raise
        self._parts.view.take(CLASSIFIERS, manifest)
        if plan.status.progress is not None and plan.status.progress != classifier.status.progress:
            self._remember(classifier, replace(self._memory(classifier), progress_written_at=self._parts.clock()))
        transitions = find_occurrences(classifier.status, plan.status)
        for occurrence in (*transitions, *find_source_occurrences(classifier.status, plan.status)):
            await self._record(classifier, occurrence)
        self._count_failure(classifier, plan)

    async def _is_there(self, classifier: Classifier) -> bool:
        # By a list, because the operator may not get a single one.
        selector = f"metadata.name={classifier.name}"
        listing = await self._parts.client.list_objects(CLASSIFIERS, classifier.namespace, field_selector=selector)
        return any(manifest["metadata"]["uid"] == classifier.uid for manifest in listing.items)

    def _count_failure(self, classifier: Classifier, plan: Plan) -> None:
        stalled = plan.status.condition(ConditionType.STALLED)
        if stalled is not None and classifier.status.condition(ConditionType.STALLED) is None:
            self._parts.metrics.revisions_stalled.labels(stalled.reason).inc()

    async def _record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        await self._parts.events.record(classifier, occurrence)


def _find_job(observed: Observed) -> ObservedJob | None:
    """The Job of the attempt that the current revision is in: the one that trains, if both exist."""
    classifier, current = observed.classifier, current_revision(observed.classifier)
    attempt = next_attempt(classifier.status, current)
    choices = [job_names(classifier.name, current, attempt, step) for step in (TrainingStep.TRAIN, TrainingStep.CHECK)]
    found = (job for names in choices for job in observed.jobs if job.identity.name in names)
    return next(found, None)


def _is_check(job: ObservedJob) -> bool:
    return job.step is TrainingStep.CHECK


def _has_training(status: ClassifierStatus, revision: str) -> bool:
    """Whether the revision is being trained, or failed."""
    last = find_last_failure(status)
    return status.training_revision == revision or (last is not None and last.revision == revision)


def _build_refusal(error: InvalidError | AdmissionError | StoreQuotaError | _NameConflictError) -> Refusal:
    if isinstance(error, InvalidError):
        return Refusal(message=error.message[:EXCERPT_CHARACTERS], invalid=True)
    if isinstance(error, AdmissionError):
        message = refusal_message(error.message[:EXCERPT_CHARACTERS])
    else:
        message = quota_message(error.message) if isinstance(error, StoreQuotaError) else str(error)
    return Refusal(message=message, invalid=False)
