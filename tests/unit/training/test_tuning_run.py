"""One run of fine-tuning, with a small network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ocelli_training.tuning_network import TunedNetwork
from ocelli_training.tuning_recipe import DivergedError, GpuMemoryError
from ocelli_training.tuning_run import Step, TuningImages
from tests.unit.training.tuned_pictures import SmallBody, StoppedError, make_images, make_network, make_run, stop_after

STEPS = 4
"""In an epoch: 18 images in batches of 5."""


@pytest.fixture
def images(tmp_path: Path) -> Iterator[TuningImages]:
    with make_images(tmp_path) as images:
        yield images


def weights_of(network: TunedNetwork) -> list[Tensor]:
    return [value.detach().clone() for value in network.parameters()]


def are_equal(one: TunedNetwork, other: TunedNetwork) -> bool:
    return all(torch.equal(first, second) for first, second in zip(weights_of(one), weights_of(other), strict=True))


def nothing(_: Step) -> None:
    return


def test_training_lowers_the_loss_of_images_that_it_does_not_learn_from(images: TuningImages) -> None:
    run = make_run(images, epochs=10)
    run.train(nothing)
    first, best = (scores.losses for scores in run.stopping_scores)
    assert run.state.best_epoch > 0
    assert best.sum() < 0.8 * first.sum()


def test_the_same_seed_gives_the_same_network(images: TuningImages) -> None:
    runs = [make_run(images) for _ in range(2)]
    for run in runs:
        run.train(nothing)
    assert are_equal(runs[0].network, runs[1].network)


def test_another_seed_gives_another_network(images: TuningImages) -> None:
    runs = [make_run(images, seed=seed) for seed in range(2)]
    for run in runs:
        run.train(nothing)
    assert not are_equal(runs[0].network, runs[1].network)


@pytest.mark.parametrize("steps", [1, STEPS - 1, STEPS, 2 * STEPS + 1])
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not_been(images: TuningImages, steps: int) -> None:
    whole, stopped, resumed = make_run(images), make_run(images), make_run(images)
    whole.train(nothing)
    with pytest.raises(StoppedError):
        stopped.train(stop_after(steps))
    saved = {name: value.clone() for name, value in stopped.tensors().items()}
    resumed.restore(replace(stopped.state, losses=list(stopped.state.losses)), saved)
    resumed.train(nothing)
    assert resumed.state == whole.state
    assert are_equal(resumed.network, whole.network)
    assert np.array_equal(resumed.stopping_scores[1].losses, whole.stopping_scores[1].losses)
    assert np.array_equal(resumed.stopping_scores[1].right, whole.stopping_scores[1].right)


def test_statistics_of_batch_norms_stay(images: TuningImages) -> None:
    run = make_run(images)
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    run.train(nothing)
    assert all(torch.equal(value, before[name]) for name, value in run.network.named_buffers())


def test_a_run_without_improvement_ends_early_with_the_linear_heads(images: TuningImages) -> None:
    run = make_run(images, epochs=50, learning_rate=1e-12)
    before = weights_of(run.network)
    # Such small steps are lost in rounding, so no epoch is better than the one before the first.
    run.train(nothing)
    assert (run.state.epoch, run.state.best_epoch) == (4, 0)
    assert all(torch.equal(one, other) for one, other in zip(weights_of(run.network), before, strict=True))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_learning_rate(images: TuningImages) -> None:
    run = make_run(images, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"epoch \d.*lower spec.model.learningRate, which is 1e\+30"):
        run.train(nothing)


class TooLarge(SmallBody):
    """A body for which a GPU has memory for a few images only."""

    def __init__(self, limit_images: int) -> None:
        super().__init__()
        self.limit_images = limit_images

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) > self.limit_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def test_a_batch_that_does_not_fit_runs_as_two_halves(images: TuningImages) -> None:
    run = make_run(images, network=make_network(TooLarge(3)))
    run.train(nothing)
    assert run.state.halved
    assert run.state.epoch == 3


def test_halves_learn_what_the_whole_learns(images: TuningImages) -> None:
    """Without dropout, which is drawn for each half."""
    networks = []
    for limit in (5, 3):
        torch.manual_seed(7)
        body = TooLarge(limit)
        body.dropout.p = 0.0
        run = make_run(images, network=make_network(body))
        run.train(nothing)
        networks.append(run.network)
    for one, other in zip(*map(weights_of, networks), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_half_that_does_not_fit_ends_the_run_and_names_the_batch(images: TuningImages) -> None:
    run = make_run(images, network=make_network(TooLarge(2)))
    with pytest.raises(GpuMemoryError, match="half of a batch of 5 images; lower spec"):
        run.train(nothing)


def test_negative_examples_have_a_target_of_zeros(images: TuningImages) -> None:
    assert make_run(images)._targets(np.array([0, 1, 2])).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_a_state_can_be_saved_while_the_linear_heads_are_the_best(images: TuningImages) -> None:
    run = make_run(images)
    with pytest.raises(StoppedError):
        run.train(stop_after(1))
    addresses = [value.data_ptr() for value in run.tensors().values()]
    assert (run.state.step, run.state.updates, run.state.best_epoch) == (1, 1, 0)
    assert len(set(addresses)) == len(addresses)
