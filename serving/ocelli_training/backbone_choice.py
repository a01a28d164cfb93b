"""Which backbone a training uses: the one that is named, or for `Auto` one of those that are on hand. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocelli_training.settings import InstalledBackbone

AUTO = "Auto"
HOG_COLOR = "HogColor"
"""The backbone that needs no weights: `Auto` takes it only where there is nothing better."""


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
    if wanted != AUTO:
        for backbone in installed:
            if backbone.name == wanted:
                return BackboneChoice(installed=backbone, description=backbone.name)
        raise BackboneNotInstalledError(f'backbone "{wanted}" is not installed; {_remedy(installed, wanted)}')
    for backbone in installed:
        if backbone.name != HOG_COLOR:
            return BackboneChoice(installed=backbone, description=f"{backbone.name} (Auto: the first that is installed)")
    if installed:
        return BackboneChoice(installed=installed[0], description=f"{HOG_COLOR} (Auto: no other backbone is installed)")
    raise BackboneNotInstalledError(f"no backbone is installed; {_remedy(installed, HOG_COLOR)}")


def _remedy(installed: Sequence[InstalledBackbone], wanted: str) -> str:
    # `make run` installs this one always, and has no name for it.
    with_make = "" if wanted == HOG_COLOR else f"with make run BACKBONES={wanted}, or on a cluster "
    install = f"install {wanted} {with_make}as docs/backbones.md says (in the chart: backbones)"
    names = ", ".join(backbone.name for backbone in installed)
    return f"name one of {names}, or {install}" if names else install
