"""The parts of the accuracy benchmark that need neither photographs nor networks."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.accuracy.figures import lost, macro_f1, rejected, top_1
from tests.benchmarks.accuracy.networks import Disagreement, compared_networks
from tests.benchmarks.accuracy.picture_sets import NEGATIVE, PictureSetsError, load_sets
from tests.benchmarks.accuracy.reference import measure_reference
from tests.benchmarks.accuracy.results import (
    Lesson,
    NetworkFigures,
    Results,
    SplitFigures,
    measure_goals,
    render,
    render_table,
    to_json,
)
from tests.benchmarks.accuracy.splits import MOST_JUDGED, Rows, split_set
from tests.benchmarks.measurement import Bound, Measurement


def make_labels(*counts: int, negatives: int = 0) -> Rows:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return np.array(labels + [NEGATIVE] * negatives, dtype=np.intp)


def make_figures(**changes: float | None) -> SplitFigures:
    figures: dict[str, float | None] = {
        "top_1": 0.9,
        "macro_f1": 0.8,
        "rejected_negatives": None,
        "rejected_others": 0.95,
        "lost": 0.01,
        "seconds": 2.0,
        "reference_top_1": 0.88,
        "reference_rejected_negatives": None,
    }
    return SplitFigures(**{**figures, **changes})  # type: ignore[arg-type]


def make_results(*lessons: Lesson) -> Results:
    network = NetworkFigures(title="Lite0 squash 224", milliseconds=7.0, disagreement=None, top_1={("dogs", 20): 0.88})
    unmeasured = NetworkFigures(title="Lite0 INT8", milliseconds=None, disagreement=None, top_1={}, reason="no NNCF")
    return Results(seeds=1, lessons=lessons, networks=(network, unmeasured), about={"cores": 2})


def make_zip(path: Path, *shades: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, shade in enumerate(shades):
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), (shade, shade, shade)).save(buffer, "PNG")
            archive.writestr(f"{number}.png", buffer.getvalue())


def test_split_evaluates_only_pictures_that_were_not_trained_on() -> None:
    labels = make_labels(30, 40, negatives=50)
    split = split_set(labels, 20, seed=1)
    assert split is not None
    parts = [split.learned, split.judged, split.learned_negatives, split.judged_negatives]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert np.bincount(labels[split.learned]).tolist() == [20, 20]
    assert np.bincount(labels[split.judged]).tolist() == [10, 20]
    assert (len(split.learned_negatives), len(split.judged_negatives)) == (20, 30)


def test_split_evaluates_at_most_forty_of_a_class() -> None:
    split = split_set(make_labels(100, 100), 10, seed=0)
    assert split is not None
    assert len(split.judged) == 2 * MOST_JUDGED


def test_split_is_refused_if_too_few_pictures_would_be_evaluated() -> None:
    assert split_set(make_labels(28, 100), 20, seed=0) is not None
    assert split_set(make_labels(27, 100), 20, seed=0) is None


def test_split_leaves_out_too_few_negatives() -> None:
    split = split_set(make_labels(40, 40, negatives=20), 20, seed=0)
    assert split is not None
    assert not split.has_negatives


def test_more_pictures_include_those_of_the_smaller_split() -> None:
    labels = make_labels(60, 60, negatives=60)
    small, large = split_set(labels, 10, seed=3), split_set(labels, 40, seed=3)
    assert small is not None
    assert large is not None
    assert set(small.learned) < set(large.learned)
    assert set(small.learned_negatives) < set(large.learned_negatives)


def test_another_seed_is_another_split() -> None:
    labels = make_labels(60, 60)
    splits = [split_set(labels, 20, seed) for seed in (0, 0, 1)]
    first, again, other = (set(split.learned) for split in splits if split is not None)
    assert first == again != other


def test_pictures_are_read_once_and_negatives_have_no_class(tmp_path: Path) -> None:
    folder = tmp_path / "shades"
    folder.mkdir()
    make_zip(folder / "bright.zip", 200, 210, 200)
    make_zip(folder / "dark.zip", 10, 20)
    make_zip(folder / "negatives.zip", 128)
    (tmp_path / "README.md").write_text("not a set")
    (pictures,) = load_sets(tmp_path)
    assert pictures.class_names == ("bright", "dark")
    assert pictures.labels.tolist() == [0, 0, 1, 1, NEGATIVE]


def test_folder_without_sets_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PictureSetsError, match="set DATA to a folder"):
        load_sets(tmp_path)


def test_figures_of_scores() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.4], [0.6, 0.7], [0.1, 0.2]])
    labels = np.array([0, 1, 0, NEGATIVE])
    assert top_1(scores[:3], labels[:3]) == pytest.approx(2 / 3)
    assert rejected(scores) == pytest.approx(0.5)
    # Class 0: two answered, both correct. Class 1: one answered, wrong, and one missed.
    assert macro_f1(scores, labels) == pytest.approx((1.0 + 0.0) / 2)


def test_only_correct_answers_count_as_lost() -> None:
    before = np.array([[0.9, 0.1], [0.8, 0.1], [0.9, 0.1], [0.4, 0.1]])
    after = np.array([[0.9, 0.1], [0.3, 0.1], [0.2, 0.1], [0.3, 0.1]])
    # The third answer was wrong, the fourth had not reached the threshold.
    assert lost(after, before, np.array([0, 0, 1, 0])) == pytest.approx(1 / 2)


def test_reference_learns_easily_distinguished_classes() -> None:
    labels = make_labels(30, 30, negatives=30)
    random = np.random.default_rng(0)
    features = random.normal(size=(90, 200)).astype(np.float32)
    features[:, :3] += 20 * np.eye(3)[labels % 3]
    split = split_set(labels, 20, seed=0)
    assert split is not None
    figures = measure_reference(features, labels, split, negatives=True)
    assert (figures.top_1, figures.rejected_negatives) == (1.0, 1.0)
    assert measure_reference(features, labels, split, negatives=False).rejected_negatives is None


def test_compared_networks_have_unique_titles() -> None:
    titles = [network.title for network in compared_networks()]
    assert len(set(titles)) == len(titles)
    assert titles[-2:] == [f"{titles[0]} bfloat16", f"{titles[0]} INT8"]


def test_table_has_a_dash_where_nothing_was_measured() -> None:
    text = render_table(["set", "right answers lost"], [["dogs", 1.25], ["flowers", None]])
    assert text.splitlines() == [
        "set        right",
        "         answers",
        "            lost",
        "dogs         1.2",
        "flowers        –",
    ]


def test_tables_show_every_lesson_and_network() -> None:
    lesson = Lesson(set_name="dogs", negatives=False, size=20, splits=(make_figures(),))
    unjudged = Lesson(set_name="dogs", negatives=False, size=40, splits=())
    text = render(make_results(lesson, unjudged))
    words = [line.split() for line in text.splitlines()]
    assert ["dogs", "20", "90.0", "88.0", "88.0", "–"] in words
    assert ["dogs", "40", "–", "–", "–", "–"] in words
    assert ["Lite0", "INT8", "–", "–", "–", "–", "–", "no", "NNCF"] in words


def test_goals_are_those_of_the_sets_at_hand() -> None:
    lessons = [
        Lesson(set_name="dogs", negatives=False, size=20, splits=(make_figures(top_1=0.98, reference_top_1=1.0),)),
        Lesson(set_name="dogs", negatives=True, size=20, splits=(make_figures(rejected_negatives=0.93, rejected_others=None),)),
        Lesson(set_name="dogs", negatives=False, size=10, splits=(make_figures(),)),
        Lesson(set_name="birds", negatives=False, size=20, splits=(make_figures(lost=0.06),)),
    ]
    goals = {goal.what: goal for goal in measure_goals(make_results(*lessons))}
    assert {what: goal.met for what, goal in goals.items()} == {
        "dogs: top-1": False,
        "dogs + negatives: unseen negatives rejected": True,
        "dogs without negatives: other sets rejected": True,
        "dogs without negatives: right answers lost": True,
        "birds without negatives: other sets rejected": True,
        "birds without negatives: right answers lost": False,
        "dogs: top-1 ahead of scikit-learn": False,
        "birds: top-1 ahead of scikit-learn": True,
        "mean of the sets: top-1 ahead of scikit-learn": False,
    }


def test_results_can_be_written_as_json() -> None:
    moved = Disagreement(largest=0.1, mean=0.01, other_top=0.02)
    network = NetworkFigures(title="Lite0 bfloat16", milliseconds=7.0, disagreement=moved, top_1={("dogs", 20): 0.9})
    lesson = Lesson(set_name="dogs", negatives=False, size=20, splits=(make_figures(),))
    document = json.loads(json.dumps(to_json(Results(seeds=1, lessons=(lesson,), networks=(network,), about={}))))
    assert document["networks"][0]["top_1"] == [{"set": "dogs", "pictures": 20, "top_1": 0.9}]
    assert document["lessons"][0]["splits"][0]["lost"] == 0.01
    assert document["goals"][0]["met"] is False


def test_goal_that_must_be_exceeded_is_missed_when_just_reached() -> None:
    assert not Measurement(what="gain", value=0.0, goal=0.0, unit="", bound=Bound.ABOVE).met
    assert Measurement(what="gain", value=0.0, goal=0.0, unit="", bound=Bound.AT_LEAST).met
