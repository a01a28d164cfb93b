"""What the environment tells the trainer. The variables are those of `ocelli_api.pods.Environment`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import Accelerator
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.pod_environment import SettingsError, log_level, parse_accelerator, require
from ocelli_api.pods import Environment
from ocelli_storage.layout import ClassifierLocation

THREADS_LIMIT = 16
"""Threads at most, whatever the node has: more read and decode no faster, and each needs memory of its own."""


@dataclass(frozen=True, kw_only=True)
class InstalledBackbone:
    """A backbone on hand, as `OCELLI_BACKBONES` lists it."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to learn, from where and where to, and with how much of the machine."""

    store_url: str
    classifier: str
    """`namespace/name`, for messages."""
    location: ClassifierLocation
    revision: str
    attempt: int
    backbones: tuple[InstalledBackbone, ...]
    file_sources_folder: Path | None
    """The folder that `file://` sources are resolved in; None: they are refused."""
    networks: NetworkRules
    """Which addresses sources may be fetched from."""
    scratch_folder: Path
    cpu_count: int
    """Whole cores the process may use: at most so many threads compute at a time."""
    accelerator: Accelerator
    log_level: str


def parse_settings(environment: Mapping[str, str], *, usable_cores: int) -> Settings:
    """Type the environment; `usable_cores` counts where no CPU limit is set, and bounds one that is higher.
    `THREADS_LIMIT` bounds both.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    folder = environment.get(Environment.FILE_SOURCES_FOLDER, "")
    return Settings(
        store_url=require(environment, Environment.STORE_URL),
        classifier=require(environment, Environment.CLASSIFIER),
        location=ClassifierLocation(
            namespace=require(environment, Environment.NAMESPACE),
            classifier_id=require(environment, Environment.CLASSIFIER_ID),
        ),
        revision=require(environment, Environment.REVISION),
        attempt=_count(Environment.ATTEMPT, require(environment, Environment.ATTEMPT)),
        backbones=_parse_backbones(environment.get(Environment.BACKBONES, "")),
        file_sources_folder=Path(folder) if folder else None,
        networks=_parse_networks(environment),
        scratch_folder=Path(environment.get(Environment.SCRATCH_FOLDER) or tempfile.gettempdir()),
        cpu_count=_cpu_count(environment, usable_cores),
        accelerator=parse_accelerator(environment),
        log_level=log_level(environment),
    )


def _parse_networks(environment: Mapping[str, str]) -> NetworkRules:
    texts = [environment.get(name, "") for name in (Environment.SOURCES_ALLOWED_NETWORKS, Environment.SOURCES_DENIED_NETWORKS)]
    try:
        return NetworkRules.parse(allowed=texts[0], denied=texts[1])
    except ValueError as error:
        raise SettingsError(
            f"environment variables {Environment.SOURCES_ALLOWED_NETWORKS} and {Environment.SOURCES_DENIED_NETWORKS}: {error}; "
            "give networks such as 10.1.0.0/16"
        ) from error


def _parse_backbones(text: str) -> tuple[InstalledBackbone, ...]:
    return tuple(_parse_backbone(item.strip()) for item in text.split(",") if item.strip())


def _parse_backbone(item: str) -> InstalledBackbone:
    name, separator, digest = item.partition("=")
    if not (name.strip() and separator and digest.strip()):
        raise SettingsError(f"environment variable {Environment.BACKBONES} lists {item!r}; give NAME=DIGEST,NAME=DIGEST")
    return InstalledBackbone(name=name.strip(), digest=digest.strip())


def _cpu_count(environment: Mapping[str, str], usable_cores: int) -> int:
    text = environment.get(Environment.CPU_LIMIT, "")
    allowed = _count(Environment.CPU_LIMIT, text) if text else usable_cores
    return min(allowed, usable_cores, THREADS_LIMIT)


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"environment variable {name} is {text!r}; give a whole number, 1 or more")
    return int(text)
