"""The operator's settings, from the environment and the files that it names. Every variable is explained in `SETTINGS`."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_cluster.resource_cache import WatchTimeouts

from ocelli_api.log_lines import parse_log_level
from ocelli_api.network_addresses import parse_networks
from ocelli_api.quantities import parse_quantity

Resources = Mapping[str, Mapping[str, Any]]

JOB_TTL_LEAST_SECONDS = 60


class ConfigError(Exception):
    """A setting is missing or wrong: the message names the variable, the value and what it should be."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One variable. `default` is its text where it is not set; None: it must be set."""

    name: str
    default: str | None
    meaning: str


STORE_URL = Setting(
    name="OCELLI_STORE_URL",
    default=None,
    meaning="Object store of the installation: `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`, or `http://host` of "
    "the embedded store. Handed on to trainers and inference servers.",
)
STORE_SECRET = Setting(
    name="OCELLI_STORE_SECRET",
    default="",
    meaning="Name of a Secret, in each namespace of Classifiers, whose keys are the variables (`AWS_ACCESS_KEY_ID`, …) by "
    "which trainers and inference servers log in to a bucket; empty: none.",
)
WORKLOAD_SERVICE_ACCOUNT = Setting(
    name="OCELLI_WORKLOAD_SERVICE_ACCOUNT",
    default="",
    meaning="ServiceAccount of trainers and inference servers, in each namespace of Classifiers, for workload identity; empty: "
    "that namespace's `default`.",
)
TRAINER_IMAGE = Setting(name="OCELLI_TRAINER_IMAGE", default="ocelli-trainer:latest", meaning="Image of training Jobs.")
INFERENCE_IMAGE = Setting(
    name="OCELLI_INFERENCE_IMAGE", default="ocelli-inference:latest", meaning="Image of inference servers."
)
TRAINER_GPU_IMAGE = Setting(
    name="OCELLI_TRAINER_GPU_IMAGE",
    default="",
    meaning="Image of training Jobs that get a GPU; empty: none is offered to trainings, and `Auto` means CPU.",
)
INFERENCE_GPU_IMAGE = Setting(
    name="OCELLI_INFERENCE_GPU_IMAGE",
    default="",
    meaning="Image of inference servers that get a GPU; empty: none is offered to them, and `Auto` means CPU.",
)
GPU_RESOURCE = Setting(
    name="OCELLI_GPU_RESOURCE",
    default="nvidia.com/gpu",
    meaning="What nodes call an NVIDIA GPU, or a part of one (`nvidia.com/mig-1g.10gb`), among their resources. Pods that get "
    "one tolerate the taint of this name.",
)
GPU_NODE_SELECTOR = Setting(
    name="OCELLI_GPU_NODE_SELECTOR",
    default="{}",
    meaning="Labels (JSON) that the node of a Pod with a GPU must have, in addition to those that the Classifier names.",
)
GPU_TOLERATIONS = Setting(
    name="OCELLI_GPU_TOLERATIONS",
    default="[]",
    meaning="Tolerations (JSON) of Pods with a GPU, in addition to those that the Classifier names.",
)
GPU_RUNTIME_CLASS = Setting(
    name="OCELLI_GPU_RUNTIME_CLASS",
    default="",
    meaning="RuntimeClass of Pods with a GPU whose Classifier names none, such as `nvidia`; empty: the cluster's default.",
)
WATCH_NODES = Setting(
    name="OCELLI_WATCH_NODES",
    default="true",
    meaning="`true`: where a GPU image is set, nodes are watched for GPUs, which needs the rights to list and watch nodes. "
    "`false`, or without those rights: `accelerator: Auto` means CPU, `GPU` works as ever.",
)
IMAGE_PULL_POLICY = Setting(
    name="OCELLI_IMAGE_PULL_POLICY",
    default="IfNotPresent",
    meaning="When nodes fetch these images: `Always`, `IfNotPresent` or `Never`.",
)
BACKBONES = Setting(
    name="OCELLI_BACKBONES",
    default="",
    meaning="Backbones on hand, `NAME=DIGEST,NAME=DIGEST`; `model.backbone: Auto` takes `EfficientNetLite0`, or the first "
    "where that is not among them.",
)
BACKBONES_FOLDER = Setting(
    name="OCELLI_BACKBONES_FOLDER",
    default="",
    meaning="Folder of files with further backbones, `NAME=DIGEST` each, as `python -m ocelli_model.publish --output` writes "
    "them; taken in the order of their names, behind those of `OCELLI_BACKBONES`.",
)
FILE_SOURCES_FOLDER = Setting(
    name="OCELLI_FILE_SOURCES_FOLDER",
    default="",
    meaning="Folder in which trainers resolve `file://` sources; empty: such sources are refused.",
)
SOURCES_ALLOWED_NETWORKS = Setting(
    name="OCELLI_SOURCES_ALLOWED_NETWORKS",
    default="",
    meaning="Networks (`10.1.0.0/16,fd00::/8`) that trainers may fetch sources from though they are private; empty: none. "
    "Whoever may write Classifiers reaches every port in them.",
)
SOURCES_DENIED_NETWORKS = Setting(
    name="OCELLI_SOURCES_DENIED_NETWORKS",
    default="",
    meaning="Networks that trainers may not fetch sources from though they are public, or lie in allowed ones; empty: none.",
)
INFERENCE_PEERS = Setting(
    name="OCELLI_INFERENCE_PEERS",
    default="",
    meaning="Peers (a JSON list, as in a NetworkPolicy) that may call inference servers, next to Pods of the Classifier's own "
    "namespace: the gateway. Each Classifier then has a NetworkPolicy. Empty: there is none, and every Pod may call them.",
)
METRICS_PEERS = Setting(
    name="OCELLI_METRICS_PEERS",
    default="[]",
    meaning="Peers (a JSON list) that may read the metrics of inference servers, next to Pods of the Classifier's own "
    "namespace: Prometheus. Of use only where `OCELLI_INFERENCE_PEERS` is set.",
)
TRAINER_RESOURCES = Setting(
    name="OCELLI_TRAINER_RESOURCES",
    default='{"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}',
    meaning="Resources (JSON) of a trainer whose Classifier names none in `spec.training.resources`; no GPUs.",
)
INFERENCE_RESOURCES = Setting(
    name="OCELLI_INFERENCE_RESOURCES",
    default='{"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}',
    meaning="Resources (JSON) of an inference server whose Classifier names none in `spec.serving.resources`; no GPUs.",
)
TRAINER_SCRATCH_SIZE = Setting(
    name="OCELLI_TRAINER_SCRATCH_SIZE",
    default="32Gi",
    meaning="Limit of a trainer's scratch folder, a quantity. It holds up to eight zips of 1 GiB while they are read, then "
    "150 kB or so for each image. A trainer that writes more is evicted, and the training fails.",
)
INFERENCE_SCRATCH_SIZE = Setting(
    name="OCELLI_INFERENCE_SCRATCH_SIZE",
    default="8Gi",
    meaning="Limit of an inference server's scratch folder, a quantity. It holds the network's files, at most 2 GB, while they "
    "are loaded, and the caches of libraries. A server that writes more is evicted.",
)
ROLLOUT_DEADLINE_SECONDS = Setting(
    name="OCELLI_ROLLOUT_DEADLINE_SECONDS",
    default="600",
    meaning="After how many seconds without progress a new revision's rollout has failed.",
)
JOB_TTL_SECONDS = Setting(
    name="OCELLI_JOB_TTL_SECONDS",
    default="21600",
    meaning="How long a finished training Job, with the log of its Pod, is kept; at least 60: how some trainings ended is "
    "known from the Job alone.",
)
TRAININGS_STARTING_LIMIT = Setting(
    name="OCELLI_TRAININGS_STARTING_LIMIT",
    default="100",
    meaning="How many training Jobs of the installation may be starting at once: no trainer of theirs has begun yet. A Job "
    "counts for a minute at most. Further trainings wait for their turn, one namespace after the other.",
)
ROLLOUTS_LIMIT = Setting(
    name="OCELLI_ROLLOUTS_LIMIT",
    default="20",
    meaning="How many Deployments of inference servers may be made, or have their Pods replaced, at once in the installation. "
    "New revisions and users' changes come first, and count for a minute at most; what an upgrade replaces, as for a new "
    "inference image, waits for room, and counts until it is done or past `OCELLI_ROLLOUT_DEADLINE_SECONDS`.",
)
NAMESPACES = Setting(name="OCELLI_NAMESPACES", default="", meaning="Namespaces to look after, `a,b`; empty: every namespace.")
WORKERS = Setting(name="OCELLI_WORKERS", default="8", meaning="How many Classifiers are reconciled at the same time.")
WATCH_SECONDS = Setting(
    name="OCELLI_WATCH_SECONDS",
    default="30-60",
    meaning="How long one watch lasts, `LEAST-MOST`: a connection that died silently is noticed ten seconds after.",
)
STALE_WATCH_LIMIT_SECONDS = Setting(
    name="OCELLI_STALE_WATCH_LIMIT_SECONDS",
    default="180",
    meaning="Liveness fails when a watch has heard nothing of the API server for this many seconds.",
)
RECONCILE_LIMIT_SECONDS = Setting(
    name="OCELLI_RECONCILE_LIMIT_SECONDS",
    default="300",
    meaning="Liveness fails when the pass over one Classifier has not ended after this many seconds; the log names it. Each "
    "request to the API server or the store has a limit of about half a minute.",
)
SWEEP_INTERVAL_SECONDS = Setting(
    name="OCELLI_SWEEP_INTERVAL_SECONDS",
    default="900",
    meaning="How often stored bytes that no Classifier refers to are looked for.",
)
SWEEP_MINIMUM_AGE_SECONDS = Setting(
    name="OCELLI_SWEEP_MINIMUM_AGE_SECONDS",
    default="3600",
    meaning="What no Classifier refers to is spared until it is older than this, and this installation has seen it unused for "
    "as long, unless its Classifier was seen to be deleted.",
)
SWEEP_LIMIT_PERCENT = Setting(
    name="OCELLI_SWEEP_LIMIT_PERCENT",
    default="25",
    meaning="Nothing is swept of what is stored for a namespace while no Classifier refers to more than this share of it; up "
    "to 20 objects of Classifiers that exist go in any case. `100` lets everything go.",
)
ADOPT_STORE = Setting(
    name="OCELLI_ADOPT_STORE",
    default="",
    meaning="Name of another installation, the UID of its Lease, whose store this one takes over; empty: a store that belongs "
    "to another installation is not swept. Naming it once is enough.",
)
BIND_ADDRESS = Setting(name="POD_IP", default="127.0.0.1", meaning="Address that health and metrics are served on.")
HEALTH_PORT = Setting(name="OCELLI_HEALTH_PORT", default="8081", meaning="Port of `/healthz`.")
METRICS_PORT = Setting(name="OCELLI_METRICS_PORT", default="9090", meaning="Port of `/metrics`.")
POD_NAME = Setting(
    name="POD_NAME",
    default="",
    meaning="Name under which this operator holds the Lease; empty: one of its own, drawn at the start. A container that "
    "restarts in its Pod takes the Lease over at once, because it has the name of its predecessor.",
)
POD_NAMESPACE = Setting(name="POD_NAMESPACE", default="ocelli-system", meaning="Namespace of the Lease: the operator's own.")
LEASE_NAME = Setting(
    name="OCELLI_LEASE_NAME",
    default="ocelli-operator",
    meaning="Name of the Lease by which one operator at a time works; two installations in one namespace need two.",
)
LOG_LEVEL = Setting(name="OCELLI_LOG_LEVEL", default="INFO", meaning="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")

