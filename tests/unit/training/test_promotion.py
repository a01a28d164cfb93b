"""Whole attempts with an own test set, and with a served revision to compare with."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.names import customer_key
from ocelli_api.outcome import ExitCode, Outcome, OutcomeReason, parse_termination_message
from ocelli_api.pods import Environment
from ocelli_model.artifact import load_artifact, save_artifact
from ocelli_model.heads import Heads
from ocelli_storage.judged import JUDGED, load_judged, save_judged
from ocelli_storage.layout import DEFINITION
from tests.unit.training.conftest import Trainer
from tests.unit.training.made_pictures import save, textured

pytestmark = pytest.mark.slow

BLUE, RED = 0, 190
"""Two values of red that are easy to distinguish."""
BASELINE = "aaaaaaaaaa"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> Trainer:
    """A trainer whose first revision, blue and red, serves. Its tests train further revisions."""
    trainer = Trainer(tmp_path_factory.mktemp("served"))
    outcome = train(trainer, BASELINE, blue=make_example_zip(12, red=BLUE), red=make_example_zip(12, red=RED))
    assert (outcome.succeeded, outcome.comparison) == (True, None)
    return trainer


def train(
    trainer: Trainer, revision: str, *, test: dict[str, bytes] | None = None, baseline: str = "", **classes: bytes
) -> Outcome:
    """Train a revision of these classes; `test` has the zips of its own test set."""
    trainer.environment[Environment.BASELINE_REVISION] = baseline
    trainer.environment[Environment.REVISION] = trainer.revision = revision
    trainer.definition = {"classes": []}
    for name, data in classes.items():
        trainer.add_class(name, trainer.upload(data))
    if test is not None:
        tested = [{"name": name, "examples": [trainer.upload(data)]} for name, data in test.items()]
        trainer.definition["evaluation"] = {"classes": tested}
    for path in trainer.scratch.iterdir():
        shutil.rmtree(path)
    return trainer.run()[0]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> tuple[Trainer, Outcome]:
    """Ten test images a class, of which four of blue are also examples."""
    trainer = Trainer(tmp_path_factory.mktemp("tested"))
    test = {"blue": make_example_zip(10, first_seed=8, red=BLUE), "red": make_example_zip(10, first_seed=100, red=RED)}
    outcome = train(trainer, BASELINE, test=test, blue=make_example_zip(12, red=BLUE), red=make_example_zip(12, red=RED))
    return trainer, outcome


def mix(make_zip: Any, make_image: Any, blue: range, red: range) -> bytes:
    """A zip with blue images and red ones, by their seeds."""
    images = {f"b{seed}.png": make_image(seed, red=BLUE) for seed in blue}
    data: bytes = make_zip({**images, **{f"r{seed}.png": make_image(seed, red=RED) for seed in red}})
    return data


class TestJudgedScores:
    def test_every_example_has_a_score_by_heads_that_did_not_learn_from_it(self, served: Trainer) -> None:
        judged = asyncio.run(load_judged(served.store, served.location, BASELINE))
        assert (judged.class_names, judged.learned_count, judged.is_complete) == (("blue", "red"), 24, True)
        assert judged.scores.argmax(axis=1).tolist() == judged.actual.tolist() == [0] * 12 + [1] * 12
        artifact = asyncio.run(load_artifact(served.store, served.location, BASELINE))
        assert artifact.metrics["accuracy"] == 1.0

    def test_they_are_not_part_of_the_artifact(self, served: Trainer) -> None:
        metadata = json.loads(served.get(served.location.artifact_key(BASELINE, "artifact.json")))
        assert not any("judged" in name for name in metadata["files"])


class TestComparison:
    def test_swapped_examples_show_as_a_drop_on_an_own_test_set(
        self, served: Trainer, make_example_zip: Any, make_zip: Any, make_image: Any
    ) -> None:
        test = {"blue": make_example_zip(10, first_seed=100, red=BLUE), "red": make_example_zip(10, first_seed=100, red=RED)}
        outcome = train(
            served,
            "bbbbbbbbbb",
            test=test,
            baseline=BASELINE,
            blue=mix(make_zip, make_image, range(4), range(4, 12)),
            red=mix(make_zip, make_image, range(4, 12), range(4)),
        )
        assert outcome.comparison is not None
        assert outcome.comparison.drop is not None
        assert outcome.comparison.drop_interval is not None
        assert outcome.comparison.drop > 0.5
        assert outcome.comparison.drop_interval[0] > 0.3
        assert (outcome.comparison.baseline, outcome.comparison.images) == (BASELINE, 20)
        assert served.outcome == outcome
        assert parse_termination_message(outcome.to_termination_message()) == outcome
        assert served.report["comparison"]["images"] == 20
        assert "Compared with revision <code>aaaaaaaaaa</code>" in served.report_page

    def test_an_unchanged_dataset_has_not_dropped(self, served: Trainer, make_example_zip: Any) -> None:
        outcome = train(
            served,
            "cccccccccc",
            baseline=BASELINE,
            blue=make_example_zip(12, red=BLUE),
            red=make_example_zip(12, red=RED),
        )
        assert outcome.comparison is not None
        assert (outcome.comparison.drop, outcome.comparison.images) == (0, 24)

    def test_examples_with_a_changed_class_are_left_out_and_counted(
        self, served: Trainer, make_zip: Any, make_image: Any
    ) -> None:
        outcome = train(
            served,
            "7777777777",
            baseline=BASELINE,
            blue=mix(make_zip, make_image, range(9), range(9, 12)),
            red=mix(make_zip, make_image, range(9, 12), range(9)),
        )
        assert outcome.comparison is not None
        assert (outcome.comparison.images, outcome.comparison.reclassified) == (18, 6)
        assert "Images left out because their class was changed: 6" in served.report_page

    def test_new_images_are_judged_by_the_served_heads(self, served: Trainer, make_example_zip: Any) -> None:
        outcome = train(
            served,
            "dddddddddd",
            baseline=BASELINE,
            blue=make_example_zip(16, red=BLUE),
            red=make_example_zip(12, red=RED),
        )
        assert outcome.comparison is not None
        assert outcome.comparison.images == 28

    def test_a_baseline_without_scores_is_explained_and_fails_nothing(self, served: Trainer, make_example_zip: Any) -> None:
        outcome = train(
            served,
            "eeeeeeeeee",
            baseline="0000000000",
            blue=make_example_zip(12, red=BLUE),
            red=make_example_zip(12, red=RED),
        )
        assert outcome.succeeded
        assert outcome.comparison is not None
        assert outcome.comparison.drop is None
        assert "revision 0000000000 has no stored scores" in str(outcome.comparison.fault)

    def test_a_baseline_with_heads_for_other_features_fails_nothing(self, served: Trainer, make_example_zip: Any) -> None:
        artifact = asyncio.run(load_artifact(served.store, served.location, BASELINE))
        assert isinstance(artifact.heads, Heads)
        odd = replace(artifact.heads, weights=artifact.heads.weights[:, :8], rejection=None)
        asyncio.run(save_artifact(served.store, served.location, replace(artifact, revision="9999999999", heads=odd)))
        judged = asyncio.run(load_judged(served.store, served.location, BASELINE))
        asyncio.run(save_judged(served.store, served.location, "9999999999", {None: judged}))
        outcome = train(
            served,
            "8888888888",
            baseline="9999999999",
            blue=make_example_zip(16, red=BLUE),
            red=make_example_zip(12, red=RED),
        )
        assert outcome.comparison is not None
        assert outcome.comparison.images == 24

    def test_a_reused_artifact_is_compared_again(self, served: Trainer, make_example_zip: Any) -> None:
        zips = {"blue": make_example_zip(13, red=BLUE), "red": make_example_zip(12, red=RED)}
        first = train(served, "ffffffffff", baseline=BASELINE, **zips)
        again = train(served, "ffffffffff", baseline=BASELINE, **zips)
        assert "Reused" in again.message
        assert first.comparison is not None
        assert again.comparison is not None
        assert (again.comparison.drop, again.comparison.images) == (0, 24)


class TestOwnTestSet:
    def test_the_accuracy_is_measured_on_it(self, tested: tuple[Trainer, Outcome]) -> None:
        trainer, outcome = tested
        assert outcome.judged_images == 16
        assert outcome.accuracy == trainer.report["evaluation"]["accuracy"]
        assert trainer.report["evaluation"]["protocol"] == "TestSet"
        assert "own test set" in trainer.report_page

    def test_images_that_are_also_examples_are_left_out_and_counted(self, tested: tuple[Trainer, Outcome]) -> None:
        trainer, outcome = tested
        evaluation = trainer.report["evaluation"]
        assert evaluation["excludedImages"] == len(evaluation["excluded"]) == outcome.excluded_images == 4
        assert "examples, or near duplicates of examples: 4" in trainer.report_page.replace("\n", " ")

    def test_it_is_not_learned_from(self, tested: tuple[Trainer, Outcome]) -> None:
        trainer, _ = tested
        judged = asyncio.run(load_judged(trainer.store, trainer.location, BASELINE))
        assert (judged.learned_count, int(judged.tested.sum())) == (24, 16)
        assert trainer.report["data"]["images"] == 24

    def test_a_test_set_of_examples_only_is_refused(self, tmp_path: Any, make_example_zip: Any) -> None:
        trainer = Trainer(tmp_path)
        blue, red = make_example_zip(12, red=BLUE), make_example_zip(12, red=RED)
        outcome = train(trainer, BASELINE, test={"blue": blue}, blue=blue, red=red)
        assert outcome.reason is OutcomeReason.INVALID_DATA
        assert outcome.message == (
            'Classifier team-a/dogs: the test images of class "blue" (12) are all examples or near duplicates of examples; '
            "add images that are not examples"
        )

    def test_a_test_set_that_an_erasure_leaves_without_images_is_not_used(self, tmp_path: Any, make_example_zip: Any) -> None:
        trainer = Trainer(tmp_path)
        blue, red = make_example_zip(12, red=BLUE), make_example_zip(12, red=RED)
        for name, data in (("blue", blue), ("red", red)):
            trainer.add_class(name, trainer.upload(data))
        erased = {"upload": "e" * 64, "customer": customer_key("anna"), "erased": True}
        trainer.definition["evaluation"] = {"classes": [{"name": "blue", "examples": [erased, trainer.upload(blue)]}]}
        outcome, _ = trainer.run()
        assert (outcome.succeeded, outcome.judged_images) == (True, 24)
        assert trainer.report["evaluation"]["protocol"] == "CrossValidation"

    def test_a_near_duplicate_of_an_example_is_left_out(self, tmp_path: Any, make_zip: Any) -> None:
        trainer = Trainer(tmp_path)
        blue = make_zip({f"{seed}.jpg": save(textured(seed)) for seed in range(10)})
        red = make_zip({f"{seed}.jpg": save(textured(100 + seed)) for seed in range(10)})
        test = make_zip({"again.jpg": save(textured(3), quality=60), "new.jpg": save(textured(50))})
        outcome = train(trainer, BASELINE, test={"blue": test}, blue=blue, red=red)
        assert (outcome.succeeded, outcome.judged_images) == (True, 1)
        assert trainer.report["evaluation"]["excludedImages"] == 1


def test_scores_of_a_customers_images_are_in_a_file_of_their_own(tmp_path: Any, make_example_zip: Any) -> None:
    trainer, customer = Trainer(tmp_path), customer_key("anna")
    trainer.add_class("blue", trainer.upload(make_example_zip(12, red=BLUE), customer=customer))
    trainer.add_class("red", trainer.upload(make_example_zip(12, red=RED)))
    _, exit_code = trainer.run()
    assert exit_code is ExitCode.SUCCEEDED
    for key in (customer, None):
        assert trainer.exists(trainer.location.image_data_key(trainer.revision, key, JUDGED))


@pytest.mark.parametrize("interrupted", ["definition", "scores"])
def test_an_erasure_while_results_are_stored_is_complete(
    tmp_path: Any, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    trainer, customer = Trainer(tmp_path), customer_key("anna")
    trainer.add_class("blue", trainer.upload(make_example_zip(12, red=BLUE), customer=customer))
    trainer.add_class("red", trainer.upload(make_example_zip(12, red=RED)))
    scores = trainer.location.image_data_key(trainer.revision, customer, JUDGED)
    stored = trainer.location.definition_key(trainer.revision)
    put = trainer.store.put

    async def erase() -> None:
        """As the gateway does: first the definitions, then the scores."""
        trainer.definition["classes"][0]["examples"][0]["erased"] = True
        content = json.dumps(trainer.definition).encode()
        await put(trainer.location.training_key(trainer.revision, 1, DEFINITION), content)
        if await trainer.store.exists(stored):
            await put(stored, content)
        await trainer.store.delete(scores)

    async def put_after_an_erasure(key: str, content: bytes) -> None:
        if key == {"definition": stored, "scores": scores}[interrupted]:
            monkeypatch.setattr(trainer.store, "put", put)
            await erase()
        await put(key, content)

    monkeypatch.setattr(trainer.store, "put", put_after_an_erasure)
    outcome, _ = trainer.run()
    assert outcome.succeeded
    assert json.loads(trainer.get(stored))["classes"][0]["examples"][0]["erased"] is True
    assert not trainer.exists(scores)


def test_a_test_set_changes_nothing_about_what_is_learned(tested: tuple[Trainer, Outcome], served: Trainer) -> None:
    with_test = asyncio.run(load_artifact(tested[0].store, tested[0].location, BASELINE))
    without = asyncio.run(load_artifact(served.store, served.location, BASELINE))
    assert with_test.heads.weights.tobytes() == without.heads.weights.tobytes()
