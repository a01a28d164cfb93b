"""Every manifest that the operator builds for a Classifier, as YAML next to this file. `make golden` rewrites it for review."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import Accelerator, Classifier, Manifest, parse_classifier
from ocelli_api.pods import TrainingStep
from ocelli_api.settings import load_settings
from ocelli_operator.manifests.autoscaler import build_autoscaler
from ocelli_operator.manifests.disruption_budget import build_disruption_budget
from ocelli_operator.manifests.inference_deployment import InferenceServers, build_inference_deployment
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.manifests.network_policy import build_network_policy
from ocelli_operator.manifests.service import build_service
from ocelli_operator.manifests.training_job import Attempt, build_training_job
from ocelli_operator.manifests.workers import build_workers_policy
from ocelli_operator.settings import ChildSettings

FOLDER = Path(__file__).parent
REVISION = "0123456789"
SETTINGS = load_settings(ChildSettings, {"OCELLI_STORE_URL": "file:///store"})


def make_owner(**spec: Any) -> ChildOwner:
    classifier: Classifier = parse_classifier(
        {
            "metadata": {"namespace": "team-a", "name": "dogs", "uid": "11111111-2222-3333-4444-555555555555"},
            "spec": {"classes": [{"name": "beagle", "examples": []}, {"name": "husky", "examples": []}], **spec},
        }
    )
    return ChildOwner(classifier=classifier, classifier_id="dogs_19")


PLACED = {
    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
}
FULL_SETTINGS = load_settings(
    ChildSettings,
    {
        "OCELLI_STORE_URL": "file:///store",
        "OCELLI_BACKBONES": f"EfficientNetLite0={'a' * 64}",
        "OCELLI_FILE_SOURCES_FOLDER": "/examples",
    },
)
EMBEDDED = load_settings(ChildSettings, {"OCELLI_STORE_URL": "http://ocelli-store.ocelli-system:8082"})
BUCKET = load_settings(
    ChildSettings,
    {
        "OCELLI_STORE_URL": "s3://ocelli/production",
        "OCELLI_STORE_SECRET": "ocelli-bucket",
        "OCELLI_WORKLOAD_SERVICE_ACCOUNT": "ocelli-workload",
    },
)
GPU = load_settings(
    ChildSettings,
    {
        "OCELLI_STORE_URL": "file:///store",
        "OCELLI_TRAINER_GPU_IMAGE": "ocelli-trainer:latest-cuda",
        "OCELLI_INFERENCE_GPU_IMAGE": "ocelli-inference:latest-cuda",
        "OCELLI_GPU_NODE_SELECTOR": '{"pool": "gpu"}',
        "OCELLI_GPU_TOLERATIONS": '[{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]',
        "OCELLI_GPU_RUNTIME_CLASS": "nvidia",
    },
)
PEERS = load_settings(
    ChildSettings,
    {
        "OCELLI_STORE_URL": "file:///store",
        "OCELLI_INFERENCE_PEERS": '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ocelli-system"}}, '
        '"podSelector": {"matchLabels": {"app.kubernetes.io/name": "ocelli-gateway"}}}]',
        "OCELLI_METRICS_PEERS": '[{"ipBlock": {"cidr": "192.0.2.0/24"}}]',
    },
).network_peers
assert PEERS is not None
FIRST = Attempt(revision=REVISION, number=1)
ONE = InferenceServers(revision=REVISION, replicas=1)


def build_placed_job() -> Manifest:
    training = {**PLACED, "priorityClassName": "batch", "backoffLimit": 0, "activeDeadlineSeconds": 600}
    return build_training_job(make_owner(training=training), FULL_SETTINGS, Attempt(revision=REVISION, number=7))


def build_queued_job() -> Manifest:
    attempt = Attempt(revision=REVISION, number=1, accelerator=Accelerator.GPU)
    return build_training_job(make_owner(training={"queueName": "gpus"}), GPU, attempt)


def build_gpu_job() -> Manifest:
    """`Auto` that chose a GPU."""
    attempt = Attempt(revision=REVISION, number=1, accelerator=Accelerator.GPU)
    return build_training_job(make_owner(training={"tolerations": PLACED["tolerations"]}), GPU, attempt)


def build_workers_job() -> Manifest:
    """Two workers that train on GPUs together."""
    attempt = Attempt(revision=REVISION, number=1, accelerator=Accelerator.GPU)
    owner = make_owner(model={"strategy": "FineTune"}, training={"workers": 2})
    return build_training_job(owner, GPU, attempt)


def build_check_job() -> Manifest:
    """The check before a training on GPUs, without any."""
    limits = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"}
    attempt = Attempt(revision=REVISION, number=1, step=TrainingStep.CHECK)
    return build_training_job(make_owner(training={"resources": {"limits": limits}}), GPU, attempt)


def build_job_with_secrets() -> Manifest:
    """Sources with Secrets, one of them twice, and everything that an installation sets for sources."""
    settings = load_settings(
        ChildSettings,
        {
            "OCELLI_STORE_URL": "file:///store",
            "OCELLI_SOURCES_PROXY": "http://proxy.example.com:3128",
            "OCELLI_SOURCES_IDENTITY_BUCKETS": "s3://training,gs://images",
            "OCELLI_SOURCES_CACHE": "true",
        },
    )
    names = ("s3-read", "web", "s3-read")
    examples = [{"url": f"s3://training/{number}.zip", "secretRef": {"name": name}} for number, name in enumerate(names)]
    classes = [{"name": "beagle", "examples": examples}, {"name": "husky", "examples": []}]
    return build_training_job(make_owner(classes=classes), settings, FIRST)


def build_gpu_deployment() -> Manifest:
    """A requested GPU, with a RuntimeClass and a number of GPUs from the Classifier."""
    limits = {"memory": "8Gi", "nvidia.com/gpu": 2}
    serving = {"accelerator": "GPU", "runtimeClassName": "nvidia-legacy", "resources": {"limits": limits}}
    servers = InferenceServers(revision=REVISION, replicas=1, accelerator=Accelerator.GPU)
    return build_inference_deployment(make_owner(serving=serving), GPU, servers)


def build_plain_autoscaler() -> Manifest:
    owner = make_owner(serving={"autoscaling": {"minReplicas": 2, "maxReplicas": 6, "targetCPUUtilization": 70}})
    assert owner.classifier.spec.serving.autoscaling is not None
    return build_autoscaler(owner, owner.classifier.spec.serving.autoscaling, REVISION)


BUILDERS: dict[str, Callable[[], Manifest]] = {
    "training_job": lambda: build_training_job(make_owner(), SETTINGS, FIRST),
    "training_job_placed": build_placed_job,
    "inference_deployment": lambda: build_inference_deployment(make_owner(), SETTINGS, ONE),
    "inference_deployment_placed": lambda: build_inference_deployment(
        make_owner(serving=PLACED), SETTINGS, InferenceServers(revision=REVISION, replicas=3)
    ),
    "training_job_gpu": build_gpu_job,
    "training_job_secrets": build_job_with_secrets,
    "training_job_queued": build_queued_job,
    "inference_deployment_gpu": build_gpu_deployment,
    "training_job_check": build_check_job,
    "training_job_embedded_store": lambda: build_training_job(make_owner(), EMBEDDED, FIRST),
    "training_job_workers": build_workers_job,
    "training_job_bucket": lambda: build_training_job(make_owner(), BUCKET, FIRST),
    "inference_deployment_embedded_store": lambda: build_inference_deployment(make_owner(), EMBEDDED, ONE),
    "inference_deployment_bucket": lambda: build_inference_deployment(make_owner(), BUCKET, ONE),
    "service": lambda: build_service(make_owner(), REVISION),
    "autoscaler": build_plain_autoscaler,
    "network_policy_workers": lambda: build_workers_policy(make_owner()),
    "network_policy": lambda: build_network_policy(make_owner(), PEERS),
    "disruption_budget": lambda: build_disruption_budget(make_owner(), REVISION),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_manifest_is_the_golden_one(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    manifest = BUILDERS[name]()
    if os.environ.get("OCELLI_REWRITE_GOLDEN"):
        path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    assert yaml.safe_load(path.read_text()) == manifest, "run `make golden` and review the difference"


def nodes(value: Any) -> list[Any]:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(node for child in children for node in nodes(child))]


@pytest.mark.parametrize("name", BUILDERS)
def test_no_part_of_a_manifest_is_shared(name: str) -> None:
    containers = [id(node) for node in nodes(BUILDERS[name]()) if isinstance(node, dict | list)]
    assert len(containers) == len(set(containers))
