"""What a node offers to every container, and what a Pod offers to its containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.addresses import LoopbackRange
from ocelli_local.certificates import KeyPair
from ocelli_local.kubeconfig import ApiAddress
from ocelli_local.manifest import Manifest
from ocelli_local.process_node.backoff import RestartBackoff
from ocelli_local.process_node.environment import PodNetwork
from ocelli_local.process_node.events import EventRecorder, EventType
from ocelli_local.process_node.memory import MemoryWatch
from ocelli_local.process_node.pod_objects import PodObjects
from ocelli_local.process_node.process_wrapper import ProcessWrapper
from ocelli_local.process_node.volumes import PodVolumes


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    name: str
    folder: Path
    log_folder: Path
    loopback: LoopbackRange
    api_address: ApiAddress
    labels: Mapping[str, str]
    extended_resources: Mapping[str, str]
    container_env: Mapping[str, str]
    marker: tuple[str, str]
    restart_backoff: RestartBackoff
    serving_certificate: KeyPair
    allowed_client_name: str


@dataclass(frozen=True, kw_only=True)
class NodeServices:
    options: NodeOptions
    wrapper: ProcessWrapper
    memory: MemoryWatch
    events: EventRecorder
    allocatable: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PodServices:
    """`on_change` is called when the status of a container changes."""

    node: NodeServices
    pod: Manifest
    network: PodNetwork
    volumes: PodVolumes
    objects: PodObjects
    folder: Path
    log_folder: Path
    on_change: Callable[[], None]

    def record_event(self, kind: EventType, reason: str, message: str, *, container: str) -> None:
        self.node.events.record(self.pod, kind, reason, message, container=container)