SETTINGS: tuple[Setting, ...] = (
    STORE_URL,
    STORE_SECRET,
    WORKLOAD_SERVICE_ACCOUNT,
    TRAINER_IMAGE,
    INFERENCE_IMAGE,
    TRAINER_GPU_IMAGE,
    INFERENCE_GPU_IMAGE,
    IMAGE_PULL_POLICY,
    GPU_RESOURCE,
    GPU_NODE_SELECTOR,
    GPU_TOLERATIONS,
    GPU_RUNTIME_CLASS,
    WATCH_NODES,
    BACKBONES,
    BACKBONES_FOLDER,
    FILE_SOURCES_FOLDER,
    SOURCES_ALLOWED_NETWORKS,
    SOURCES_DENIED_NETWORKS,
    INFERENCE_PEERS,
    METRICS_PEERS,
    TRAINER_RESOURCES,
    INFERENCE_RESOURCES,
    TRAINER_SCRATCH_SIZE,
    INFERENCE_SCRATCH_SIZE,
    ROLLOUT_DEADLINE_SECONDS,
    JOB_TTL_SECONDS,
    TRAININGS_STARTING_LIMIT,
    ROLLOUTS_LIMIT,
    NAMESPACES,
    WORKERS,
    WATCH_SECONDS,
    STALE_WATCH_LIMIT_SECONDS,
    RECONCILE_LIMIT_SECONDS,
    SWEEP_INTERVAL_SECONDS,
    SWEEP_MINIMUM_AGE_SECONDS,
    SWEEP_LIMIT_PERCENT,
    ADOPT_STORE,
    BIND_ADDRESS,
    HEALTH_PORT,
    METRICS_PORT,
    POD_NAME,
    POD_NAMESPACE,
    LEASE_NAME,
    LOG_LEVEL,
)

