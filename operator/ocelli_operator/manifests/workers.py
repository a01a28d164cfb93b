"""Several workers of one training: the Pods of an Indexed Job, which find each other through the object store. Pure."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_api.outcome import ExitCode
from ocelli_api.pods import CLASSIFIER_LABEL, COMPONENT_LABEL, TRAINER_CONTAINER, Component, Environment
from ocelli_operator.manifests.metadata import ChildOwner, build_labels, build_metadata, workers_policy_name


def build_completions(workers: int) -> Manifest:
    """Fields of the Job's spec: one Pod for each worker, all at the same time."""
    return {} if workers == 1 else {"completionMode": "Indexed", "completions": workers, "parallelism": workers}


def build_worker_rules(workers: int) -> list[Manifest]:
    """Rules of the Job's `podFailurePolicy`: a worker that ends because another one was lost is not a failure of its own."""
    if workers == 1:
        return []
    exit_codes = {"containerName": TRAINER_CONTAINER, "operator": "In", "values": [int(ExitCode.WORKER_LOST)]}
    return [{"action": "Ignore", "onExitCodes": exit_codes}]


def build_worker_environment(workers: int) -> list[Manifest]:
    """Variables of the trainer. Kubernetes adds the number of the worker."""
    if workers == 1:
        return []
    return [
        {"name": str(Environment.WORKERS), "value": str(workers)},
        {"name": str(Environment.BIND_ADDRESS), "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]


def build_workers_policy(owner: ChildOwner) -> Manifest:
    """The NetworkPolicy of a Classifier's workers, which have no authentication: only they may connect to each other."""
    workers = {"matchLabels": {CLASSIFIER_LABEL: owner.name, COMPONENT_LABEL: str(Component.TRAINING)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(owner, workers_policy_name(owner.name), build_labels(owner, Component.TRAINING)),
        "spec": {
            "podSelector": workers,
            "policyTypes": ["Ingress"],
            # Libraries choose their ports themselves.
            "ingress": [{"from": [{"podSelector": {"matchLabels": dict(workers["matchLabels"])}}]}],
        },
    }
