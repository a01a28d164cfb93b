"""Arrows to the left and arrows to the right, through the real network and the whole trainer."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_model.artifact import load_artifact
from ocelli_model.heads import Heads
from tests.unit.training import made_pictures as pictures
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.slow

LEARNED = 30
"""Of each class."""
JUDGED = 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_zip: Any) -> Trainer:
    trainer = Trainer(tmp_path_factory.mktemp("arrows"))
    for name, left in (("left", True), ("right", False)):
        arrows = {f"{seed}.jpg": pictures.save(pictures.draw_arrow(seed, left=left)) for seed in range(LEARNED)}
        trainer.add_class(name, make_zip(arrows))
    outcome, _ = trainer.run()
    assert outcome.succeeded
    return trainer


def scores(trained: Trainer, files: list[bytes]) -> NDArray[np.float32]:
    heads = asyncio.run(load_artifact(trained.store, trained.location, trained.revision)).heads
    assert isinstance(heads, Heads)
    return heads.scores(pictures.find_features(files)[1])


def other_arrows() -> list[bytes]:
    return [pictures.save(pictures.draw_arrow(5000 + seed, left=left)) for left in (True, False) for seed in range(JUDGED)]


def test_left_and_right_arrows_are_distinguished(trained: Trainer) -> None:
    right = scores(trained, other_arrows()).argmax(axis=1) == np.repeat([0, 1], JUDGED)

    assert right.mean() >= 0.95


def test_their_mirrored_images_are_not_used_for_training(trained: Trainer) -> None:
    assert trained.report["recipe"]["views"] == ["Whole", "Enlarged"]


def test_an_arrow_and_its_mirrored_image_in_the_other_class_are_not_a_conflict(trained: Trainer) -> None:
    assert trained.report["data"]["conflictsCount"] == 0


def test_pictures_of_other_things_are_neither_class(trained: Trainer) -> None:
    others = [*pictures.photographs(), *(pictures.textured(seed) for seed in range(18))]

    assert (scores(trained, [pictures.save(picture) for picture in others]) < 0.5).all(axis=1).mean() >= 0.9
