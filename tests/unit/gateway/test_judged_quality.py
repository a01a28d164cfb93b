"""Quality from judged scores: metrics, cells and their images, orders, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ocelli_gateway import judged_quality
from ocelli_gateway.judged_quality import ImageFilter, ImageOrder, JudgedQuality, QualityComparison, UnknownClassError
from ocelli_gateway.quality_fields import parse_class
from ocelli_storage.judged import NEGATIVE, Judged
from ocelli_training.evaluate import JudgedImage, evaluate
from ocelli_training.fit import Fit

CLASSES = ("heron", "owl", "stork")


def make(
    scores: Sequence[Sequence[float]],
    actual: Sequence[int],
    *,
    has_negatives: bool = False,
    tested: Sequence[bool] | None = None,
    digests: Sequence[str] | None = None,
    class_names: Sequence[str] = CLASSES,
) -> JudgedQuality:
    count = len(actual)
    judged = Judged(
        class_names=tuple(class_names),
        has_negatives=has_negatives,
        digests=tuple(digests or (f"{row:064x}" for row in range(count))),
        scores=np.array(scores, dtype=np.float32),
        actual=np.array(actual, dtype=np.int32),
        groups=np.arange(count, dtype=np.int32),
        tested=np.array(tested if tested is not None else [False] * count, dtype=np.bool_),
        learned_count=count,
    )
    return JudgedQuality(judged=judged)


def random_quality(count: int = 200, *, has_negatives: bool) -> JudgedQuality:
    random = np.random.default_rng(3)
    actual = random.integers(NEGATIVE if has_negatives else 0, 3, count)
    return make(random.random((count, 3)).tolist(), actual.tolist(), has_negatives=has_negatives)


@pytest.mark.parametrize("has_negatives", [True, False])
def test_each_cell_has_exactly_the_images_that_its_filter_finds(has_negatives: bool) -> None:
    quality = random_quality(has_negatives=has_negatives)
    total = 0
    for cell in quality.confusion():
        wanted = ImageFilter(actual=cell["actual"] or "", predicted=cell["predicted"] or "")
        rows = quality.find(wanted, ImageOrder.MOST_WRONG)
        assert len(rows) == cell["images"]
        total += len(rows)
    assert total == 200


@pytest.mark.parametrize("has_negatives", [True, False])
def test_the_confusion_matrix_and_the_metrics_are_those_of_the_trainer(has_negatives: bool) -> None:
    judged = random_quality(has_negatives=has_negatives).judged
    membership = judged.actual[:, np.newaxis] == np.arange(3)
    fit = Fit.__new__(Fit)
    object.__setattr__(fit, "scores", judged.scores)
    object.__setattr__(fit, "unrejected_scores", judged.scores)
    images = [JudgedImage(name=digest, sha256=digest) for digest in judged.digests]
    expected = evaluate(fit, membership, judged.groups.astype(np.intp), CLASSES, images).to_json()
    quality = JudgedQuality(judged=judged)
    assert quality.confusion() == expected["confusion"]
    names = ("class", "images", "precision", "recall", "f1")
    assert quality.class_metrics() == [{name: item[name] for name in names} for item in expected["classes"]]
    wrong = quality.find(ImageFilter(wrong=True), ImageOrder.MOST_WRONG)
    assert {judged.digests[row] for row in wrong} == {image["sha256"] for image in expected["misclassified"]}


def test_most_wrong_is_what_is_furthest_from_right() -> None:
    quality = make([[0.9, 0.8, 0], [0.2, 0.9, 0], [0.9, 0.1, 0], [0.6, 0.5, 0]], [1, 0, 0, 0])
    assert quality.find(ImageFilter(), ImageOrder.MOST_WRONG).tolist() == [1, 0, 3, 2]


def test_a_negative_is_the_more_wrong_the_higher_its_best_score_is() -> None:
    quality = make([[0.6, 0, 0], [0.9, 0, 0], [0.1, 0, 0]], [-1, -1, -1], has_negatives=True)
    assert quality.find(ImageFilter(), ImageOrder.MOST_WRONG).tolist() == [1, 0, 2]


def test_least_sure_is_where_two_answers_are_close() -> None:
    quality = make([[0.9, 0.1, 0], [0.5, 0.45, 0], [0.7, 0.4, 0]], [0, 0, 1])
    assert quality.find(ImageFilter(), ImageOrder.LEAST_SURE).tolist() == [1, 2, 0]


def test_order_by_class_has_negatives_last() -> None:
    quality = make([[0.1, 0, 0], [0.9, 0, 0], [0.1, 0.9, 0]], [-1, 1, 0], has_negatives=True)
    assert quality.find(ImageFilter(), ImageOrder.CLASS).tolist() == [2, 1, 0]


def test_an_own_test_set_is_what_the_evaluation_is_about() -> None:
    quality = make([[0.9, 0, 0], [0.9, 0, 0], [0, 0.9, 0]], [0, 1, 1], tested=[False, True, True])
    assert sum(cell["images"] for cell in quality.confusion()) == 2
    assert quality.find(ImageFilter(), ImageOrder.MOST_WRONG).tolist() == [1, 2]
    assert quality.find(ImageFilter(tested=False), ImageOrder.MOST_WRONG).tolist() == [0]


def test_an_unknown_class_is_an_error() -> None:
    with pytest.raises(UnknownClassError, match="eagle"):
        make([[0.9, 0, 0]], [0]).find(ImageFilter(actual="eagle"), ImageOrder.CLASS)


def test_scores_of_many_images_are_the_same_sample_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged_quality, "SCORES_LIMIT", 30)
    quality = random_quality(has_negatives=True)
    first = quality.scores()
    assert (len(first["images"]), first["sampled"]) == (10, True)
    assert quality.scores() == first


def test_scores_of_few_images_are_complete() -> None:
    scores = make([[0.9, 0.25, 0], [0.1, 0.2, 0.3]], [0, -1], has_negatives=True).scores()
    assert scores["scores"] == [[0.9, 0.25, 0.0], [0.1, 0.2, 0.3]]
    assert scores["actual"] == [0, -1]
    assert "sampled" not in scores


def compared(own: JudgedQuality, other: JudgedQuality) -> dict[str, Any]:
    comparison = QualityComparison(own=own, other=other)
    return {
        "images": comparison.image_count,
        "better": comparison.changed(better=True)[:, 0].tolist(),
        "worse": comparison.changed(better=False)[:, 0].tolist(),
        "only": comparison.only_counts,
        "accuracies": comparison.accuracies(),
    }


def test_a_comparison_tells_what_got_better_and_what_worse() -> None:
    own = make([[0.9, 0, 0], [0.9, 0, 0], [0, 0.9, 0]], [0, 1, 1], digests=["a" * 64, "b" * 64, "c" * 64])
    other = make([[0, 0.9, 0], [0, 0.9, 0], [0, 0.9, 0]], [0, 1, 1], digests=["a" * 64, "b" * 64, "d" * 64])
    assert compared(own, other) == {"images": 2, "better": [0], "worse": [1], "only": (1, 1), "accuracies": (0.5, 0.5)}


def test_a_relabelled_image_counts_by_its_class_in_the_first_revision() -> None:
    own, other = make([[0, 0.9, 0]], [1]), make([[0, 0.9, 0]], [0])
    assert compared(own, other)["better"] == []


def test_classes_are_compared_by_name() -> None:
    own = make([[0.9, 0, 0]], [0])
    other = make([[0, 0, 0.9]], [2], class_names=("stork", "owl", "heron"))
    assert compared(own, other)["accuracies"] == (1.0, 1.0)


def test_images_of_a_class_that_the_other_revision_lacks_are_left_out() -> None:
    own = make([[0.9, 0, 0], [0, 0, 0.9]], [0, 2])
    other = make([[0.9, 0], [0.9, 0]], [0, 1], class_names=("heron", "owl"))
    assert compared(own, other)["images"] == 1


def test_negatives_are_left_out_where_the_other_revision_had_none() -> None:
    own = make([[0.9, 0, 0], [0, 0, 0]], [0, -1], has_negatives=True)
    other = make([[0.9, 0, 0], [0.9, 0, 0]], [0, 0])
    assert compared(own, other)["images"] == 1


def test_revisions_without_common_images_have_no_accuracy() -> None:
    own, other = make([[0.9, 0, 0]], [0], digests=["a" * 64]), make([[0.9, 0, 0]], [0], digests=["b" * 64])
    assert compared(own, other) == {"images": 0, "better": [], "worse": [], "only": (1, 1), "accuracies": None}


@pytest.mark.parametrize(("texts", "wanted"), [([], None), ([""], None), (["-"], ""), (["owl"], "owl")])
def test_only_a_dash_asks_for_negative_examples(texts: list[str], wanted: str | None) -> None:
    assert parse_class(texts) == wanted