_BACKBONE_FORM = re.compile(r"[A-Za-z0-9_.]+=[0-9a-f]{64}")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_SWITCH = ("true", "false")
# The form of Kubernetes' qualified names, with the prefix that every resource but those of its own has.
_RESOURCE_FORM = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?")
_PEER_FIELDS = frozenset({"podSelector", "namespaceSelector", "ipBlock"})
_TOLERATION_FIELDS = frozenset({"key", "operator", "value", "effect", "tolerationSeconds"})


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """What the installation adds to Pods that get a GPU."""

    resource: str
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    runtime_class: str

    def is_gpu(self, name: str) -> bool:
        """Whether a resource is of the same maker, hence a GPU or a part of one, such as `nvidia.com/mig-1g.10gb`."""
        return name.partition("/")[0] == self.resource.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class NetworkPeers:
    """Who may connect to inference servers, as NetworkPolicies describe peers; Pods of their own namespace may in any case."""

    callers: tuple[Mapping[str, Any], ...]
    metrics_readers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """What the manifests of a Classifier's children need to know of the installation."""

    store_url: str
    store_secret: str
    workload_service_account: str
    trainer_image: str
    inference_image: str
    trainer_gpu_image: str
    """Empty: trainings get no GPU."""
    inference_gpu_image: str
    """Empty: inference servers get no GPU."""
    gpu: GpuSettings
    image_pull_policy: str
    backbones: str
    file_sources_folder: str
    sources_allowed_networks: str
    sources_denied_networks: str
    network_peers: NetworkPeers | None
    """None: no NetworkPolicies are made."""
    trainer_resources: Resources
    inference_resources: Resources
    trainer_scratch_size: str
    inference_scratch_size: str
    rollout_deadline_seconds: int
    job_ttl_seconds: int
    trainings_starting_limit: int
    """How many training Jobs may be starting at once."""
    rollouts_limit: int
    """How many Deployments may be rolled out at once."""
    log_level: str


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """Everything that can be set."""

    children: ChildSettings
    namespaces: tuple[str, ...]
    """Empty: every namespace."""
    watch_nodes: bool
    """Whether nodes are watched for GPUs: there is an image for them, and nobody forbids it."""
    workers: int
    watch_timeouts: WatchTimeouts
    stale_watch_limit_seconds: int
    reconcile_limit_seconds: int
    sweep_interval_seconds: int
    sweep_minimum_age_seconds: int
    sweep_limit_percent: int
    adopt_store: str
    bind_address: str
    health_port: int
    metrics_port: int
    identity: str
    lease_namespace: str
    lease_name: str
    log_level: str


