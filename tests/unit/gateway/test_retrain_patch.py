"""The merge patch of a retraining by REST."""

from __future__ import annotations

from dataclasses import replace

from ocelli_api.classifier import ModelRecipe, Strategy, parse_classifier
from ocelli_gateway.manifests import ExampleTerms, build_retrain_patch

CLASSIFIER = parse_classifier(
    {
        "metadata": {"namespace": "team-a", "name": "dogs"},
        "spec": {"classes": [{"name": name, "examples": [{"upload": name * 64}]} for name in ("a", "b")]},
    }
)


def test_a_retraining_keeps_the_recipe_of_the_served_definition() -> None:
    recipe = ModelRecipe(strategy=Strategy.FINE_TUNE, epochs=5, learning_rate=0.001, batch_size=8)
    patch = build_retrain_patch(CLASSIFIER, replace(CLASSIFIER.spec, model=recipe), ExampleTerms())
    assert patch["spec"]["model"] == {
        "backbone": "Auto",
        "strategy": "FineTune",
        "seed": 0,
        "epochs": 5,
        "learningRate": 0.001,
        "batchSize": 8,
    }


def test_a_retraining_removes_a_recipe_that_the_served_definition_does_not_have() -> None:
    patch = build_retrain_patch(CLASSIFIER, CLASSIFIER.spec, ExampleTerms())
    assert [patch["spec"]["model"][key] for key in ("epochs", "learningRate", "batchSize")] == [None] * 3
