"""Which backbone a training uses."""

from __future__ import annotations

import pytest

from ocelli_training.backbone_choice import BackboneNotInstalledError, choose_backbone
from ocelli_training.settings import InstalledBackbone

HOG_COLOR = InstalledBackbone(name="HogColor", digest="a1")
RESNET = InstalledBackbone(name="resnet50", digest="b2")
MOBILENET = InstalledBackbone(name="mobilenet_v3_large", digest="c3")


@pytest.mark.parametrize(
    ("wanted", "installed", "taken", "description"),
    [
        ("Auto", [HOG_COLOR], HOG_COLOR, "HogColor (Auto: no other backbone is installed)"),
        ("Auto", [HOG_COLOR, RESNET, MOBILENET], RESNET, "resnet50 (Auto: the first that is installed)"),
        ("Auto", [MOBILENET, RESNET], MOBILENET, "mobilenet_v3_large (Auto: the first that is installed)"),
        ("HogColor", [RESNET, HOG_COLOR], HOG_COLOR, "HogColor"),
        ("resnet50", [HOG_COLOR, MOBILENET, RESNET], RESNET, "resnet50"),
    ],
)
def test_the_backbone_taken_is_described(
    wanted: str, installed: list[InstalledBackbone], taken: InstalledBackbone, description: str
) -> None:
    choice = choose_backbone(wanted, installed)
    assert (choice.installed, choice.description) == (taken, description)


def test_a_backbone_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(BackboneNotInstalledError, match='"resnet50" is not installed; name one of HogColor, ') as caught:
        choose_backbone("resnet50", [HOG_COLOR])
    assert "or install resnet50 with make run BACKBONES=resnet50, or on a cluster as docs/backbones.md says" in str(
        caught.value
    )


def test_an_installation_without_backbones_is_told_how_to_get_one() -> None:
    with pytest.raises(BackboneNotInstalledError, match=r"install HogColor as docs/backbones\.md says"):
        choose_backbone("Auto", [])
