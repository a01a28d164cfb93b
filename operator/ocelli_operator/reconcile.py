"""One pass over one Classifier: observe, plan, apply. Everything that decides is in `plan`; everything that waits is here.

A pass that changes nothing sends no request that writes. Actions come before the status, so that status never tells of
something that was not done yet; each can be done again without harm.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from ocelli_cluster.client import AdmissionError, ApiError, ClusterClient, ConflictError, InvalidError, NotFoundError
from ocelli_cluster.field_ownership import claim_created
from ocelli_cluster.resources import CLASSIFIERS, JOBS, PODS, ObjectKey

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, HistoryEntry, Manifest
from ocelli_api.conditions import ConditionType, ReadyReason
from ocelli_api.documents import build_document
from ocelli_api.names import NUMBER_LIMIT, build_classifier_id
from ocelli_api.outcome import Outcome, ProgressReport
from ocelli_api.pods import CLASSIFIER_LABEL
from ocelli_api.revision import current_revision
from ocelli_operator.actions import Action, ApplyChild, DeleteChild, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.cluster_view import RESOURCE_OF_KIND, ClusterView
from ocelli_operator.config import ChildSettings
from ocelli_operator.events import EventRecorder
from ocelli_operator.job_events import JobEvents
from ocelli_operator.learning import next_attempt
from ocelli_operator.manifests.metadata import APPLIED_AS_ANNOTATION, FIELD_MANAGER, job_name
from ocelli_operator.memory import WAIT_FIRST_SECONDS, ClassifierMemory
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import (
    ChildKind,
    Observed,
    ObservedJob,
    ObservedPod,
    StoredArtifact,
    project_child,
    project_identity,
    project_pod,
)
from ocelli_operator.ownership import tell_in_the_way
from ocelli_operator.plan import Plan, plan_classifier
from ocelli_operator.starts import Starts
from ocelli_operator.status import Occurrence, find_occurrences, tell_no_room, tell_refusal
from ocelli_operator.store_contact import StoreOutageError
from ocelli_operator.training_store import TrainingStore
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import StoreQuotaError, StoreUnavailableError

logger = logging.getLogger(__name__)

EXCERPT_CHARACTERS = 600


class _InTheWayError(Exception):
    """An object that is there already has the name of one that is to be made. The message ends a sentence that begins with that
    one."""


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


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Jobs and Pods of one moment."""

    jobs: tuple[ObservedJob, ...]
    pods: tuple[ObservedPod, ...]

    def find_job(self, classifier: Classifier) -> ObservedJob | None:
        """The Job of the attempt that the current revision is in."""
        current = current_revision(classifier.spec)
        name = job_name(classifier.name, current, next_attempt(classifier.status, current))
        return next((job for job in self.jobs if job.identity.name == name), None)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What a pass has of the store. Where it could not be asked, `error` says why, and the artifact is as status knows it."""

    artifact: StoredArtifact | None = None
    artifact_lost: bool = False
    """The artifact of the served revision has vanished from the store."""
    outcome: Outcome | None = None
    progress: ProgressReport | None = None
    fault: str = ""
    error: StoreUnavailableError | None = None


class Done(Enum):
    """What came of an action."""

    DONE = auto()
    NEWS = auto()
    """It was refused, and the plan does not know it yet."""
    HINDERED = auto()
    """It is refused for now, as the plan says."""


class Reconciler:
    """Brings Classifiers to what they should be, one pass at a time. Keeps nothing that a successor would miss."""

    def __init__(self, parts: ReconcilerParts) -> None:
        self._parts = parts
        self._job_events = JobEvents(parts.client)
        self._memories: dict[str, ClassifierMemory] = {}
        """By UID of the Classifier."""
        self._lost_artifacts: dict[ObjectKey, str] | None = None
        """By Classifier, the served revision whose artifact has vanished; None until the store was looked through."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        """One pass; says after how many seconds to look again though nothing changes (None: never).

        Raises:
            ClusterError, ObjectStoreError: the pass could not be ended; try again later.
        """
        classifier = self._parts.view.classifier(key)
        starts = self._parts.starts
        if classifier is None:
            starts.forget(key)
            return None
        try:
            return await self._pass(key, classifier)
        except Exception:
            # It waits for something other than its turn, so others must not wait behind it.
            starts.forget(key)
            raise
        finally:
            starts.release(key, self._parts.view.family(key))

    async def _pass(self, key: ObjectKey, classifier: Classifier) -> float | None:
        memory = self._memories.setdefault(classifier.uid, ClassifierMemory())
        # Before the store is asked: a Job that has ended by then has stored its artifact. A later change brings another pass.
        seen = _Seen(jobs=self._parts.view.jobs(key), pods=self._parts.view.pods(key))
        stored = await self._read_store(key, classifier, seen)
        observed = await self._observe(key, classifier, seen, stored)
        store_error = stored.error
        # No await from here to the claim, so that no other pass can claim the same place.
        observed = replace(observed, allowed_starts=self._parts.starts.find_allowed(key))
        plan = plan_classifier(observed, self._parts.settings)
        self._parts.starts.note(key, begins=plan.begins, waits=plan.waits)
        memory.network_policy_blocked = plan.network_policy_blocked
        hindered = False
        for action in plan.actions:
            try:
                done = await self._act(classifier, memory, action)
            except StoreUnavailableError as error:
                # Said below; the rest is done all the same.
                store_error = error
                continue
            if done is Done.NEWS:
                # A manifest was refused: what that means is for the plan to say.
                return 0.0
            # This plan says so, if in the words of last time; the rest is done all the same.
            hindered |= done is Done.HINDERED
        if store_error is not stored.error:
            # What could be done is done; status says what could not.
            told = plan_classifier(replace(observed, store_trouble=str(store_error)), self._parts.settings)
            plan = replace(plan, status=told.status)
        if plan.status != classifier.status:
            await self._write_status(classifier, plan)
        if store_error is not None and not isinstance(store_error, StoreOutageError):
            raise store_error
        requeue_after_seconds = plan.requeue_after_seconds if store_error is None else store_error.retry_after_seconds
        if hindered:
            # Somebody has to make room, or way: nothing that an administrator is called for, and nothing that is heard of.
            self._parts.metrics.reconciles.labels("waiting").inc()
            wait_seconds = memory.next_wait_seconds()
            return wait_seconds if requeue_after_seconds is None else min(wait_seconds, requeue_after_seconds)
        memory.wait_seconds = WAIT_FIRST_SECONDS
        changed = bool(plan.actions) or plan.status != classifier.status
        self._parts.metrics.reconciles.labels("changed" if changed else "unchanged").inc()
        return requeue_after_seconds

    def forget(self, classifier: Classifier) -> None:
        """A Classifier went away."""
        self._memories.pop(classifier.uid, None)

    def count_blocked_network_policies(self) -> int:
        """How many Classifiers have no NetworkPolicy, or an outdated one, as far as passes have seen."""
        return sum(memory.network_policy_blocked for memory in self._memories.values())

    def note_lost_artifacts(self, lost: Mapping[ObjectKey, str]) -> set[ObjectKey]:
        """Artifacts of these served revisions, and of no others, have vanished; the Classifiers for which that is new."""
        before, self._lost_artifacts = self._lost_artifacts or {}, dict(lost)
        return {key for key, _ in before.items() ^ lost.items()}

    def _is_artifact_lost(self, key: ObjectKey, classifier: Classifier) -> bool:
        """Whether the artifact of the served revision has vanished."""
        status = classifier.status
        if status.served_revision is None:
            return False
        if self._lost_artifacts is not None:
            return self._lost_artifacts.get(key) == status.served_revision
        # What a predecessor has seen holds until the store was looked through. What is served is only trained where it is lost.
        if status.served_revision in (status.training_revision, status.failed_revision):
            return True
        ready = status.condition(ConditionType.READY)
        return ready is not None and ready.reason == ReadyReason.ARTIFACT_LOST

    # --- observe

    async def _read_store(self, key: ObjectKey, classifier: Classifier, seen: _Seen) -> _Stored:
        """What is needed of the store. What status and the Pods tell is not asked for: the store may not answer."""
        status, current = classifier.status, current_revision(classifier.spec)
        if status.classifier_id is None or classifier.deleted:
            return _Stored()
        recorded = next((entry for entry in status.history if entry.revision == current), None)
        lost = self._is_artifact_lost(key, classifier)
        is_served = status.served_revision == current
        if recorded is not None and is_served and not (lost and _trains_again(classifier, current)):
            return _Stored(artifact=_recorded_artifact(recorded), artifact_lost=lost)
        if lost and is_served:
            # What history says of it holds no more: it is learned again, or was put back.
            recorded = None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=status.classifier_id)
        attempt = next_attempt(status, current)
        job = seen.find_job(classifier)
        store = self._parts.store
        try:
            if job is not None and not job.finished:
                trainers = [pod for pod in seen.pods if pod.identity.owner_uid == job.identity.uid]
                if not any(pod.phase == "Succeeded" or pod.held_open for pod in trainers):
                    # A trainer that has not begun has stored nothing, and one that runs nothing but its progress.
                    running = any(pod.phase == "Running" for pod in trainers)
                    progress = await store.load_progress(location, current, attempt) if running else None
                    return _Stored(progress=progress, artifact_lost=lost)
            artifact = await self._load_artifact(location, recorded, current, attempt)
            if artifact is not None:
                if lost and is_served and self._lost_artifacts is not None:
                    self._lost_artifacts.pop(key, None)
                return _Stored(artifact=artifact, artifact_lost=lost and not is_served)
            return _Stored(
                artifact_lost=lost,
                outcome=await store.load_outcome(location, current, attempt) if job is None or job.finished else None,
                fault=store.find_fault(location, current, attempt),
                progress=await store.load_progress(location, current, attempt) if job is not None else None,
            )
        except StoreUnavailableError as error:
            # An attempt is under way only where the store was seen to have no artifact.
            known = recorded is not None and status.training_revision != current
            artifact = _recorded_artifact(recorded) if recorded is not None and known else None
            return _Stored(artifact=artifact, artifact_lost=lost, error=error)

    async def _load_artifact(
        self, location: ClassifierLocation, recorded: HistoryEntry | None, revision: str, attempt: int
    ) -> StoredArtifact | None:
        """The artifact of a revision that is not served, or None; of one in the history nothing has to be read again."""
        if recorded is None:
            return await self._parts.store.load_artifact(location, revision, attempt)
        return _recorded_artifact(recorded) if await self._parts.store.holds_artifact(location, revision) else None

    async def _observe(self, key: ObjectKey, classifier: Classifier, seen: _Seen, stored: _Stored) -> Observed:
        view = self._parts.view
        pods = seen.pods
        memory = self._memories.get(classifier.uid) or ClassifierMemory()
        pod_refusal = ""
        classifier_id = classifier.status.classifier_id
        if classifier_id is not None and not classifier.deleted and stored.artifact is None:
            job = seen.find_job(classifier)
            if job is not None and job.finished and not job.succeeded:
                pods = await self._fresh_trainers(classifier, job, pods)
            if job is not None:
                pod_refusal = await self._job_events.find_refusal(job, pods, self._parts.clock())
        needs_id = classifier_id is None and not classifier.deleted
        return Observed(
            classifier=classifier,
            now=self._parts.clock(),
            jobs=seen.jobs,
            pods=pods,
            deployments=view.deployments(key),
            services=view.services(key),
            autoscalers=view.autoscalers(key),
            disruption_budgets=view.disruption_budgets(key),
            network_policies=view.network_policies(key),
            gpu_nodes=view.gpu_nodes(),
            artifact=stored.artifact,
            artifact_lost=stored.artifact_lost,
            outcome=stored.outcome,
            progress=stored.progress,
            store_fault=stored.fault,
            store_trouble="" if stored.error is None else str(stored.error),
            progress_written_at=memory.progress_written_at,
            fresh_classifier_id=self._draw_classifier_id(classifier) if needs_id else "",
            id_taken=self._is_id_taken(classifier) if needs_id else False,
            applied=memory.applied,
            refusals=memory.refusals,
            dropped_revision=memory.dropped_revision,
            hindrances=memory.hindrances,
            pod_refusal=pod_refusal,
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

    async def _act(self, classifier: Classifier, memory: ClassifierMemory, action: Action) -> Done:
        """Do it, if it can be done."""
        try:
            if isinstance(action, RestoreLabel):
                await self._restore_label(classifier, action.classifier_id)
            elif isinstance(action, StartTraining):
                await self._start_training(classifier, action)
            elif isinstance(action, ApplyChild):
                await self._apply_child(classifier, memory, action)
            elif isinstance(action, DropExamples):
                await self._drop_examples(classifier, action)
                memory.dropped_revision = action.revision
            else:
                await self._delete_child(classifier, action)
        except (InvalidError, AdmissionError, StoreQuotaError, _InTheWayError) as error:
            if not isinstance(action, StartTraining | ApplyChild):
                raise
            if isinstance(error, InvalidError):
                memory.note(memory.refusals, action.manifest_hash, error.message[:EXCERPT_CHARACTERS])
                return Done.NEWS
            known = action.manifest_hash in memory.hindrances
            memory.note(memory.hindrances, action.manifest_hash, _tell_hindrance(error))
            return Done.HINDERED if known else Done.NEWS
        if isinstance(action, StartTraining | ApplyChild):
            memory.hindrances.pop(action.manifest_hash, None)
        return Done.DONE

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
        except ConflictError as error:
            # Created by a pass whose answer was lost, or by a predecessor; or it is somebody else's.
            manifest = await self._find_own(classifier, ChildKind.JOB, name, error)
            if manifest["metadata"].get("labels", {}).get(CLASSIFIER_LABEL) != classifier.name:
                raise _InTheWayError(f"is there without its label {CLASSIFIER_LABEL}; delete it") from None
        else:
            self._parts.metrics.jobs_started.inc()
            logger.info("training job created", extra={"classifier": str(classifier), "job": name})
            note = f"training Job {name} was created for revision {action.revision}"
            await self._record(classifier, Occurrence(type="Normal", reason="TrainingStarted", action="Train", note=note))
        self._parts.view.take_child(ChildKind.JOB, manifest)

    async def _apply_child(self, classifier: Classifier, memory: ClassifierMemory, action: ApplyChild) -> None:
        name, uid = action.manifest["metadata"]["name"], action.uid
        if uid is None:
            manifest = await self._create_child(classifier, action)
        else:
            manifest = await self._change_child(action, uid)
        child = project_child(manifest)
        if not child.matches(action.manifest):
            # A webhook has rewritten it, and would again: what it came to is noted on the child, for this process's successor.
            autoscaled = classifier.spec.serving.autoscaling is not None
            came_to = child.came_to(action.manifest, autoscaled=autoscaled)
            if child.applied_as != came_to:
                metadata = {"uid": child.identity.uid, "annotations": {APPLIED_AS_ANNOTATION: came_to}}
                manifest = await self._parts.client.patch(
                    RESOURCE_OF_KIND[action.kind],
                    classifier.namespace,
                    name,
                    {"metadata": metadata},
                    field_manager=FIELD_MANAGER,
                )
            memory.note(
                memory.applied, child.identity.uid, project_child(manifest).came_to(action.manifest, autoscaled=autoscaled)
            )
        self._parts.view.take_child(action.kind, manifest)
        logger.info("child applied", extra={"classifier": str(classifier), "kind": str(action.kind), "child": name})

    async def _create_child(self, classifier: Classifier, action: ApplyChild) -> Manifest:
        """By POST: what is there already is never taken over."""
        resource, name = RESOURCE_OF_KIND[action.kind], action.manifest["metadata"]["name"]
        try:
            return await self._parts.client.create(resource, classifier.namespace, action.manifest, field_manager=FIELD_MANAGER)
        except ConflictError as error:
            found = await self._find_own(classifier, action.kind, name, error)
        # Made by a pass whose answer was lost; or somebody took its labels away.
        return await self._change_child(action, found["metadata"]["uid"])

    async def _find_own(self, classifier: Classifier, kind: ChildKind, name: str, error: ConflictError) -> Manifest:
        """The Classifier's own child that a create met.

        Raises:
            _InTheWayError: it is somebody else's, or is on its way out.
            ConflictError: the conflict was another one.
        """
        if not error.already_exists:
            raise error
        try:
            manifest = await self._parts.client.get(RESOURCE_OF_KIND[kind], classifier.namespace, name)
        except NotFoundError:
            # It has gone since.
            raise error from None
        identity = project_identity(manifest)
        if identity.owner_uid != classifier.uid or identity.deleting:
            raise _InTheWayError(f"waits for its name: {tell_in_the_way(kind, identity)}")
        return manifest

    async def _change_child(self, action: ApplyChild, uid: str) -> Manifest:
        """Apply a manifest to this very object, and to no other one that has its name by now."""
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
            "status": build_document(plan.status),
        }
        try:
            manifest = await self._parts.client.apply(
                CLASSIFIERS, classifier.namespace, classifier.name, body, field_manager=FIELD_MANAGER, subresource="status"
            )
        except NotFoundError:
            if await self._is_there(classifier):
                # Its status cannot be written, which is another matter than an object that is gone.
                self._parts.metrics.status_refused.inc()
                raise
            return
        except ConflictError:
            raise
        except ApiError:
            self._parts.metrics.status_refused.inc()
            raise
        self._parts.view.take_classifier(manifest)
        if plan.status.progress is not None and plan.status.progress != classifier.status.progress:
            self._memories.setdefault(classifier.uid, ClassifierMemory()).progress_written_at = self._parts.clock()
        for occurrence in find_occurrences(classifier.status, plan.status):
            await self._record(classifier, occurrence)
        self._count_failure(classifier, plan)

    async def _is_there(self, classifier: Classifier) -> bool:
        # By a list, because the operator has no right to get one.
        selector = f"metadata.name={classifier.name}"
        listing = await self._parts.client.list_objects(CLASSIFIERS, classifier.namespace, field_selector=selector)
        return any(manifest["metadata"]["uid"] == classifier.uid for manifest in listing.items)

    def _count_failure(self, classifier: Classifier, plan: Plan) -> None:
        stalled = plan.status.condition(ConditionType.STALLED)
        if stalled is not None and classifier.status.condition(ConditionType.STALLED) is None:
            self._parts.metrics.revisions_stalled.labels(stalled.reason).inc()

    async def _record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        await self._parts.events.record(classifier, occurrence)


def _trains_again(classifier: Classifier, current: str) -> bool:
    """Whether somebody asked for a training of a revision that is served, or one is under way, or failed."""
    status = classifier.status
    return (
        status.observed_retrain_nonce != classifier.spec.retrain_nonce
        or status.training_revision == current
        or status.failed_revision == current
    )


def _recorded_artifact(entry: HistoryEntry) -> StoredArtifact:
    """The artifact of a revision as history has it: one that was stored never changes."""
    return StoredArtifact(
        revision=entry.revision,
        accuracy=entry.accuracy,
        accuracy_interval=entry.accuracy_interval,
        judged_images=entry.judged_images,
        digest=entry.artifact_digest,
        backbone=entry.backbone,
        finished_at=entry.trained_at,
    )


def _tell_hindrance(error: AdmissionError | StoreQuotaError | _InTheWayError) -> str:
    """What the child waits for, as the end of a sentence that begins with it."""
    if isinstance(error, AdmissionError):
        return tell_refusal(error.message[:EXCERPT_CHARACTERS])
    return tell_no_room(error.message) if isinstance(error, StoreQuotaError) else str(error)