def parse_config(environment: Mapping[str, str]) -> OperatorConfig:
    """Type the environment.

    Raises:
        ConfigError: a variable is missing or wrong.
    """
    try:
        log_level = parse_log_level(_text(environment, LOG_LEVEL))
    except ValueError as error:
        raise ConfigError(f"{LOG_LEVEL.name} is {error}") from None
    gpu = _gpu(environment)
    backbones = ",".join([*_listed_backbones(environment), *_found_backbones(environment)])
    children = ChildSettings(
        store_url=_text(environment, STORE_URL),
        store_secret=_text(environment, STORE_SECRET),
        workload_service_account=_text(environment, WORKLOAD_SERVICE_ACCOUNT),
        trainer_image=_text(environment, TRAINER_IMAGE),
        inference_image=_text(environment, INFERENCE_IMAGE),
        trainer_gpu_image=_text(environment, TRAINER_GPU_IMAGE),
        inference_gpu_image=_text(environment, INFERENCE_GPU_IMAGE),
        gpu=gpu,
        image_pull_policy=_one_of(environment, IMAGE_PULL_POLICY, _PULL_POLICIES),
        backbones=backbones,
        file_sources_folder=_text(environment, FILE_SOURCES_FOLDER),
        sources_allowed_networks=_networks(environment, SOURCES_ALLOWED_NETWORKS),
        sources_denied_networks=_networks(environment, SOURCES_DENIED_NETWORKS),
        network_peers=_network_peers(environment),
        trainer_resources=_resources(environment, TRAINER_RESOURCES, gpu),
        inference_resources=_resources(environment, INFERENCE_RESOURCES, gpu),
        trainer_scratch_size=_quantity(environment, TRAINER_SCRATCH_SIZE),
        inference_scratch_size=_quantity(environment, INFERENCE_SCRATCH_SIZE),
        rollout_deadline_seconds=_number(environment, ROLLOUT_DEADLINE_SECONDS, least=1),
        # A Job that goes before it was looked at takes along how it ended: it would be made again and again.
        job_ttl_seconds=_number(environment, JOB_TTL_SECONDS, least=JOB_TTL_LEAST_SECONDS),
        trainings_starting_limit=_number(environment, TRAININGS_STARTING_LIMIT, least=1),
        rollouts_limit=_number(environment, ROLLOUTS_LIMIT, least=1),
        log_level=log_level,
    )
    gpu_images = children.trainer_gpu_image or children.inference_gpu_image
    return OperatorConfig(
        children=children,
        namespaces=tuple(name.strip() for name in _text(environment, NAMESPACES).split(",") if name.strip()),
        watch_nodes=_one_of(environment, WATCH_NODES, _SWITCH) == "true" and bool(gpu_images),
        workers=_number(environment, WORKERS, least=1),
        watch_timeouts=_watch_timeouts(environment),
        stale_watch_limit_seconds=_number(environment, STALE_WATCH_LIMIT_SECONDS, least=1),
        reconcile_limit_seconds=_number(environment, RECONCILE_LIMIT_SECONDS, least=1),
        sweep_interval_seconds=_number(environment, SWEEP_INTERVAL_SECONDS, least=1),
        sweep_minimum_age_seconds=_number(environment, SWEEP_MINIMUM_AGE_SECONDS, least=0),
        sweep_limit_percent=_percent(environment, SWEEP_LIMIT_PERCENT),
        adopt_store=_text(environment, ADOPT_STORE),
        bind_address=_text(environment, BIND_ADDRESS),
        health_port=_number(environment, HEALTH_PORT, least=1),
        metrics_port=_number(environment, METRICS_PORT, least=1),
        identity=_text(environment, POD_NAME) or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
        lease_namespace=_text(environment, POD_NAMESPACE),
        lease_name=_text(environment, LEASE_NAME),
        log_level=log_level,
    )


