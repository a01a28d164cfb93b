"""What the trainer reads from its environment. The operator sets it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.network_addresses import NetworkRules
from ocelli_api.pod_environment import COUNT, PodSettings
from ocelli_api.pods import Environment, TrainingStep
from ocelli_api.settings import (
    BUCKETS,
    CERTIFICATES,
    FOLDER,
    NETWORKS,
    PROXY,
    SWITCH,
    TEMPORARY_FOLDER,
    SettingType,
    group,
    number,
    one_of,
    optional,
    setting,
)
from ocelli_api.signing_keys import PrivateKeyText
from ocelli_storage.layout import ClassifierLocation
from ocelli_training.cloud_identity import CloudIdentity


@dataclass(frozen=True, kw_only=True)
class InstalledBackbone:
    """A backbone in the object store, as `OCELLI_BACKBONES` lists it."""

    name: str
    digest: str


def _parse_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _parse_backbones(text: str) -> tuple[InstalledBackbone, ...]:
    return tuple(_parse_backbone(item) for item in text.split(",") if item.strip())


def _parse_backbone(item: str) -> InstalledBackbone:
    name, _, digest = (part.strip() for part in item.partition("="))
    if not (name and digest):
        raise ValueError(f"{item.strip()!r} is not of the form NAME=DIGEST")
    return InstalledBackbone(name=name, digest=digest)


# It is parsed later: messages about settings show their values.
_PRIVATE_KEY = SettingType("a private key", PrivateKeyText)
_BACKBONES = SettingType("NAME=DIGEST, separated by commas", _parse_backbones)
_STEP = one_of({str(step): step for step in TrainingStep})


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(PodSettings):
    """What to train, from where, where to, and with how much of the machine."""

    attempt: int = setting(Environment.ATTEMPT, COUNT)
    """Number of the attempt. The outcome repeats it."""
    step: TrainingStep = setting(Environment.STEP, _STEP, str(TrainingStep.TRAIN))
    """`Check`: only read and check the data, for a training that uses what was read. `Train`: train."""
    workers: int = setting(Environment.WORKERS, COUNT, "1")
    """How many Pods train together."""
    worker: int = setting(Environment.WORKER, number(int, 0), "0")
    """Which of them this is, from 0. Kubernetes sets it in the Pods of an Indexed Job."""
    worker_address: str = setting(Environment.BIND_ADDRESS, SettingType("an IP address", _parse_address), "127.0.0.1")
    """IP address of the Pod, where the first of several workers waits for the others."""
    baseline_revision: str = setting(Environment.BASELINE_REVISION, SettingType("a revision", str), "")
    """The revision that serves, which the new one is compared with. Empty: there is none."""
    backbones: tuple[InstalledBackbone, ...] = setting(Environment.BACKBONES, _BACKBONES, "")
    """Backbones in the object store. `Auto` means `EfficientNetLite0`, or the first one if that is not listed."""
    file_sources_folder: Path | None = setting(Environment.FILE_SOURCES_FOLDER, optional(FOLDER), "")
    """Folder that `file://` sources are read from. Empty: `file://` sources are refused."""
    sources_allowed_networks: str = setting(Environment.SOURCES_ALLOWED_NETWORKS, NETWORKS, "")
    """Private networks that sources may be fetched from."""
    sources_denied_networks: str = setting(Environment.SOURCES_DENIED_NETWORKS, NETWORKS, "")
    """Networks that sources must not be fetched from, even if they are public or allowed."""
    signing_key: PrivateKeyText = setting(Environment.SIGNING_KEY, _PRIVATE_KEY, "")
    """Private key of Ed25519 in PEM that artifacts are signed with. Empty: they are not signed."""
    sources_proxy: str = setting(Environment.SOURCES_PROXY, PROXY, "")
    """Proxy for everything that sources are fetched from. Empty: there is none."""
    sources_certificates: str = setting(Environment.SOURCES_CERTIFICATES, CERTIFICATES, "")
    """Certificates of authorities that servers of sources may have, in addition to the usual ones."""
    sources_cache: bool = setting(Environment.SOURCES_CACHE, SWITCH, "false")
    """Whether copies of pinned sources are kept in the object store."""
    sources_identity_buckets: frozenset[str] = setting(Environment.SOURCES_IDENTITY_BUCKETS, BUCKETS, "")
    """Buckets that sources without a Secret read with the cloud identity of the Pod."""
    cloud_identity: CloudIdentity = group(CloudIdentity)
    source_secrets_folder: Path | None = setting(Environment.SOURCE_SECRETS_FOLDER, optional(FOLDER), "")
    """Folder of the Secrets of sources. Empty: no source has one."""
    scratch_folder: Path = setting(Environment.SCRATCH_FOLDER, TEMPORARY_FOLDER, "")
    """Folder for temporary files. Empty: the system's temporary folder."""

    @property
    def subject(self) -> str:
        """Whom messages are about: the Classifier, and which of its workers if this is not the first one."""
        return self.classifier if self.worker == 0 else f"{self.classifier}, worker {self.worker}"

    @property
    def location(self) -> ClassifierLocation:
        """Where the store keeps what belongs to the Classifier."""
        return ClassifierLocation(namespace=self.namespace, classifier_id=self.classifier_id)

    @property
    def networks(self) -> NetworkRules:
        """Which addresses sources may be fetched from."""
        return NetworkRules.parse(allowed=self.sources_allowed_networks, denied=self.sources_denied_networks)
