"""Names, labels, annotations and owners of a Classifier's children."""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.classifier import API_VERSION, CLASSIFIER_ID_LABEL, GROUP, KIND, Classifier, Manifest
from ocelli_api.pods import CLASSIFIER_LABEL, COMPONENT_LABEL, INFERENCE_PORT, REVISION_LABEL, Component, TrainingStep

FIELD_MANAGER = "ocelli-operator"
MANAGED_BY = "ocelli-operator"

MANIFEST_HASH_ANNOTATION = f"{GROUP}/manifest-hash"
"""Hash of the manifest that was last applied: a child whose manifest has another hash is applied again."""
APPLIED_AS_ANNOTATION = f"{GROUP}/applied-as"
"""If a webhook rewrote what was applied: hash of the result. While the child is unchanged, it is not applied again."""
TEMPLATE_HASH_ANNOTATION = f"{GROUP}/template-hash"
"""On a Deployment: hash of the Pod template that was last applied, before any webhook. While it is the same, no Pod is
replaced."""
TRAINING_HASH_ANNOTATION = f"{GROUP}/training-hash"
"""On a Job: hash of the `spec.training` that it was built from."""
PLACEMENT_HASH_ANNOTATION = f"{GROUP}/placement-hash"
"""On a Deployment: hash of what the spec asked for when its accelerator was chosen. While it is the same, the choice stays."""
SERVING_HASH_ANNOTATION = f"{GROUP}/serving-hash"
"""On a Deployment: hash of the `spec.serving` that it was built from. While it is the same, only the installation can
have changed what is desired."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""On training Jobs and their Pods: the attempt."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Kueue's label on a Job: the LocalQueue that it waits in."""
WORKER_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""On the Pods of an Indexed Job, set by Kubernetes: the number of the worker."""
JOB_NAME_LIMIT = 63
"""The Pods of a Job carry its name as the value of a label."""
INDEXED_JOB_NAME_LIMIT = JOB_NAME_LIMIT - len("-15")
"""The names of an Indexed Job's Pods in the network are its name and their number."""


@dataclass(frozen=True, kw_only=True)
class ChildOwner:
    """The Classifier that owns the children, and its id in the store."""

    classifier: Classifier
    classifier_id: str

    @property
    def namespace(self) -> str:
        return self.classifier.namespace

    @property
    def name(self) -> str:
        return self.classifier.name


def job_name(
    classifier_name: str, revision: str, attempt: int, step: TrainingStep = TrainingStep.TRAIN, *, workers: int = 1
) -> str:
    """Jobs are immutable: each revision, attempt and step needs a name of its own.

    Attempts are counted as long as a Classifier lives. If number and name together get too long, a digest replaces the end of
    the name.
    """
    suffix = f"-{revision}-{attempt}" + ("-check" if step is TrainingStep.CHECK else "")
    limit = JOB_NAME_LIMIT if workers == 1 else INDEXED_JOB_NAME_LIMIT
    if len(classifier_name) + len(suffix) > limit:
        digest = sha256_hex(classifier_name.encode())[:10]
        classifier_name = f"{classifier_name[: limit - len(suffix) - len(digest) - 1]}-{digest}"
    return classifier_name + suffix


def job_names(classifier_name: str, revision: str, attempt: int, step: TrainingStep = TrainingStep.TRAIN) -> frozenset[str]:
    """The names that the Job of an attempt can have: whether it has several workers may have changed since."""
    return frozenset(job_name(classifier_name, revision, attempt, step, workers=workers) for workers in (1, 2))


def service_name(classifier_name: str) -> str:
    """The name of a Service must not begin with a digit; the name of a Classifier may."""
    return f"clf-{classifier_name}"


def network_policy_name(classifier_name: str) -> str:
    """With a prefix, because users have policies of their own with names such as `default`."""
    return f"clf-{classifier_name}"


def workers_policy_name(classifier_name: str) -> str:
    """The NetworkPolicy of workers that train together. With a dot, because a Classifier can be called `dogs-workers`."""
    return f"clf-{classifier_name}.workers"


def endpoint(classifier: Classifier) -> str:
    """Address of the inference servers inside the cluster."""
    return f"http://{service_name(classifier.name)}.{classifier.namespace}.svc:{INFERENCE_PORT}"


def selector_labels(classifier_name: str, component: Component, revision: str) -> dict[str, str]:
    """Labels that select the Pods of one revision."""
    return {CLASSIFIER_LABEL: classifier_name, COMPONENT_LABEL: str(component), REVISION_LABEL: revision}


def build_labels(owner: ChildOwner, component: Component, revision: str | None = None) -> dict[str, str]:
    """Labels of a child, and of its Pods if it has any. `revision` is None for a child that serves all revisions."""
    program = "ocelli-trainer" if component is Component.TRAINING else "ocelli-inference"
    return {
        CLASSIFIER_LABEL: owner.name,
        COMPONENT_LABEL: str(component),
        **({} if revision is None else {REVISION_LABEL: revision}),
        CLASSIFIER_ID_LABEL: owner.classifier_id,
        "app.kubernetes.io/name": program,
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/component": str(component),
        "app.kubernetes.io/part-of": "ocelli",
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }


def build_owner_reference(classifier: Classifier) -> Manifest:
    """`blockOwnerDeletion` is false: setting it requires a permission on finalizers, and no deletion waits for children."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": classifier.name,
        "uid": classifier.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def build_metadata(owner: ChildOwner, name: str, labels: dict[str, str]) -> Manifest:
    """Metadata of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels,
        "ownerReferences": [build_owner_reference(owner.classifier)],
    }


def manifest_hash(manifest: Manifest) -> str:
    """Sixteen hex digits over a manifest."""
    return sha256_hex(canonical_bytes(manifest))[:16]


def hash_annotation(manifest: Manifest) -> str:
    """The hash that a child's manifest carries."""
    text: str = manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]
    return text
