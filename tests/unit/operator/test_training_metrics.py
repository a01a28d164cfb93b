"""Running trainings in the operator's metrics."""

from __future__ import annotations

from dataclasses import replace

from ocelli_api.classifier_status import FineTuningProgress, Progress
from ocelli_operator.metrics import OperatorMetrics
from tests.unit.operator.factories import World, settled_world

PROGRESS = Progress(
    percent=40,
    stage="Extracting",
    device="OpenVINO CPU float32",
    accuracy="0.935",
    estimated_completion="1970-01-01T00:01:40Z",
)
NAMES = {"tenant_namespace": "team-a", "classifier": "dogs"}


def samples(world: World) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value of each metric of trainings."""
    metrics = OperatorMetrics()
    metrics.observe_classifiers(lambda: [world.observed.classifier])
    return {
        sample.name: (sample.labels, sample.value)
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name.startswith("ocelli_training_") and "tenant_namespace" in sample.labels
    }


def world_with(progress: Progress | None) -> World:
    world = settled_world()
    classifier = world.observed.classifier
    world.see(classifier=replace(classifier, status=replace(classifier.status, progress=progress)))
    return world


def test_a_running_training_has_its_progress_accuracy_and_end() -> None:
    assert samples(world_with(PROGRESS)) == {
        "ocelli_training_progress_percent": ({**NAMES, "stage": "Extracting", "device": "OpenVINO CPU float32"}, 40),
        "ocelli_training_accuracy": (NAMES, 0.935),
        "ocelli_training_completion_timestamp_seconds": (NAMES, 100),
    }


def test_what_is_not_known_yet_has_no_series() -> None:
    assert samples(world_with(Progress(percent=5, stage="Reading"))) == {
        "ocelli_training_progress_percent": ({**NAMES, "stage": "Reading", "device": ""}, 5)
    }


def test_fine_tuning_has_its_epoch_and_loss() -> None:
    tuning = FineTuningProgress(network=2, networks=6, epoch=3, epochs=10, loss="0.1234")
    found = samples(world_with(Progress(percent=5, stage="Fitting", fine_tuning=tuning)))
    assert found["ocelli_training_epoch"] == ({**NAMES, "network": "2"}, 3)
    assert found["ocelli_training_loss"] == ({**NAMES, "network": "2"}, 0.1234)


def test_without_a_training_there_are_no_series() -> None:
    assert samples(world_with(None)) == {}
