"""Curves for TensorBoard: the points of a run, the files, and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import StoreUnavailableError
from ocelli_storage.store_url import open_store
from ocelli_training.tuning_curves import FILE, CurvePoint, CurveStore, write_events
from ocelli_training.tuning_recipe import RunPlan
from ocelli_training.tuning_run import Step, TuningImages, TuningRun
from tests.unit.training.event_files import read_curves, read_events
from tests.unit.training.tuned_pictures import (
    IMAGES,
    StoppedError,
    make_images,
    make_network,
    make_recipe,
    make_run,
    stop_after,
)

STEPS = 4
"""In an epoch, see `test_tuning_run`."""
POINTS = (
    CurvePoint(epoch=0, at=1000.0, loss=0.5, accuracy=0.75),
    CurvePoint(epoch=1, at=1060.0, learning_rate=0.125, training_loss=0.625, loss=0.375, accuracy=0.875),
    CurvePoint(epoch=2, at=1120.0, learning_rate=0.25, training_loss=0.25, loss=0.125, accuracy=1.0),
)
PREFIX = ClassifierLocation(namespace="team-a", classifier_id="dogs_1").curves_prefix("0123456789")


@pytest.fixture
def images(tmp_path: Path) -> Iterator[TuningImages]:
    with make_images(tmp_path) as images:
        yield images


def nothing(_: Step) -> None:
    return


def values_of(run: TuningRun) -> list[CurvePoint]:
    """Without times."""
    return [replace(point, at=0.0) for point in run.curve()]


def test_a_run_has_a_point_for_the_linear_heads_and_for_each_epoch(images: TuningImages) -> None:
    run = make_run(images)
    run.train(nothing)
    points = run.curve()
    assert [point.epoch for point in points] == [0, 1, 2, 3]
    assert [point.loss for point in points] == run.state.losses
    first, best = run.stopping_scores
    assert points[0].accuracy == first.right.mean()
    assert points[run.state.best_epoch].accuracy == best.right.mean()


def test_the_learning_rate_is_that_of_the_last_step_of_each_epoch(images: TuningImages) -> None:
    run, rates, used = make_run(images), make_recipe(), []
    run.train(lambda step: used.append(rates.rate(len(used), 3 * STEPS)))
    assert [point.learning_rate for point in run.curve()] == [None, *used[STEPS - 1 :: STEPS]]


def test_the_training_loss_is_the_mean_of_the_images_of_an_epoch(images: TuningImages) -> None:
    run, losses = make_run(images), []
    run.train(lambda step: losses.append(step.loss))
    sizes = np.array([5, 5, 5, 3])
    expected = [float(np.average(losses[start : start + STEPS], weights=sizes)) for start in range(0, 3 * STEPS, STEPS)]
    points = run.curve()
    assert points[0].training_loss is None
    assert [point.training_loss for point in points[1:]] == pytest.approx(expected)


def test_times_of_points_rise(images: TuningImages) -> None:
    run = make_run(images)
    run.train(nothing)
    times = [point.at for point in run.curve()]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_a_run_that_learns_from_all_images_has_no_values_of_others(images: TuningImages) -> None:
    run = make_run(images)
    everything, none = np.arange(IMAGES), np.arange(0)
    run._plan = RunPlan(number=5, learned=everything, stopping=none, judged=none)
    run.train(nothing)
    assert [sorted(point.values()) for point in run.curve()] == [[], *[["learning_rate", "loss/training"]] * 3]


@pytest.mark.parametrize("steps", [1, STEPS - 1, STEPS, 2 * STEPS + 1])
def test_a_run_that_was_stopped_anywhere_continues_its_curve(images: TuningImages, steps: int) -> None:
    whole, stopped, resumed = make_run(images), make_run(images), make_run(images, network=make_network())
    whole.train(nothing)
    with pytest.raises(StoppedError):
        stopped.train(stop_after(steps))
    saved = {name: value.clone() for name, value in stopped.tensors().items()}
    resumed.restore(stopped.state, saved)
    before = [point.at for point in stopped.curve()]
    resumed.train(nothing)
    assert values_of(resumed) == values_of(whole)
    assert [point.at for point in resumed.curve()][: len(before)] == before


def test_a_file_has_the_values_by_tag_and_epoch(tmp_path: Path) -> None:
    write_events(tmp_path / FILE, POINTS)
    assert read_curves((tmp_path / FILE).read_bytes()) == {
        "loss/training": {1: 0.625, 2: 0.25},
        "loss/validation": {0: 0.5, 1: 0.375, 2: 0.125},
        "accuracy/validation": {0: 0.75, 1: 0.875, 2: 1.0},
        "learning_rate": {1: 0.125, 2: 0.25},
    }


def test_a_file_has_the_times_of_the_epochs(tmp_path: Path) -> None:
    write_events(tmp_path / FILE, POINTS)
    assert [event.wall_time for event in read_events((tmp_path / FILE).read_bytes())] == [1000.0, 1000.0, 1060.0, 1120.0]


def test_a_longer_curve_begins_with_the_bytes_of_the_shorter_one(tmp_path: Path) -> None:
    """TensorBoard goes on reading where it was."""
    files = []
    for count in (2, 3):
        write_events(tmp_path / FILE, POINTS[:count])
        files.append((tmp_path / FILE).read_bytes())
    assert files[1].startswith(files[0])


class Stored:
    """Curves of one revision in a store."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.store = open_store((folder / "store").as_uri())
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.curves = CurveStore(store=self.store, prefix=PREFIX, scratch=self.scratch, loop=loop)

    def keys(self) -> Sequence[str]:
        return sorted(item.key for item in asyncio.run(self.store.list_objects("tenants")))

    def epochs(self, network: int) -> list[int]:
        data = asyncio.run(self.store.get(f"{PREFIX}/network-{network}/{FILE}", limit_bytes=100_000))
        return sorted(read_curves(data)["loss/validation"])


@pytest.fixture
def stored(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Stored:
    return Stored(tmp_path, loop)


def test_each_network_has_one_file_below_the_revision_whatever_the_number_of_epochs(stored: Stored) -> None:
    for network, count in ((1, 2), (1, 3), (2, 2)):
        stored.curves.save(network, POINTS[:count])
    revision = "tenants/team-a/artifacts/dogs_1/0123456789"
    assert stored.keys() == [f"{revision}/tensorboard/network-{network}/{FILE}" for network in (1, 2)]
    assert (stored.epochs(1), stored.epochs(2)) == ([0, 1, 2], [0, 1])


def test_a_training_that_begins_anew_deletes_the_curves_of_the_attempt_before(stored: Stored) -> None:
    stored.curves.save(4, POINTS)
    stored.curves.clear()
    assert stored.keys() == []


def test_a_store_that_does_not_answer_does_not_end_the_training(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(key: str, data: bytes | Path) -> None:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(stored.store, "put", refuse)
    stored.curves.save(1, POINTS)
    assert stored.keys() == []
    assert list(stored.scratch.iterdir()) == []


def test_curves_cannot_be_deleted_while_the_store_does_not_answer(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(prefix: str) -> int:
        raise StoreUnavailableError("down")

    stored.curves.save(1, POINTS)
    monkeypatch.setattr(stored.store, "delete_prefix", refuse)
    stored.curves.clear()
    assert stored.epochs(1) == [0, 1, 2]
