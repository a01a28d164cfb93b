"""Two revisions on the same images: which images and classes count, and the drop with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ocelli_storage.judged import NEGATIVE, Judged
from ocelli_training.comparison import NotComparableError, add_unseen, find_unseen, measure_drop

Answer = tuple[str, str | None, str | None]
"""An image's name, its actual class, and the predicted one; None: none of the classes."""


def make_judged(
    answers: Sequence[Answer],
    classes: Sequence[str] = ("cat", "dog"),
    *,
    tested: Sequence[str] = (),
    groups: Sequence[int] | None = None,
    erased: int = 0,
) -> Judged:
    """A revision that answers as given. `erased` images that it learned from are not there any more."""
    scores = np.full((len(answers), len(classes)), 0.1, dtype=np.float32)
    for row, (_, _, predicted) in enumerate(answers):
        if predicted is not None:
            scores[row, classes.index(predicted)] = 0.9
    is_tested = np.array([name in tested for name, _, _ in answers], dtype=np.bool_)
    actual = [NEGATIVE if name is None else classes.index(name) for _, name, _ in answers]
    return Judged(
        class_names=tuple(classes),
        has_negatives=any(name is None for _, name, _ in answers),
        digests=tuple(name.ljust(64, "0") for name, _, _ in answers),
        scores=scores,
        actual=np.array(actual, dtype=np.int32),
        groups=np.arange(len(answers), dtype=np.int32) if groups is None else np.array(groups, dtype=np.int32),
        tested=is_tested,
        learned_count=int((~is_tested).sum()) + erased,
    )


def right(name: str, of: str) -> Answer:
    return (name, of, of)


GOOD = [right("a", "cat"), right("b", "cat"), right("c", "dog"), right("d", "dog")]
WORSE: list[Answer] = [right("a", "cat"), ("b", "cat", "dog"), right("c", "dog"), right("d", "dog")]


class TestDrop:
    def test_it_is_the_difference_of_the_balanced_accuracies(self) -> None:
        measured = measure_drop(make_judged(WORSE), make_judged(GOOD))
        assert (measured.baseline_accuracy, measured.accuracy, measured.drop) == (1.0, 0.75, 0.25)
        assert (measured.images, measured.classes) == (4, 2)

    def test_it_is_negative_for_a_better_revision(self) -> None:
        assert measure_drop(make_judged(GOOD), make_judged(WORSE)).drop == -0.25

    def test_it_does_not_depend_on_the_order_of_the_images(self) -> None:
        assert measure_drop(make_judged(WORSE), make_judged(GOOD[::-1])).drop == 0.25

    def test_classes_count_equally_whatever_their_numbers_of_images(self) -> None:
        more = [right(f"e{number}", "dog") for number in range(6)]
        assert measure_drop(make_judged([*WORSE, *more]), make_judged([*GOOD, *more])).drop == 0.25

    def test_near_duplicates_count_as_one_image(self) -> None:
        copies: list[Answer] = [("b2", "cat", "dog"), ("b3", "cat", "dog")]
        judged = make_judged([*WORSE, *copies], groups=[0, 1, 2, 3, 1, 1])
        baseline = make_judged([*GOOD, right("b2", "cat"), right("b3", "cat")])
        assert measure_drop(judged, baseline).drop == 0.25

    def test_the_same_revision_has_not_dropped(self) -> None:
        measured = measure_drop(make_judged(GOOD), make_judged(GOOD))
        assert measured.drop == 0
        assert measured.interval[0] < 0 < measured.interval[1]