def _text(environment: Mapping[str, str], setting: Setting) -> str:
    value = environment.get(setting.name) or setting.default
    if value is None:
        raise ConfigError(f"{setting.name} is not set; set it: {setting.meaning}")
    return value


def _listed_backbones(environment: Mapping[str, str]) -> list[str]:
    text = _text(environment, BACKBONES)
    items = text.split(",") if text else []
    if not all(_BACKBONE_FORM.fullmatch(item) for item in items):
        raise ConfigError(f"{BACKBONES.name}={text!r} is not of the form NAME=DIGEST,NAME=DIGEST; correct it")
    return items


def _found_backbones(environment: Mapping[str, str]) -> list[str]:
    folder = _text(environment, BACKBONES_FOLDER)
    if not folder:
        return []
    found: list[str] = []
    try:
        for path in sorted(path for path in Path(folder).iterdir() if path.is_file()):
            item = path.read_text().strip()
            if _BACKBONE_FORM.fullmatch(item) is None:
                raise ConfigError(
                    f"{path}: {item!r} is not of the form NAME=DIGEST; write it by `ocelli_model.publish --output`"
                )
            found.append(item)
    except OSError as error:
        raise ConfigError(f"{BACKBONES_FOLDER.name}={folder!r} cannot be read: {error.strerror}; mount it") from error
    return found


def _one_of(environment: Mapping[str, str], setting: Setting, choices: tuple[str, ...]) -> str:
    value = _text(environment, setting)
    if value not in choices:
        raise ConfigError(f"{setting.name}={value!r} is not one of {', '.join(choices)}; set one of them")
    return value


def _number(environment: Mapping[str, str], setting: Setting, *, least: int) -> int:
    text = _text(environment, setting)
    if not text.isascii() or not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{setting.name}={text!r} is not a whole number of at least {least}; set one")
    return int(text)


