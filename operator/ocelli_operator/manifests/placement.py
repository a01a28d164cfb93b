"""Placement: whether a Pod gets a GPU and which nodes may take it, by what Classifier, installation and nodes say. Pure.

It decides anew each time; what `Auto` came to is kept with the child that it was decided for.
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
"""Quantities of nothing, whatever their unit."""


@dataclass(frozen=True, kw_only=True)
class GpuOffer:
    """What trainers, or inference servers, may get."""

    image: str
    """Empty: the installation offers them no GPU."""
    gpu: GpuSettings
    nodes: tuple[GpuNode, ...]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a Pod's manifest says of where it runs, and on what."""

    accelerator: Accelerator
    """Not `Auto`."""
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    runtime_class_name: str | None


def resolve_accelerator(wanted: Training | Serving, offer: GpuOffer, kept: Accelerator | None = None) -> Accelerator:
    """GPU or CPU; `kept` is what `Auto` came to before, where that is to stay.

    What `resources` names holds, whatever `accelerator` says. GPU though the offer has no image means that more is asked for
    than there is.
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
    # Whether one is free at this moment is not asked: that is the scheduler's to know, and to wait for.
    return Accelerator.GPU if any(_may_take(node, placement) for node in offer.nodes) else Accelerator.CPU


def build_placement(wanted: Training | Serving, gpu: GpuSettings, accelerator: Accelerator) -> Placement:
    """What the Classifier asks for, with what the installation adds to Pods with a GPU."""
    if accelerator is not Accelerator.GPU:
        return Placement(
            accelerator=accelerator,
            node_selector=wanted.node_selector,
            tolerations=wanted.tolerations,
            runtime_class_name=wanted.runtime_class_name,
        )
    # Nodes with GPUs are kept free for those who ask for one by a taint of the resource's name.
    reserved = {"key": gpu.resource, "operator": "Exists"}
    return Placement(
        accelerator=accelerator,
        node_selector={**gpu.node_selector, **wanted.node_selector},
        tolerations=(*wanted.tolerations, reserved, *gpu.tolerations),
        runtime_class_name=wanted.runtime_class_name or gpu.runtime_class or None,
    )


def placement_hash(wanted: Training | Serving, gpu: GpuSettings) -> str:
    """Sixteen hex digits over what `Auto` is judged by: an answer is good for as long as they are the same.

    Where `resources` names GPUs the answer is not `Auto`'s, and is gone with the name. That came later, so that it is left out
    where none is named: an upgrade judges no server anew.
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
    """What `resources` says by itself: `CPU` where it says 0 of all GPUs that it names, None where it names none."""
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
