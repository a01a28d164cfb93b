"""One pass over one Classifier: observe, plan, apply. Everything that decides is in `plan`; everything that waits is here.

A pass that changes nothing sends no request that writes. Actions come before the status, so that status never tells of
something that was not done yet; each can be done again without harm.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest
from ocelli_api.conditions import ConditionType
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id
from ocelli_api.outcome import Outcome, ProgressReport
from ocelli_api.pods import CLASSIFIER_LABEL
from ocelli_api.revision import current_revision
from ocelli_cluster.client import ClusterClient, ConflictError, InvalidError, NotFoundError, QuotaError
from ocelli_cluster.resources import CLASSIFIERS, JOBS, PODS, ObjectKey
from ocelli_operator.actions import Action, ApplyChild, DeleteChild, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.cluster_view import RESOURCE_OF_KIND, ClusterView
from ocelli_operator.config import ChildSettings
from ocelli_operator.events import EventRecorder
from ocelli_operator.learning import next_attempt
from ocelli_operator.manifests.metadata import FIELD_MANAGER, job_name
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import ChildKind, Observed, ObservedJob, ObservedPod, StoredArtifact, project_pod
from ocelli_operator.plan import Plan, plan_classifier
from ocelli_operator.starts import Starts
from ocelli_operator.status import Occurrence, build_status_document, find_occurrences
from ocelli_operator.training_store import KnownArtifacts, TrainingStore
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import StoreQuotaError

logger = logging.getLogger(__name__)

REFUSALS_LIMIT = 1000
EXCERPT_CHARACTERS = 600
RESOURCE_QUOTA_REMEDY = "raise the quota or delete what uses it"


class ForeignJobError(Exception):
    """A Job that is not this Classifier's has the name of the one it needs."""


@dataclass(frozen=True, kw_only=True)
class ReconcilerParts:
    """What a reconciler works with."""

    client: ClusterClient
    view: ClusterView
    store: TrainingStore
    events: EventRecorder
    metrics: OperatorMetrics
    starts: Starts
    settings: ChildSettings
    clock: Callable[[], datetime]