def _percent(environment: Mapping[str, str], setting: Setting) -> int:
    percent = _number(environment, setting, least=0)
    if percent > 100:
        raise ConfigError(f"{setting.name}={percent} is more than 100 percent; set a number from 0 to 100")
    return percent


def _quantity(environment: Mapping[str, str], setting: Setting) -> str:
    text = _text(environment, setting)
    try:
        positive = parse_quantity(text) > 0
    except ValueError:
        positive = False
    if not positive:
        raise ConfigError(f"{setting.name}={text!r} is not a quantity above 0 such as {setting.default}; set one")
    return text


def _networks(environment: Mapping[str, str], setting: Setting) -> str:
    text = _text(environment, setting)
    try:
        parse_networks(text)
    except ValueError as error:
        raise ConfigError(f"{setting.name}: {error}; give networks such as 10.1.0.0/16") from error
    return text


def _network_peers(environment: Mapping[str, str]) -> NetworkPeers | None:
    readers = _peers(environment, METRICS_PEERS)
    if not _text(environment, INFERENCE_PEERS):
        return None
    return NetworkPeers(callers=_peers(environment, INFERENCE_PEERS), metrics_readers=readers)


def _peers(environment: Mapping[str, str], setting: Setting) -> tuple[Mapping[str, Any], ...]:
    document = _json(environment, setting)
    if not isinstance(document, list) or not all(
        isinstance(peer, dict) and peer and peer.keys() <= _PEER_FIELDS for peer in document
    ):
        raise ConfigError(
            f"{setting.name}={_text(environment, setting)!r} is not a list of peers as in a NetworkPolicy, each with "
            "podSelector, namespaceSelector or ipBlock; correct it"
        )
    return tuple(document)


def _watch_timeouts(environment: Mapping[str, str]) -> WatchTimeouts:
    text = _text(environment, WATCH_SECONDS)
    match = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"{WATCH_SECONDS.name}={text!r} is not of the form LEAST-MOST, such as 30-60; correct it")
    return WatchTimeouts(least_seconds=int(match[1]), most_seconds=int(match[2]))


def _resources(environment: Mapping[str, str], setting: Setting, gpu: GpuSettings) -> Resources:
    document = _json(environment, setting)
    if (
        not isinstance(document, dict)
        or not document.keys() <= {"requests", "limits"}
        or not all(isinstance(quantities, dict) for quantities in document.values())
    ):
        raise ConfigError(f"{setting.name}={_text(environment, setting)!r} is not an object of requests and limits; correct it")
    named = next((name for quantities in document.values() for name in quantities if gpu.is_gpu(name)), None)
    if named is not None:
        raise ConfigError(
            f"{setting.name} names {named}, which every Pod would hold under an image that cannot use it; take it out: "
            f"Classifiers get GPUs by their accelerator, where {TRAINER_GPU_IMAGE.name} or {INFERENCE_GPU_IMAGE.name} is set"
        )
    return document


def _gpu(environment: Mapping[str, str]) -> GpuSettings:
    resource = _text(environment, GPU_RESOURCE)
    if _RESOURCE_FORM.fullmatch(resource) is None:
        raise ConfigError(f"{GPU_RESOURCE.name}={resource!r} is not a resource such as nvidia.com/gpu; correct it")
    selector = _json(environment, GPU_NODE_SELECTOR)
    if not isinstance(selector, dict) or not all(isinstance(value, str) for value in selector.values()):
        text = _text(environment, GPU_NODE_SELECTOR)
        raise ConfigError(f"{GPU_NODE_SELECTOR.name}={text!r} is not an object of labels; correct it")
    tolerations = _json(environment, GPU_TOLERATIONS)
    if not isinstance(tolerations, list) or not all(
        isinstance(toleration, dict) and toleration.keys() <= _TOLERATION_FIELDS for toleration in tolerations
    ):
        text = _text(environment, GPU_TOLERATIONS)
        raise ConfigError(f"{GPU_TOLERATIONS.name}={text!r} is not a list of tolerations, as in a Pod; correct it")
    return GpuSettings(
        resource=resource,
        node_selector=selector,
        tolerations=tuple(tolerations),
        runtime_class=_text(environment, GPU_RUNTIME_CLASS),
    )


def _json(environment: Mapping[str, str], setting: Setting) -> Any:
    text = _text(environment, setting)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{setting.name}={text!r} is not JSON: {error}; correct it") from error
