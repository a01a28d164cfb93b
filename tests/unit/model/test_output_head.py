"""Outputs to scores: activation, classes of several outputs, ancestors, the class that is returned if no other is, names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_api.classifier import Activation
from ocelli_api.documents import build_document, parse_fields
from ocelli_model.output_head import OutputClass, OutputHead

OWLS = (
    OutputClass(name="barn owl", outputs=(0, 3), ancestors=("animal", "owl"), translations={"de": "Schleiereule"}),
    OutputClass(name="eagle owl", outputs=(1,), ancestors=("animal", "owl"), translations={"de": "Uhu"}),
    OutputClass(name="car", outputs=(2,)),
    OutputClass(name="animal", outputs=(0, 1, 3), translations={"de": "Tier"}),
    OutputClass(name="owl", outputs=(0, 1, 3)),
)
NOTHING = OutputClass(name="nothing", outputs=())


def make_head(activation: Activation = Activation.SOFTMAX, *, classes: tuple[OutputClass, ...] = OWLS) -> OutputHead:
    return OutputHead(activation=activation, output_count=4, classes=classes)


def score(head: OutputHead, *outputs: float) -> dict[str, float]:
    row = head.scores(np.array([outputs], dtype=np.float32))[0]
    return {name: round(float(value), 6) for name, value in zip(head.class_names, row, strict=True)}


def make_outputs(count: int, *, outputs: int = 4, scale: float = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, scale, (count, outputs)).astype(np.float32)


def test_softmax_shares_one_among_the_outputs() -> None:
    outputs = make_outputs(5)
    exponentials = np.exp(outputs.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert make_head().scores(outputs)[:, 1:3] == pytest.approx(expected[:, 1:3], abs=1e-6)


def test_outputs_of_one_name_are_one_class_and_their_scores_are_added() -> None:
    assert score(make_head(Activation.IDENTITY), 0.2, 0.1, 0.4, 0.3)["barn owl"] == 0.5


def test_score_of_an_ancestor_is_the_sum_of_its_leaves() -> None:
    assert score(make_head(Activation.IDENTITY), 0.2, 0.1, 0.4, 0.3)["owl"] == 0.6


def test_sums_stop_at_one() -> None:
    assert score(make_head(Activation.IDENTITY), 0.9, 0.8, 0, 0.7)["animal"] == 1


def test_with_sigmoid_score_of_an_ancestor_is_the_highest_of_its_leaves() -> None:
    scores = score(make_head(Activation.SIGMOID), 0, 2, -2, -3)
    assert (scores["barn owl"], scores["eagle owl"], scores["owl"]) == (0.5, 0.880797, 0.880797)


def test_numbers_that_are_scores_already_are_kept_within_0_and_1() -> None:
    scores = score(make_head(Activation.IDENTITY), 0, 1.0004, -0.0002, 0)
    assert (scores["eagle owl"], scores["car"]) == (1, 0)


def test_a_temperature_divides_the_outputs_before_softmax() -> None:
    outputs = make_outputs(5)
    surer = replace(make_head(), temperature=0.5)
    assert surer.scores(outputs) == pytest.approx(make_head().scores(2 * outputs), abs=1e-7)


def test_temperature_of_one_is_not_stored_and_does_not_change_scores() -> None:
    head = make_head()
    assert "temperature" not in build_document(head, omit_defaults=True)
    stored = parse_fields(OutputHead, build_document(head, omit_defaults=True))
    assert np.array_equal(stored.scores(make_outputs(9)), head.scores(make_outputs(9)))


def test_a_temperature_is_stored() -> None:
    head = replace(make_head(), temperature=0.7)
    assert parse_fields(OutputHead, build_document(head, omit_defaults=True)) == head


@pytest.mark.parametrize("activation", list(Activation))
def test_no_ancestor_is_ever_below_its_leaf_after_rounding(activation: Activation) -> None:
    members = tuple(range(1000))
    leaves = tuple(OutputClass(name=f"leaf {index}", outputs=(index,), ancestors=("root",)) for index in members)
    head = OutputHead(activation=activation, output_count=1000, classes=(*leaves, OutputClass(name="root", outputs=members)))
    scores = head.scores(make_outputs(200, outputs=1000))
    rounded = np.array([[round(float(value), 6) for value in row] for row in scores])
    assert (rounded[:, -1:] >= rounded[:, :-1]).all()


@pytest.mark.parametrize("activation", list(Activation))
def test_an_image_has_the_same_scores_alone_and_among_others(activation: Activation) -> None:
    head, outputs = make_head(activation), make_outputs(23)
    together = head.scores(outputs)
    for row in range(len(outputs)):
        assert np.array_equal(head.scores(outputs[row : row + 1])[0], together[row])


@pytest.mark.parametrize("activation", list(Activation))
def test_extreme_outputs_give_scores_without_warning(activation: Activation) -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        scores = make_head(activation).scores(np.array([[1e30, -1e30, 0, 88]], dtype=np.float32))
    assert ((scores >= 0) & (scores <= 1)).all()


class TestTheClassOfNone:
    head = make_head(Activation.IDENTITY, classes=(*OWLS, NOTHING))

    def test_its_score_is_the_rest_of_the_best_score(self) -> None:
        assert score(self.head, 0.1, 0.1, 0.2, 0.1)["nothing"] == 0.7

    def test_its_score_is_zero_if_another_class_reaches_one_half(self) -> None:
        assert score(self.head, 0, 0, 0.5, 0)["nothing"] == 0

    def test_its_score_is_zero_if_an_ancestor_reaches_one_half(self) -> None:
        scores = score(self.head, 0.3, 0.3, 0, 0)
        assert (scores["owl"], scores["nothing"]) == (0.6, 0)

    def test_its_score_is_zero_if_another_rounds_to_one_half(self) -> None:
        scores = score(self.head, 0, 0, 0.4999996, 0)
        assert (scores["car"], scores["nothing"]) == (0.5, 0)


class TestWhatClassesAreCalled:
    def test_a_path_ends_with_its_class(self) -> None:
        wording = make_head().wording
        assert wording.type_hierarchies == ("/animal/owl/barn owl", "/animal/owl/eagle owl", None, None, None)

    def test_names_and_paths_are_translated_alike_and_the_rest_stays(self) -> None:
        wording = make_head().wordings["de"]
        assert wording.class_names == ("Schleiereule", "Uhu", "car", "Tier", "owl")
        assert wording.type_hierarchies[:2] == ("/Tier/owl/Schleiereule", "/Tier/owl/Uhu")

    def test_a_translation_that_two_classes_share_is_the_first_one_s(self) -> None:
        classes = tuple(OutputClass(name=name, outputs=(0,), translations={"de": "Kran"}) for name in ("crane", "hoist"))
        assert make_head(classes=classes).wordings["de"].class_names == ("Kran", "hoist")

    def test_a_translation_that_is_another_class_s_name_is_not_used(self) -> None:
        classes = (
            OutputClass(name="cat", outputs=(0,), translations={"fr": "chat"}),
            OutputClass(name="chat", outputs=(1,)),
        )
        assert make_head(classes=classes).wordings["fr"].class_names == ("cat", "chat")

    def test_replaced_names_do_not_clash_again(self) -> None:
        classes = (
            OutputClass(name="a", outputs=(0,), translations={"de": "x"}),
            OutputClass(name="b", outputs=(1,), translations={"de": "x"}),
            OutputClass(name="c", outputs=(2,), translations={"de": "b"}),
        )
        assert make_head(classes=classes).wordings["de"].class_names == ("x", "b", "c")


class TestWhatIsRefused:
    def test_outputs_of_another_network(self) -> None:
        with pytest.raises(ValueError, match="the head is for 4"):
            make_head().scores(make_outputs(1, outputs=5))

    def test_outputs_that_are_not_finite(self) -> None:
        with pytest.raises(ValueError, match="not all finite"):
            make_head().scores(np.array([[np.nan, 0, 0, 0]], dtype=np.float32))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
    def test_invalid_temperatures(self, temperature: float) -> None:
        with pytest.raises(ValueError, match="head: the temperature is"):
            replace(make_head(), temperature=temperature)

    def test_a_temperature_without_softmax(self) -> None:
        with pytest.raises(ValueError, match="requires the activation Softmax"):
            replace(make_head(Activation.SIGMOID), temperature=0.5)

    @pytest.mark.parametrize(
        "classes",
        [
            (*OWLS, OWLS[0]),
            (NOTHING, *OWLS),
            (NOTHING,),
            (),
            (OutputClass(name="x", outputs=(4,)),),
            (OutputClass(name="x", outputs=(-1,)),),
        ],
    )
    def test_invalid_classes(self, classes: tuple[OutputClass, ...]) -> None:
        with pytest.raises(ValueError, match="head: "):
            make_head(classes=classes)


class TestTheClassOfNoneBesideARootThatIsAlwaysTrue:
    """Below `/food/…` every output is food, for any image."""

    FOOD = (
        OutputClass(name="tomato", outputs=(0,), ancestors=("food",)),
        OutputClass(name="spinach", outputs=(1, 2), ancestors=("food",)),
        OutputClass(name="bread", outputs=(3,), ancestors=("food",)),
        OutputClass(name="food", outputs=(0, 1, 2, 3)),
        OutputClass(name="non-food", outputs=()),
    )

    def test_the_root_does_not_suppress_the_otherwise_class(self) -> None:
        scores = score(make_head(Activation.IDENTITY, classes=self.FOOD), 0.4, 0.2, 0.1, 0.3)
        assert scores == {"tomato": 0.4, "spinach": 0.3, "bread": 0.3, "food": 0.4, "non-food": 0.6}

    def test_the_root_scores_one_if_a_class_reaches_one_half(self) -> None:
        scores = score(make_head(Activation.IDENTITY, classes=self.FOOD), 0.8, 0.1, 0, 0.1)
        assert (scores["food"], scores["non-food"]) == (1.0, 0.0)