class TestImagesThatCount:
    def test_only_images_that_both_were_judged_on_count(self) -> None:
        measured = measure_drop(make_judged([*WORSE, ("new", "cat", "dog")]), make_judged([*GOOD, right("old", "cat")]))
        assert (measured.images, measured.drop) == (4, 0.25)

    def test_an_image_whose_class_was_changed_is_left_out_and_counted(self) -> None:
        measured = measure_drop(make_judged([*GOOD[:3], ("d", "cat", "dog")]), make_judged(GOOD))
        assert (measured.images, measured.reclassified, measured.drop) == (3, 1, 0)

    def test_a_test_set_replaces_the_cross_validated_images(self) -> None:
        own = make_judged([*GOOD, ("t", "cat", "dog"), right("u", "dog")], tested=["t", "u"])
        other = make_judged([*GOOD, right("t", "cat"), right("u", "dog")], tested=["t", "u"])
        measured = measure_drop(own, other)
        assert (measured.images, measured.drop) == (2, 0.5)

    def test_a_test_image_that_the_baseline_was_cross_validated_on_counts_with_the_new_class(self) -> None:
        own = make_judged([*GOOD, right("t", "cat"), right("u", "dog")], tested=["t", "u"])
        other = make_judged([("t", "dog", "dog"), ("u", "cat", "dog")])
        measured = measure_drop(own, other)
        assert (measured.images, measured.reclassified, measured.baseline_accuracy) == (2, 0, 0.5)

    def test_without_a_common_image_there_is_no_drop(self) -> None:
        with pytest.raises(NotComparableError, match="no image that neither learned from was judged by both"):
            measure_drop(make_judged(GOOD), make_judged([right("x", "cat"), right("y", "dog")]))

    def test_images_that_all_changed_class_are_named(self) -> None:
        swapped = [right("a", "dog"), right("b", "dog"), right("c", "cat"), right("d", "cat")]
        with pytest.raises(NotComparableError, match="without 4 images whose class was changed"):
            measure_drop(make_judged(swapped), make_judged(GOOD))

    def test_a_test_set_that_the_baseline_was_not_judged_on_gives_no_drop(self) -> None:
        with pytest.raises(NotComparableError, match="no image of the test set was judged by both"):
            measure_drop(make_judged([*GOOD, right("t", "cat")], tested=["t"]), make_judged(GOOD))


class TestClasses:
    def test_images_of_a_new_class_do_not_count(self) -> None:
        own = make_judged([*GOOD, ("e", "cow", "cat")], ("cat", "cow", "dog"))
        measured = measure_drop(own, make_judged(GOOD))
        assert (measured.images, measured.classes, measured.drop) == (4, 2, 0)

    def test_a_new_class_takes_no_images_from_the_others(self) -> None:
        own = make_judged([("a", "cat", "cow"), *GOOD[1:]], ("cat", "cow", "dog"))
        # Among the common classes, both score the same, and the first one is predicted.
        assert measure_drop(own, make_judged(GOOD)).drop == 0

    def test_classes_are_found_by_name_in_any_order(self) -> None:
        assert measure_drop(make_judged(WORSE), make_judged(GOOD, ("dog", "bird", "cat"))).drop == 0.25

    def test_one_common_class_is_not_enough(self) -> None:
        with pytest.raises(NotComparableError, match="they have 1 class in common, and at least 2 are needed"):
            measure_drop(make_judged(GOOD), make_judged([right("a", "cat"), right("z", "cow")], ("cat", "cow")))

    def test_negatives_count_as_a_class_where_both_have_them(self) -> None:
        own = make_judged([*GOOD, ("n", None, "cat")])
        other = make_judged([*GOOD, ("n", None, None)])
        measured = measure_drop(own, other)
        assert (measured.classes, measured.images, measured.drop) == (3, 5, pytest.approx(1 / 3))

    def test_negatives_of_one_revision_do_not_count_and_its_low_scores_do_not_reject(self) -> None:
        own = make_judged([("a", "cat", None), *GOOD[1:], ("n", None, None)])
        measured = measure_drop(own, make_judged(GOOD))
        assert (measured.classes, measured.images, measured.drop) == (2, 4, 0)

    def test_one_common_class_and_negatives_are_enough(self) -> None:
        own = make_judged([right("a", "cat"), ("n", None, "cat")], ("cat",))
        other = make_judged([right("a", "cat"), ("n", None, None)], ("cat",))
        assert measure_drop(own, other).drop == 0.5


