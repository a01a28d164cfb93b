"""Placement: whether a Pod gets a GPU and which nodes can take it, from what Classifier, installation and nodes say. Pure.

It keeps nothing: what `Auto` chose is stored with the child that it was chosen for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Accelerator, Serving, Training
from ocelli_operator.manifests.metadata import manifest_hash
from ocelli_operator.observed import GpuNode
from ocelli_operator.settings import GpuSettings

_ZERO = re.compile(r"[-+]?[0.]+([^0-9.].*)?")
"""A quantity of zero in any unit."""


@dataclass(frozen=True, kw_only=True)
class GpuOffer:
    """What the installation offers to trainers, or to inference servers."""

    image: str
    """The image for GPUs; empty: the installation offers them no GPU."""
    gpu: GpuSettings
    nodes: tuple[GpuNode, ...]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The fields of a Pod's manifest that decide where it runs."""

    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    runtime_class_name: str | None


def resolve_accelerator(wanted: Training | Serving, offer: GpuOffer, kept: Accelerator | None = None) -> Accelerator:
    """GPU or CPU; `kept` is what `Auto` chose before, if that should stay.

    GPUs in `resources` override `accelerator`. The result may be GPU although the offer has no image: then the spec requests
    more than the installation offers.
    """
    named = _find_named(wanted, offer.gpu)
    if named is not None:
        return named
    if wanted.accelerator is Accelerator.GPU:
        return Accelerator.GPU
    if wanted.accelerator is Accelerator.CPU or not offer.image:
        return Accelerator.CPU
    if kept is not None:
        return kept
    placement = build_placement(wanted, offer.gpu, Accelerator.GPU)
    # Whether a GPU is free right now does not matter: the scheduler knows, and waits for one.
    return Accelerator.GPU if any(_may_take(node, placement) for node in offer.nodes) else Accelerator.CPU


def build_placement(wanted: Training | Serving, gpu: GpuSettings, accelerator: Accelerator) -> Placement:
    """What the Classifier asks for, plus what the installation adds to Pods with a GPU."""
    selector, tolerations, runtime_class = wanted.node_selector, wanted.tolerations, wanted.runtime_class_name
    if accelerator is Accelerator.GPU:
        # By convention, nodes with GPUs have a taint with the name of the resource that keeps other Pods away.
        reserved = {"key": gpu.resource, "operator": "Exists"}
        selector = {**gpu.node_selector, **selector}
        tolerations = (*tolerations, reserved, *gpu.tolerations)
        runtime_class = runtime_class or gpu.runtime_class or None
    return Placement(node_selector=selector, tolerations=tolerations, runtime_class_name=runtime_class)


def placement_hash(wanted: Training | Serving, gpu: GpuSettings) -> str:
    """Sixteen hex digits over everything that `Auto` depends on: a choice is valid while they are the same.

    GPUs in `resources` override `Auto`, so a choice ends when they are removed. Without GPUs there the hash is the same as in
    earlier releases, so that an upgrade does not choose again for running servers.
    """
    asked: dict[str, Any] = {
        "accelerator": str(wanted.accelerator),
        "nodeSelector": dict(wanted.node_selector),
        "tolerations": [dict(toleration) for toleration in wanted.tolerations],
    }
    named = _find_named(wanted, gpu)
    if named is not None:
        asked["named"] = str(named)
    return manifest_hash(asked)


def _find_named(wanted: Training | Serving, gpu: GpuSettings) -> Accelerator | None:
    """What `resources` requests: `CPU` if it names GPUs and all amounts are 0, None if it names none."""
    amounts = [
        str(amount) for quantities in wanted.resources.values() for name, amount in quantities.items() if gpu.is_gpu(name)
    ]
    if not amounts:
        return None
    return Accelerator.CPU if all(_ZERO.fullmatch(amount) for amount in amounts) else Accelerator.GPU


def _may_take(node: GpuNode, placement: Placement) -> bool:
    selected = all(node.labels.get(name) == value for name, value in placement.node_selector.items())
    return selected and all(any(_tolerates(toleration, taint) for toleration in placement.tolerations) for taint in node.taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect", "") not in ("", taint["effect"]):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    return bool(toleration["key"] == taint["key"] and (exists or toleration.get("value", "") == taint["value"]))