class Reconciler:
    """Brings Classifiers to what they should be, one pass at a time. Keeps nothing that a successor would miss."""

    def __init__(self, parts: ReconcilerParts) -> None:
        self._parts = parts
        self._artifacts = KnownArtifacts(parts.store)
        self._progress_written_at: dict[str, datetime] = {}
        """By UID of the Classifier."""
        self._applied_generations: dict[str, int] = {}
        """By UID of the child."""
        self._dropped_revisions: dict[str, str] = {}
        """By UID of the Classifier: the revision whose examples are gone."""
        self._refusals: dict[str, str] = {}
        """By hash of the manifest."""
        self._over_quota: dict[str, str] = {}
        """By hash of the manifest."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        """One pass; says after how many seconds to look again though nothing changes (None: never).

        Raises:
            ClusterError, ObjectStoreError, ForeignJobError: the pass could not be ended; try again later.
        """
        classifier = self._parts.view.classifier(key)
        starts = self._parts.starts
        if classifier is None:
            starts.forget(key)
            return None
        try:
            return await self._pass(key, classifier)
        except Exception:
            # It waits for something else than its turn, and holds nobody up meanwhile.
            starts.forget(key)
            raise
        finally:
            starts.release(key, self._parts.view.family(key))

    async def _pass(self, key: ObjectKey, classifier: Classifier) -> float | None:
        observed = await self._observe(key, classifier)
        # From here to the claim nobody else may come in between: no await.
        plan = plan_classifier(replace(observed, allowed_starts=self._parts.starts.find_allowed(key)), self._parts.settings)
        self._parts.starts.note(key, begins=plan.begins, waits=plan.waits)
        want_of_room: QuotaError | StoreQuotaError | None = None
        for action in plan.actions:
            try:
                if not await self._act(classifier, action):
                    # The API server refused a manifest: what that means is for the plan to say.
                    return 0.0
            except (QuotaError, StoreQuotaError) as error:
                # Said by this plan already; the rest is done all the same.
                want_of_room = error
        if plan.status != classifier.status:
            await self._write_status(classifier, plan)
        if want_of_room is not None:
            raise want_of_room
        changed = bool(plan.actions) or plan.status != classifier.status
        self._parts.metrics.reconciles.labels("changed" if changed else "unchanged").inc()
        return plan.requeue_after_seconds

    def forget(self, classifier: Classifier) -> None:
        """A Classifier went away."""
        self._progress_written_at.pop(classifier.uid, None)
        self._dropped_revisions.pop(classifier.uid, None)
        self._artifacts.forget(classifier.namespace, classifier.classifier_id)

    # --- observe

    async def _observe(self, key: ObjectKey, classifier: Classifier) -> Observed:
        view = self._parts.view
        jobs, pods = view.jobs(key), view.pods(key)
        current = current_revision(classifier.spec)
        attempt = next_attempt(classifier.status, current)
        job = next((job for job in jobs if job.identity.name == job_name(classifier.name, current, attempt)), None)
        artifact: StoredArtifact | None = None
        outcome: Outcome | None = None
        progress: ProgressReport | None = None
        store_fault = ""
        classifier_id = classifier.status.classifier_id
        if classifier_id is not None and not classifier.deleted:
            location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier_id)
            # After the Job was read: one that has ended has stored its artifact before.
            served = classifier.status.served_revision == current
            artifact = await self._artifacts.find(location, current, attempt, in_use=served)
            if artifact is None and (job is None or job.finished):
                outcome = await self._parts.store.load_outcome(location, current, attempt)
                store_fault = self._parts.store.find_fault(location, current, attempt)
            if artifact is None and job is not None:
                progress = await self._parts.store.load_progress(location, current, attempt)
            if artifact is None and job is not None and job.finished and not job.succeeded:
                pods = await self._fresh_trainers(classifier, job, pods)
        needs_id = classifier_id is None and not classifier.deleted
        return Observed(
            classifier=classifier,
            now=self._parts.clock(),
            jobs=jobs,
            pods=pods,
            deployments=view.deployments(key),
            services=view.services(key),
            autoscalers=view.autoscalers(key),
            disruption_budgets=view.disruption_budgets(key),
            gpu_nodes=view.gpu_nodes(),
            artifact=artifact,
            outcome=outcome,
            progress=progress,
            store_fault=store_fault,
            progress_written_at=self._progress_written_at.get(classifier.uid),
            fresh_classifier_id=self._draw_classifier_id(classifier) if needs_id else "",
            id_taken=self._is_id_taken(classifier) if needs_id else False,
            applied_generations=self._applied_generations,
            refusals=self._refusals,
            dropped_revision=self._dropped_revisions.get(classifier.uid),
            over_quota=self._over_quota,
        )

    async def _fresh_trainers(
        self, classifier: Classifier, job: ObservedJob, pods: tuple[ObservedPod, ...]
    ) -> tuple[ObservedPod, ...]:
        """The Pods with the trainers of a failed Job as they are now: how they ended is final, and watches of two kinds keep no
        common order, so that the Job's end may be seen before its Pod's."""
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

    async def _act(self, classifier: Classifier, action: Action) -> bool:
        """Do it; False where the API server refused the manifest, and the plan does not know it yet.

        Raises:
            QuotaError, StoreQuotaError: there is still no room for it.
        """
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
        except (InvalidError, QuotaError, StoreQuotaError) as error:
            if not isinstance(action, StartTraining | ApplyChild):
                raise
            refusals = self._refusals if isinstance(error, InvalidError) else self._over_quota
            known = action.manifest_hash in refusals
            if len(refusals) >= REFUSALS_LIMIT:
                refusals.clear()
            told = error.message[:EXCERPT_CHARACTERS]
            refusals[action.manifest_hash] = f"{told}; {RESOURCE_QUOTA_REMEDY}" if isinstance(error, QuotaError) else told
            if known and not isinstance(error, InvalidError):
                raise
            return False
        if isinstance(action, StartTraining | ApplyChild):
            self._over_quota.pop(action.manifest_hash, None)
        return True

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
        self._parts.view.take_classifier(manifest)

    async def _start_training(self, classifier: Classifier, action: StartTraining) -> None:
        assert classifier.status.classifier_id is not None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.status.classifier_id)
        await self._parts.store.save_definition(location, action.revision, action.attempt, action.definition)
        name = action.manifest["metadata"]["name"]
        try:
            manifest = await self._parts.client.create(JOBS, classifier.namespace, action.manifest, field_manager=FIELD_MANAGER)
        except ConflictError:
            # Created by a pass whose answer was lost, or by a predecessor.
            manifest = await self._parts.client.get(JOBS, classifier.namespace, name)
            owners = {owner.get("uid") for owner in manifest["metadata"].get("ownerReferences") or ()}
            if classifier.uid not in owners:
                raise ForeignJobError(f"{classifier}: Job {name} exists and belongs to somebody else; delete it") from None
        else:
            self._parts.metrics.jobs_started.inc()
            logger.info("training job created", extra={"classifier": str(classifier), "job": name})
            note = f"training Job {name} was created for revision {action.revision}"
            await self._record(classifier, Occurrence(type="Normal", reason="TrainingStarted", action="Train", note=note))
        self._parts.view.take_child(ChildKind.JOB, manifest)

    async def _apply_child(self, classifier: Classifier, action: ApplyChild) -> None:
        name = action.manifest["metadata"]["name"]
        resource = RESOURCE_OF_KIND[action.kind]
        manifest = await self._parts.client.apply(
            resource, classifier.namespace, name, action.manifest, field_manager=FIELD_MANAGER
        )
        metadata = manifest["metadata"]
        self._applied_generations[metadata["uid"]] = metadata.get("generation", 0)
        self._parts.view.take_child(action.kind, manifest)
        logger.info("child applied", extra={"classifier": str(classifier), "kind": str(action.kind), "child": name})

    async def _drop_examples(self, classifier: Classifier, action: DropExamples) -> None:
        assert classifier.status.classifier_id is not None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.status.classifier_id)
        dropped = await self._parts.store.drop_uploads(location)
        self._dropped_revisions[classifier.uid] = action.revision
        if dropped:
            logger.info("examples dropped", extra={"classifier": str(classifier), "zips": dropped})
            note = f"{dropped} uploads were deleted: spec.dataRetention is DropAfterTraining and their training has ended"
            await self._record(classifier, Occurrence(type="Normal", reason="ExamplesDropped", action="Train", note=note))

    async def _delete_child(self, classifier: Classifier, action: DeleteChild) -> None:
        identity = action.identity
        try:
            await self._parts.client.delete(RESOURCE_OF_KIND[action.kind], identity.namespace, identity.name, uid=identity.uid)
        except (NotFoundError, ConflictError):
            # It is gone, or another object has its name by now.
            return
        self._applied_generations.pop(identity.uid, None)
        logger.info(
            "child deleted",
            extra={"classifier": str(classifier), "kind": str(action.kind), "child": identity.name, "why": action.why},
        )
        if action.kind is ChildKind.JOB:
            note = f"training Job {identity.name} was deleted: {action.why}"
            await self._record(classifier, Occurrence(type="Normal", reason="TrainingSuperseded", action="Train", note=note))

    async def _write_status(self, classifier: Classifier, plan: Plan) -> None:
        body: Manifest = {
            # Only if nobody changed the object since it was read: a decision must not rest on something older.
            "metadata": {"resourceVersion": classifier.resource_version, "uid": classifier.uid},
            "status": build_status_document(plan.status),
        }
        try:
            manifest = await self._parts.client.apply(
                CLASSIFIERS, classifier.namespace, classifier.name, body, field_manager=FIELD_MANAGER, subresource="status"
            )
        except NotFoundError:
            return
        self._parts.view.take_classifier(manifest)
        if plan.status.progress is not None and plan.status.progress != classifier.status.progress:
            self._progress_written_at[classifier.uid] = self._parts.clock()
        for occurrence in find_occurrences(classifier.status, plan.status):
            await self._record(classifier, occurrence)
        self._count_failure(classifier, plan)

    def _count_failure(self, classifier: Classifier, plan: Plan) -> None:
        stalled = plan.status.condition(ConditionType.STALLED)
        if stalled is not None and classifier.status.condition(ConditionType.STALLED) is None:
            self._parts.metrics.revisions_stalled.labels(stalled.reason).inc()

    async def _record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        await self._parts.events.record(classifier, occurrence)
