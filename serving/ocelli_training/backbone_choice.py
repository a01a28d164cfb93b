"""The backbone of a training: the one that the recipe names, or the default for `Auto`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocelli_model.backbones.families import DEFAULT_BACKBONE, REMOVED_BACKBONES
from ocelli_training.settings import InstalledBackbone

AUTO = "Auto"


class BackboneNotInstalledError(Exception):
    """The requested backbone is not installed. The message lists the installed ones."""


@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """An installed backbone and why it was chosen."""

    installed: InstalledBackbone
    description: str
    """Its name, with the reason for `Auto`."""


def choose_backbone(wanted: str, installed: Sequence[InstalledBackbone]) -> BackboneChoice:
    """The installed backbone of that name.

    Raises:
        BackboneNotInstalledError: it is not installed. It is never replaced by another one.
    """
    # An installation may still list a removed one, for classifiers that were trained with it.
    usable = [backbone for backbone in installed if backbone.name not in REMOVED_BACKBONES]
    if wanted in REMOVED_BACKBONES:
        raise BackboneNotInstalledError(
            f'backbone "{wanted}" was removed from Ocelli; the served revision stays available; to train again, set '
            f"model.backbone to {DEFAULT_BACKBONE}, or remove model.backbone"
        )
    if wanted != AUTO:
        for backbone in usable:
            if backbone.name == wanted:
                return BackboneChoice(installed=backbone, description=backbone.name)
        raise BackboneNotInstalledError(f'backbone "{wanted}" is not installed; {_remedy(usable, wanted)}')
    for backbone in usable:
        if backbone.name == DEFAULT_BACKBONE:
            return BackboneChoice(installed=backbone, description=f"{backbone.name} (Auto)")
    if usable:
        description = f"{usable[0].name} (Auto: the first installed one, because {DEFAULT_BACKBONE} is not installed)"
        return BackboneChoice(installed=usable[0], description=description)
    raise BackboneNotInstalledError(f"no backbone is installed; {_remedy(usable, DEFAULT_BACKBONE)}")


def _remedy(installed: Sequence[InstalledBackbone], wanted: str) -> str:
    # `make run` always installs this one.
    with_make = "" if wanted == DEFAULT_BACKBONE else f"with make run BACKBONES={wanted}, or on a cluster "
    install = f"install {wanted} {with_make}as docs/backbones.md says (in the chart: backbones)"
    names = ", ".join(backbone.name for backbone in installed)
    return f"name one of {names}, or {install}" if names else install
