"""Which backbone a training uses."""

from __future__ import annotations

import pytest

from ocelli_training.backbone_choice import BackboneNotInstalledError, choose_backbone
from ocelli_training.settings import InstalledBackbone

LITE = InstalledBackbone(name="EfficientNetLite0", digest="a1")
RESNET = InstalledBackbone(name="resnet50", digest="b2")
MOBILENET = InstalledBackbone(name="mobilenet_v3_large", digest="c3")
HOG_COLOR = InstalledBackbone(name="HogColor", digest="d4")


@pytest.mark.parametrize(
    ("wanted", "installed", "taken", "description"),
    [
        ("Auto", [LITE], LITE, "EfficientNetLite0 (Auto)"),
        ("Auto", [RESNET, MOBILENET, LITE], LITE, "EfficientNetLite0 (Auto)"),
        (
            "Auto",
            [HOG_COLOR, MOBILENET, RESNET],
            MOBILENET,
            "mobilenet_v3_large (Auto: the first installed one, because EfficientNetLite0 is not installed)",
        ),
        ("EfficientNetLite0", [RESNET, LITE], LITE, "EfficientNetLite0"),
        ("resnet50", [LITE, MOBILENET, RESNET], RESNET, "resnet50"),
    ],
)
def test_the_chosen_backbone_is_described(
    wanted: str, installed: list[InstalledBackbone], taken: InstalledBackbone, description: str
) -> None:
    choice = choose_backbone(wanted, installed)
    assert (choice.installed, choice.description) == (taken, description)


def refuse(wanted: str, *installed: InstalledBackbone) -> str:
    with pytest.raises(BackboneNotInstalledError) as caught:
        choose_backbone(wanted, installed)
    return str(caught.value)


def test_a_backbone_that_is_not_installed_is_refused_with_the_installed_ones() -> None:
    assert refuse("resnet50", LITE) == (
        'backbone "resnet50" is not installed; name one of EfficientNetLite0, or install resnet50 with '
        "make run BACKBONES=resnet50, or on a cluster as docs/backbones.md says (in the chart: backbones)"
    )


def test_a_backbone_that_was_removed_is_refused_even_where_it_is_listed() -> None:
    assert refuse("HogColor", HOG_COLOR, LITE) == (
        'backbone "HogColor" was removed from Ocelli; the served revision stays available; to train again, set '
        "model.backbone to EfficientNetLite0, or remove model.backbone"
    )


@pytest.mark.parametrize("installed", [(), (HOG_COLOR,)])
def test_without_backbones_the_message_says_how_to_install_one(installed: tuple[InstalledBackbone, ...]) -> None:
    assert refuse("Auto", *installed) == (
        "no backbone is installed; install EfficientNetLite0 as docs/backbones.md says (in the chart: backbones)"
    )