class TestInterval:
    def test_it_contains_the_true_drop_as_often_as_it_says(self) -> None:
        truth = np.repeat(np.arange(2), 50)
        names = [f"{row:02d}" for row in range(100)]
        random = np.random.default_rng(5)
        contained = 0
        for _ in range(100):
            wrong = random.random((2, 100)) < np.array([[0.3], [0.1]])
            sides = [
                make_judged(
                    [(name, "ab"[of], "ab"[of ^ int(bad)]) for name, of, bad in zip(names, truth, side, strict=True)], "ab"
                )
                for side in wrong
            ]
            lower, upper = measure_drop(*sides).interval
            contained += lower <= 0.2 <= upper
        assert contained >= 90

    def test_it_is_the_same_each_time(self) -> None:
        intervals = {measure_drop(make_judged(WORSE), make_judged(GOOD)).interval for _ in range(3)}
        assert len(intervals) == 1

    def test_more_images_make_it_narrower(self) -> None:
        def width(copies: int) -> float:
            sides = [
                [(f"{name}{number}", of, found) for number in range(copies) for name, of, found in answers]
                for answers in (WORSE, GOOD)
            ]
            lower, upper = measure_drop(*(make_judged(side) for side in sides)).interval
            return upper - lower

        assert width(100) < width(10) / 2


class TestUnseenImages:
    @staticmethod
    def with_unseen(baseline: Judged, own: Judged) -> Judged:
        """The baseline with what it never saw, which it takes for cats."""
        rows = find_unseen(baseline, own)
        return add_unseen(baseline, own, rows, np.tile(np.array([0.9, 0.1], dtype=np.float32), (len(rows), 1)))

    def test_the_served_heads_score_what_they_never_saw(self) -> None:
        own = make_judged([*GOOD, right("new", "cat"), right("newer", "dog")])
        baseline = self.with_unseen(make_judged(GOOD), own)
        measured = measure_drop(own, baseline)
        assert (measured.images, measured.baseline_accuracy) == (6, pytest.approx((3 / 3 + 2 / 3) / 2))

    def test_a_near_duplicate_of_what_they_learned_is_not_unseen(self) -> None:
        own = make_judged([*GOOD, right("new", "cat")], groups=[0, 1, 2, 3, 0])
        assert self.with_unseen(make_judged(GOOD), own).digests == make_judged(GOOD).digests

    def test_nothing_is_added_after_an_erasure(self) -> None:
        own = make_judged([*GOOD, right("new", "cat")])
        baseline = make_judged(GOOD, erased=1)
        assert self.with_unseen(baseline, own).digests == baseline.digests

    def test_an_image_of_a_class_that_they_do_not_have_is_not_added(self) -> None:
        own = make_judged([*GOOD, right("new", "cow")], ("cat", "cow", "dog"))
        assert self.with_unseen(make_judged(GOOD), own).digests == make_judged(GOOD).digests

    def test_a_negative_is_added_only_where_they_have_negatives(self) -> None:
        own = make_judged([*GOOD, ("n", None, None)])
        without = self.with_unseen(make_judged(GOOD), own)
        with_negatives = self.with_unseen(make_judged([*GOOD, ("m", None, None)]), own)
        assert (len(without.digests), len(with_negatives.digests)) == (4, 6)

    def test_a_test_set_that_is_new_can_be_judged_by_the_served_heads(self) -> None:
        own = make_judged([*GOOD, right("t", "cat"), right("u", "dog")], tested=["t", "u"])
        measured = measure_drop(own, self.with_unseen(make_judged(GOOD), own))
        assert (measured.images, measured.drop) == (2, -0.5)


def test_arrays_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        replace(make_judged(GOOD), tested=np.zeros(3, dtype=np.bool_))
