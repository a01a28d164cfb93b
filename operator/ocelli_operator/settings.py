"""Settings of the operator."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_api.digests import DIGEST_PATTERN
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.settings import (
    ADDRESS,
    BUCKETS,
    CERTIFICATES,
    LOG_LEVEL,
    NAME,
    NAMES,
    NETWORKS,
    PORT,
    PROXY,
    PUBLIC_KEYS,
    QUANTITY,
    STORE_URL,
    SWITCH,
    SettingsError,
    SettingType,
    checked,
    group,
    number,
    one_of,
    optional,
    setting,
)
from ocelli_api.signing_keys import PublicKey
from ocelli_cluster.resource_cache import WatchTimeouts
from ocelli_http.guarded_client import ConnectionRules

Resources = Mapping[str, Mapping[str, Any]]
Objects = tuple[Mapping[str, Any], ...]

_CERTIFICATES_CHARACTERS_LIMIT = 64 * 1024
_BACKBONE = re.compile(f"[A-Za-z0-9_.]+={DIGEST_PATTERN}")
# A qualified name with a prefix, which all resources except those of Kubernetes itself have.
_RESOURCE_NAME_FORM = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?")
_PEER_FIELDS = frozenset({"podSelector", "namespaceSelector", "ipBlock"})
_TOLERATION_FIELDS = frozenset({"key", "operator", "value", "effect", "tolerationSeconds"})


def _parse_backbones(text: str) -> tuple[str, ...]:
    items = tuple(text.split(",")) if text else ()
    for item in items:
        if _BACKBONE.fullmatch(item) is None:
            raise ValueError(f"{item!r} is not of the form NAME=DIGEST")
    return items


def _read_backbones(folder: str) -> tuple[str, ...]:
    found: list[str] = []
    for path in sorted(path for path in Path(folder).iterdir() if path.is_file()) if folder else ():
        item = path.read_text().strip()
        if _BACKBONE.fullmatch(item) is None:
            raise ValueError(f"{path.name}: {item!r} is not of the form NAME=DIGEST")
        found.append(item)
    return tuple(found)


def _read_certificates(file: str) -> str:
    if not file:
        return ""
    text = Path(file).read_text()
    # It becomes a variable of each trainer, and Linux limits those.
    if len(text) > _CERTIFICATES_CHARACTERS_LIMIT:
        raise ValueError(f"the file has more than {_CERTIFICATES_CHARACTERS_LIMIT} characters")
    if not text.strip():
        raise ValueError("the file is empty")
    return CERTIFICATES.parse(text)


def _parse_watch_timeouts(text: str) -> WatchTimeouts:
    match = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError
    return WatchTimeouts(least_seconds=int(match[1]), most_seconds=int(match[2]))


def _parse_objects(text: str, fields: frozenset[str]) -> Objects:
    document = json.loads(text)
    if not isinstance(document, list) or not all(
        isinstance(item, dict) and item and item.keys() <= fields for item in document
    ):
        raise ValueError
    return tuple(document)


def _are_labels(document: Any) -> bool:
    return isinstance(document, dict) and all(isinstance(value, str) for value in document.values())


def _are_resources(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.keys() <= {"requests", "limits"}
        and all(isinstance(quantities, dict) for quantities in document.values())
    )


_COUNT = number(int, 1)
_LIMIT = number(int, 0)
_IMAGE = SettingType("an image", str)
_FOLDER = SettingType("a folder", str)
_RESOURCE_NAME = checked("a resource such as nvidia.com/gpu", str, _RESOURCE_NAME_FORM.fullmatch)
_PULL_POLICY = one_of({name: name for name in ("Always", "IfNotPresent", "Never")})
_RESOURCES = checked('resources in JSON such as {"limits": {"memory": "4Gi"}}', json.loads, _are_resources)
_LABELS = checked('labels in JSON such as {"pool": "gpu"}', json.loads, _are_labels)
_TOLERATIONS = SettingType("a JSON list of tolerations, as in a Pod", lambda text: _parse_objects(text, _TOLERATION_FIELDS))
_PEERS = SettingType(
    "a JSON list of peers, as in a NetworkPolicy, each with podSelector, namespaceSelector or ipBlock",
    lambda text: _parse_objects(text, _PEER_FIELDS),
)
_BACKBONES = SettingType("NAME=DIGEST, separated by commas", _parse_backbones)
_CERTIFICATES_FILE = SettingType("a file of certificates in PEM of at most 64 kB, or leave it empty", _read_certificates)
_BACKBONES_FOLDER = SettingType(
    "a folder of files with NAME=DIGEST each, as `ocelli_model.publish --output` writes them", _read_backbones
)
_WATCH_SECONDS = SettingType("LEAST-MOST such as 30-60", _parse_watch_timeouts)
_IDENTITY = SettingType("a name", lambda text: text or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """What the installation adds to Pods that get a GPU."""

    resource: str = setting("OCELLI_GPU_RESOURCE", _RESOURCE_NAME, "nvidia.com/gpu")
    """Resource of a GPU, or of a part of one such as `nvidia.com/mig-1g.10gb`. Pods with a GPU tolerate a taint of this
    name."""
    node_selector: Mapping[str, str] = setting("OCELLI_GPU_NODE_SELECTOR", _LABELS, "{}")
    """Labels that the node of a Pod with a GPU must have, in addition to those of the Classifier."""
    tolerations: Objects = setting("OCELLI_GPU_TOLERATIONS", _TOLERATIONS, "[]")
    """Tolerations of Pods with a GPU, in addition to those of the Classifier."""
    runtime_class: str = setting("OCELLI_GPU_RUNTIME_CLASS", NAME, "")
    """RuntimeClass of Pods with a GPU whose Classifier sets none, such as `nvidia`. Empty: the cluster's default."""

    def is_gpu(self, name: str) -> bool:
        """Whether a resource is of the same vendor: a GPU or a part of one, such as `nvidia.com/mig-1g.10gb`."""
        return name.partition("/")[0] == self.resource.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class NetworkPeers:
    """Who can connect to inference servers, as peers of a NetworkPolicy. Pods of their own namespace always can."""

    callers: Objects
    metrics_readers: Objects


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """What the manifests of a Classifier's children need to know about the installation."""

    store_url: str = setting("OCELLI_STORE_URL", STORE_URL)
    """Object store: `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`, or `http://host` of the embedded store.
    Trainers and inference servers use it too."""
    store_secret: str = setting("OCELLI_STORE_SECRET", NAME, "")
    """Secret in each namespace whose keys are the variables (`AWS_ACCESS_KEY_ID`, …) with which trainers and inference servers
    log in to a bucket."""
    workload_service_account: str = setting("OCELLI_WORKLOAD_SERVICE_ACCOUNT", NAME, "")
    """ServiceAccount of trainers and inference servers in each namespace, for workload identity. Empty: `default`."""
    trainer_image: str = setting("OCELLI_TRAINER_IMAGE", _IMAGE, "ocelli-trainer:latest")
    """Image of training Jobs."""
    inference_image: str = setting("OCELLI_INFERENCE_IMAGE", _IMAGE, "ocelli-inference:latest")
    """Image of inference servers."""
    trainer_gpu_image: str = setting("OCELLI_TRAINER_GPU_IMAGE", _IMAGE, "")
    """Image of training Jobs that get a GPU. Empty: training Jobs get no GPU, and `Auto` means CPU."""
    inference_gpu_image: str = setting("OCELLI_INFERENCE_GPU_IMAGE", _IMAGE, "")
    """Image of inference servers that get a GPU. Empty: inference servers get no GPU, and `Auto` means CPU."""
    image_pull_policy: str = setting("OCELLI_IMAGE_PULL_POLICY", _PULL_POLICY, "IfNotPresent")
    """When nodes pull these images."""
    gpu: GpuSettings = group(GpuSettings)
    listed_backbones: tuple[str, ...] = setting("OCELLI_BACKBONES", _BACKBONES, "")
    """Backbones in the object store. `model.backbone: Auto` means `EfficientNetLite0`, or the first one if it is not listed."""
    published_backbones: tuple[str, ...] = setting("OCELLI_BACKBONES_FOLDER", _BACKBONES_FOLDER, "")
    """Folder of files with more backbones, in the order of the file names. They follow those of `OCELLI_BACKBONES`."""
    file_sources_folder: str = setting("OCELLI_FILE_SOURCES_FOLDER", _FOLDER, "")
    """Folder that trainers read `file://` sources from. Empty: `file://` sources are refused."""
    sources_allowed_networks: str = setting("OCELLI_SOURCES_ALLOWED_NETWORKS", NETWORKS, "")
    """Private networks that trainers may fetch sources from. Users who can write Classifiers reach every port in them."""
    sources_denied_networks: str = setting("OCELLI_SOURCES_DENIED_NETWORKS", NETWORKS, "")
    """Networks that trainers must not fetch sources from, even if they are public or allowed."""
    signing_secret: str = setting("OCELLI_SIGNING_SECRET", NAME, "")
    """Secret in each namespace whose key `key.pem` is the private key of Ed25519 that trainers sign artifacts with. Empty:
    artifacts are not signed."""
    signing_public_keys: tuple[PublicKey, ...] = setting("OCELLI_SIGNING_PUBLIC_KEYS", PUBLIC_KEYS, "")
    """Public keys of Ed25519, separated by commas. Inference servers refuse an artifact that none of them signed. Empty:
    signatures are not verified."""
    sources_proxy: str = setting("OCELLI_SOURCES_PROXY", PROXY, "")
    """Proxy through which trainers fetch sources, such as `http://proxy.example.com:3128`. It resolves their host names and
    decides about the addresses behind them. Empty: trainers connect directly."""
    sources_certificates: str = setting("OCELLI_SOURCES_CA_FILE", _CERTIFICATES_FILE, "")
    """File of certificates (PEM) of authorities that servers of sources may have, in addition to the usual ones."""
    sources_cache: bool = setting("OCELLI_SOURCES_CACHE", SWITCH, "false")
    """Whether trainers keep copies of sources with `sha256` in the object store, so that a retrain does not fetch them
    again."""
    sources_identity_buckets: frozenset[str] = setting("OCELLI_SOURCES_IDENTITY_BUCKETS", BUCKETS, "")
    """Buckets that sources without a Secret read with the cloud identity of `OCELLI_WORKLOAD_SERVICE_ACCOUNT`. Users who can
    write Classifiers can train on everything in them. Never list the bucket of the object store."""
    inference_peers: Objects | None = setting("OCELLI_INFERENCE_PEERS", optional(_PEERS), "")
    """Who can call inference servers, in addition to Pods of their own namespace: the gateway. Each Classifier then has a
    NetworkPolicy. Empty: there are no NetworkPolicies, and every Pod can call them."""
    metrics_peers: Objects = setting("OCELLI_METRICS_PEERS", _PEERS, "[]")
    """Who can read the metrics of inference servers: Prometheus. Only used if `OCELLI_INFERENCE_PEERS` is set."""
    trainer_resources: Resources = setting(
        "OCELLI_TRAINER_RESOURCES", _RESOURCES, '{"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}'
    )
    """Resources of a trainer whose Classifier has no `spec.training.resources`. They must not include GPUs."""
    inference_resources: Resources = setting(
        "OCELLI_INFERENCE_RESOURCES",
        _RESOURCES,
        '{"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}',
    )
    """Resources of an inference server whose Classifier has no `spec.serving.resources`. They must not include GPUs."""
    trainer_scratch_size: str = setting("OCELLI_TRAINER_SCRATCH_SIZE", QUANTITY, "32Gi")
    """Size limit of a trainer's scratch folder. It holds up to eight zips of 1 GiB while they are read, then about 150 kB for
    each image. A trainer that writes more is evicted, and the training fails."""
    inference_scratch_size: str = setting("OCELLI_INFERENCE_SCRATCH_SIZE", QUANTITY, "8Gi")
    """Size limit of an inference server's scratch folder. It holds the network's files, up to 2 GB, while they are loaded, and
    the caches of libraries. A server that writes more is evicted."""
    rollout_deadline_seconds: int = setting("OCELLI_ROLLOUT_DEADLINE_SECONDS", _COUNT, "600")
    """The rollout of a new revision fails after so many seconds without progress."""
    # The operator learns from the Job how some trainings ended. If the Job is gone before, it is created again and again.
    job_ttl_seconds: int = setting("OCELLI_JOB_TTL_SECONDS", number(int, 60), "21600")
    """How long a finished training Job and the log of its Pod are kept."""
    trainings_starting_limit: int = setting("OCELLI_TRAININGS_STARTING_LIMIT", _COUNT, "100")
    """How many training Jobs can be starting at the same time. A Job counts until its trainer runs, for a minute at most.
    Further trainings wait, and namespaces take turns."""
    trainings_limit: int = setting("OCELLI_TRAININGS_LIMIT", _LIMIT, "0")
    """How many trainings of the installation can run at the same time; `0`: no limit. Others wait: namespaces with fewer
    running trainings come first, and within a namespace the Classifier that has waited longest. A Job that waits for a node
    counts for ten minutes. Jobs of `spec.training.queueName` do not wait, and count while they run."""
    namespace_trainings_limit: int = setting("OCELLI_NAMESPACE_TRAININGS_LIMIT", _LIMIT, "0")
    """The same for each namespace; `0`: no limit."""
    rollouts_limit: int = setting("OCELLI_ROLLOUTS_LIMIT", _COUNT, "20")
    """How many Deployments of inference servers are created or updated at the same time. New revisions and users' changes come
    first, and count for a minute at most. Upgrades, such as a new inference image, wait. Each counts until it is done or
    `OCELLI_ROLLOUT_DEADLINE_SECONDS` are over."""
    log_level: str = setting("OCELLI_LOG_LEVEL", LOG_LEVEL, "INFO")
    """Lowest level of the log lines that operator, trainers and inference servers write."""

    def __post_init__(self) -> None:
        if self.signing_public_keys and not self.signing_secret:
            raise SettingsError(
                "OCELLI_SIGNING_PUBLIC_KEYS is set and OCELLI_SIGNING_SECRET is not, so inference servers would refuse every "
                "new artifact; set OCELLI_SIGNING_SECRET to the Secret with the private key"
            )
        for name, resources in (
            ("OCELLI_TRAINER_RESOURCES", self.trainer_resources),
            ("OCELLI_INFERENCE_RESOURCES", self.inference_resources),
        ):
            gpu = next((item for quantities in resources.values() for item in quantities if self.gpu.is_gpu(item)), None)
            if gpu is not None:
                raise SettingsError(
                    f"{name} contains {gpu}, which every Pod would get, even with an image that cannot use it; remove it, set "
                    "OCELLI_TRAINER_GPU_IMAGE or OCELLI_INFERENCE_GPU_IMAGE, and let Classifiers ask for an accelerator"
                )

    @property
    def backbones(self) -> str:
        """All backbones, as the trainer reads them."""
        return ",".join([*self.listed_backbones, *self.published_backbones])

    @property
    def connection_rules(self) -> ConnectionRules:
        """How the operator itself connects to sources, to poll them."""
        networks = NetworkRules.parse(allowed=self.sources_allowed_networks, denied=self.sources_denied_networks)
        return ConnectionRules(networks=networks, proxy_url=self.sources_proxy, certificates=self.sources_certificates)

    @property
    def network_peers(self) -> NetworkPeers | None:
        """None: no NetworkPolicies are created."""
        if self.inference_peers is None:
            return None
        return NetworkPeers(callers=self.inference_peers, metrics_readers=self.metrics_peers)


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """All settings."""

    children: ChildSettings = group(ChildSettings)
    namespaces: tuple[str, ...] = setting("OCELLI_NAMESPACES", NAMES, "")
    """Namespaces whose Classifiers are reconciled. Empty: all namespaces."""
    nodes_may_be_watched: bool = setting("OCELLI_WATCH_NODES", SWITCH, "true")
    """Whether the operator looks for GPUs on nodes, if a GPU image is set. It needs the rights to list and watch nodes. Without
    them, or if `false`, `accelerator: Auto` means CPU, and `GPU` still works."""
    workers: int = setting("OCELLI_WORKERS", _COUNT, "8")
    """How many Classifiers are reconciled at the same time."""
    watch_timeouts: WatchTimeouts = setting("OCELLI_WATCH_SECONDS", _WATCH_SECONDS, "30-60")
    """How many seconds one watch lasts. A broken connection is noticed ten seconds after that."""
    stale_watch_limit_seconds: int = setting("OCELLI_STALE_WATCH_LIMIT_SECONDS", _COUNT, "180")
    """Liveness fails if a watch has received nothing from the API server for so many seconds."""
    reconcile_limit_seconds: int = setting("OCELLI_RECONCILE_LIMIT_SECONDS", _COUNT, "300")
    """Liveness fails if a reconcile takes longer than so many seconds. The log names the Classifier. Each request to the API
    server or the store is limited to about half a minute."""
    sweep_interval_seconds: int = setting("OCELLI_SWEEP_INTERVAL_SECONDS", _COUNT, "900")
    """How often the operator looks for orphans: stored objects that no Classifier refers to."""
    sweep_minimum_age_seconds: int = setting("OCELLI_SWEEP_MINIMUM_AGE_SECONDS", number(int, 0), "3600")
    """An orphan is deleted when it is older than this and has been seen unused for as long. Objects of a Classifier whose
    deletion the operator saw are deleted at once."""
    sweep_limit_percent: int = setting("OCELLI_SWEEP_LIMIT_PERCENT", number(int, 0, 100), "25")
    """If orphans are more than this share of what is stored for a namespace, none of them are deleted, except up to 20 objects
    of Classifiers that exist. `100`: no limit."""
    adopt_store: str = setting("OCELLI_ADOPT_STORE", NAME, "")
    """UID of the Lease of another installation whose store this one takes over. Set it once. Without it, a store that belongs
    to another installation is not swept."""
    bind_address: str = setting("POD_IP", ADDRESS, "127.0.0.1")
    """Address that health and metrics are served on."""
    health_port: int = setting("OCELLI_HEALTH_PORT", PORT, "8081")
    """Port of `/healthz`."""
    metrics_port: int = setting("OCELLI_METRICS_PORT", PORT, "9090")
    """Port of `/metrics`."""
    identity: str = setting("POD_NAME", _IDENTITY, "")
    """Name that holds the Lease. A container that restarts in its Pod takes it over at once. Empty: a random name."""
    lease_namespace: str = setting("POD_NAMESPACE", NAME, "ocelli-system")
    """Namespace of the Lease: the operator's own."""
    lease_name: str = setting("OCELLI_LEASE_NAME", NAME, "ocelli-operator")
    """Lease that lets one operator work at a time. Two installations in one namespace need two."""

    @property
    def watch_nodes(self) -> bool:
        """Whether nodes are watched for GPUs: it is allowed, and there is an image for GPUs."""
        return self.nodes_may_be_watched and bool(self.children.trainer_gpu_image or self.children.inference_gpu_image)
