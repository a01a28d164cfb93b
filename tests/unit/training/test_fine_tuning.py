"""Fine-tuning from a definition to an artifact that is served, in this process, with the installed network and one epoch."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ocelli_api.classifier import Accelerator
from ocelli_api.export import ArtifactSummary, ExportFormat, PartPlace
from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import Artifact, load_artifact
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, load_backbone
from ocelli_model.engine import TorchEngine, load_engine
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import decode_image
from ocelli_training import fine_tuning
from ocelli_training.tuning_checkpoint import POINTER
from tests.unit.training.conftest import Trainer

PARITY_BOUND = 0.0005
"""Between the scores of the engines of CPUs and GPUs, as for installed backbones."""
BLUE, RED = 0, 190


def add_classes(trainer: Trainer, make_example_zip: Any, **recipe: Any) -> None:
    trainer.add_class("blue", trainer.upload(make_example_zip(10, red=BLUE)))
    trainer.add_class("red", trainer.upload(make_example_zip(10, first_seed=50, red=RED)))
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": 1, "batchSize": 8, **recipe}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, make_example_zip: Any) -> Any:
    """A trainer whose network was tuned for one epoch, although the linear heads already distinguish the classes."""
    trainer = Trainer(tmp_path_factory.mktemp("tuned"))
    add_classes(trainer, make_example_zip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "is_improvement", lambda linear, tuned: True)
        patch.setattr(fine_tuning, "choose_epochs", lambda best: 1)
        outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.SUCCEEDED, ExitCode.SUCCEEDED), outcome
    return trainer


def artifact_of(trainer: Trainer) -> Artifact:
    return asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision))


def network_of(trainer: Trainer) -> Backbone:
    return asyncio.run(
        load_backbone(
            trainer.store,
            artifact_of(trainer).backbone_digest,
            cache=trainer.folder / "cache",
            files=(ONNX_FILE, WEIGHTS_FILE),
            prefix=trainer.location.network_prefix(trainer.revision),
        )
    )


def new_images(make_image: Any) -> list[bytes]:
    return [make_image(1000 + seed, red=shade) for shade in (BLUE, RED) for seed in range(4)]


def test_the_tuned_network_is_the_artifacts_own(tuned: Any) -> None:
    artifact = artifact_of(tuned)
    assert artifact.backbone_place is PartPlace.ARTIFACT
    assert artifact.backbone_digest != tuned.backbone.digest
    assert tuned.outcome.backbone == "EfficientNetLite0 (Auto), fine-tuned"
    assert "torch" in artifact.library_versions
    assert tuned.outcome.backbone_digest == artifact.backbone_digest == network_of(tuned).digest


def test_an_inference_server_answers_with_the_tuned_network(tuned: Any, make_image: Any) -> None:
    settings = InferenceSettings(
        store_url=tuned.store.url,
        classifier="team-a/dogs",
        namespace=tuned.location.namespace,
        classifier_id=tuned.location.classifier_id,
        revision=tuned.revision,
        bind_address="127.0.0.1",
        cpu_count=2,
        accelerator=Accelerator.CPU,
        log_level="WARNING",
    )

    async def predict() -> list[str]:
        async with open_predictor(settings, Metrics()) as predictor:
            predictions = [await predictor.predict(data) for data in new_images(make_image)]
        return [max(prediction.scores, key=lambda item: item.score).class_name for prediction in predictions]

    assert asyncio.run(predict()) == ["blue"] * 4 + ["red"] * 4


def test_the_engines_of_cpus_and_gpus_give_the_same_scores_of_a_tuned_network(tuned: Any, make_image: Any) -> None:
    artifact, network = artifact_of(tuned), network_of(tuned)
    assert isinstance(artifact.heads, Heads)
    pixels = np.stack([decode_image(image, artifact.preprocessing) for image in new_images(make_image)])
    on_cpu = load_engine(network, threads=2, device=Accelerator.CPU, precision=artifact.precision)
    like_gpu = TorchEngine(network, torch_device="cpu", threads=2, precision=artifact.precision)
    scores = [artifact.heads.scores(engine.features(pixels)) for engine in (on_cpu, like_gpu)]
    assert np.abs(scores[0] - scores[1]).max() <= PARITY_BOUND


def test_exports_contain_the_tuned_network(tuned: Any) -> None:
    document = json.loads(tuned.get(tuned.artifact_key))
    summary = ArtifactSummary.parse(document)
    for export in (ExportFormat.ONNX, ExportFormat.CORE_ML):
        keys = [tuned.location.export_part_key(tuned.revision, summary, part) for part in summary.exports[export]]
        sizes = [asyncio.run(tuned.store.size_of(key)) for key in keys]
        assert sizes == [part.size_bytes for part in summary.exports[export]]
        assert "/network/body." in keys[0]


def test_the_report_names_recipe_and_losses(tuned: Any) -> None:
    report = tuned.report["recipe"]["fineTuning"]
    assert (report["epochs"], report["batchSize"], report["usedEpochs"], report["improved"]) == (1, 8, 1, True)
    assert 0 <= report["linearLoss"] < 0.7


def test_checkpoints_are_deleted_when_the_training_has_ended(tuned: Any) -> None:
    assert not tuned.exists(tuned.location.training_key(tuned.revision, 1, POINTER))


def test_heads_that_are_not_improved_are_the_result(trainer: Any, make_example_zip: Any) -> None:
    add_classes(trainer, make_example_zip, learningRate=1e-6)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.NOT_IMPROVED, ExitCode.SUCCEEDED)
    assert outcome.backbone.endswith("not fine-tuned: that did not improve on its linear heads")
    assert artifact_of(trainer).backbone_digest == trainer.backbone.digest


def test_a_trainer_without_pytorch_refuses_and_names_the_image(
    trainer: Any, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_classes(trainer, make_example_zip)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome, exit_code = trainer.run()
    assert exit_code is ExitCode.MISCONFIGURED
    assert outcome.message.startswith("Classifier team-a/dogs: spec.model.strategy FineTune needs PyTorch")
    assert "ACCELERATOR=cuda" in outcome.message


def test_a_training_that_diverges_has_its_own_reason(trainer: Any, make_example_zip: Any) -> None:
    add_classes(trainer, make_example_zip, learningRate=1e30)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.TRAINING_DIVERGED, ExitCode.MISCONFIGURED)
    assert "lower spec.model.learningRate" in outcome.message


def test_other_trainings_do_not_import_pytorch() -> None:
    code = "import sys, ocelli_training.__main__, ocelli_training.attempt; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
