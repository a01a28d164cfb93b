"""Which backbone a training uses: the one that is named, or for `Auto` the default. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocelli_model.backbones.families import DEFAULT_BACKBONE, REMOVED_BACKBONES
from ocelli_training.settings import InstalledBackbone

AUTO = "Auto"


class BackboneNotInstalledError(Exception):
    """The backbone that is asked for is not on hand. The message says which are."""


@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """A backbone on hand and why it was taken."""

    installed: InstalledBackbone
    description: str
    """Its name, with the reason where `Auto` was asked for."""


def choose_backbone(wanted: str, installed: Sequence[InstalledBackbone]) -> BackboneChoice:
    """Resolve the name that a recipe gives.

    Raises:
        BackboneNotInstalledError: there is no such backbone here. Another one is never taken in its place.
    """
    # An installation may still list one for what was learned on it.
    usable = [backbone for backbone in installed if backbone.name not in REMOVED_BACKBONES]
    if wanted in REMOVED_BACKBONES:
        raise BackboneNotInstalledError(
            f'backbone "{wanted}" was removed from Ocelli; what is served goes on; to train again name {DEFAULT_BACKBONE} '
            "in model.backbone, or remove model.backbone"
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
        description = f"{usable[0].name} (Auto: {DEFAULT_BACKBONE} is not installed, this is the first that is)"
        return BackboneChoice(installed=usable[0], description=description)
    raise BackboneNotInstalledError(f"no backbone is installed; {_remedy(usable, DEFAULT_BACKBONE)}")


def _remedy(installed: Sequence[InstalledBackbone], wanted: str) -> str:
    # `make run` installs this one always, and has no name for it.
    with_make = "" if wanted == DEFAULT_BACKBONE else f"with make run BACKBONES={wanted}, or on a cluster "
    install = f"install {wanted} {with_make}as docs/backbones.md says (in the chart: backbones)"
    names = ", ".join(backbone.name for backbone in installed)
    return f"name one of {names}, or {install}" if names else install
