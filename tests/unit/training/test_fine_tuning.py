"""Fine-tuning from a definition to an artifact that is served, in this process, with the installed network and one epoch."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_api.export import ArtifactSummary, ExportFormat, PartPlace
from ocelli_api.outcome import ExitCode, Outcome, OutcomeReason
from ocelli_api.pods import Environment
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import Artifact, load_artifact
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, load_backbone
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.engine import TorchEngine, load_engine
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import decode_image
from ocelli_storage.judged import load_judged
from ocelli_training import fine_tuning
from ocelli_training.tuning_checkpoint import POINTER
from ocelli_training.tuning_recipe import StoppingScores
from tests.unit.training.conftest import MakeExampleZip, MakeImage, Trainer
from tests.unit.training.event_files import Curves, read_curves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARITY_BOUND = 0.0005
"""Between the scores of the engines of CPUs and GPUs, as for installed backbones."""
BLUE, RED = 0, 190
LINEAR, TUNED, REFUSED, LATER = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"
"""Revisions in the order in which they are trained. The last two are compared with the tuned one."""


def add_classes(trainer: Trainer, make_example_zip: MakeExampleZip, make_image: MakeImage, **recipe: Any) -> None:
    # A red image in the class of blue ones: without it, both losses would be 0.
    odd = {"odd.png": make_image(999, red=RED)}
    trainer.add_class("blue", trainer.upload(make_example_zip(10, red=BLUE, others=odd)))
    trainer.add_class("red", trainer.upload(make_example_zip(10, first_seed=50, red=RED)))
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": 1, "batchSize": 8, **recipe}


def train(trainer: Trainer, revision: str, *, baseline: str = "") -> Outcome:
    """Train a revision of what `add_classes` and others defined; returns a successful outcome."""
    trainer.environment[Environment.BASELINE_REVISION] = baseline
    trainer.environment[Environment.REVISION] = trainer.revision = revision
    for path in trainer.scratch.iterdir():
        shutil.rmtree(path)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.SUCCEEDED, ExitCode.SUCCEEDED), outcome
    return outcome


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Revisions of one Classifier: linear heads, a network that was tuned for one epoch although it does not have to improve on
    the heads, and linear heads of more images twice."""

    trainer: Trainer
    """At the tuned revision."""
    losses: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Of linear heads, and after fine-tuning."""
    compared: Outcome
    """Of the tuned revision, whose test set the linear heads never saw."""
    compared_later: Outcome
    """Of the last revision, ten of whose images the tuned network never saw."""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, make_example_zip: MakeExampleZip, make_image: MakeImage) -> Tuned:
    trainer, found = Trainer(tmp_path_factory.mktemp("tuned")), []

    def note(linear: StoppingScores, tuned: StoppingScores) -> bool:
        # Both are nearly equal after one epoch; the report must not confuse them.
        tuned.losses[:] += 0.25
        found.append((linear.losses, tuned.losses))
        return True

    add_classes(trainer, make_example_zip, make_image)
    recipe = trainer.definition.pop("model")
    train(trainer, LINEAR)
    test = [("blue", make_example_zip(4, first_seed=1000, red=BLUE)), ("red", make_example_zip(4, first_seed=1000, red=RED))]
    tested = [{"name": name, "examples": [trainer.upload(data)]} for name, data in test]
    trainer.definition |= {"model": recipe, "evaluation": {"classes": tested}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "is_improvement", note)
        patch.setattr(fine_tuning, "choose_epochs", lambda best: 1)
        compared = train(trainer, TUNED, baseline=LINEAR)
    del trainer.definition["model"], trainer.definition["evaluation"]
    more = trainer.upload(make_example_zip(10, first_seed=2000, red=BLUE))
    trainer.definition["classes"][0]["examples"].append(more)
    # After it, features of the new images are known, and the tuned network still needs their pixels.
    train(trainer, REFUSED, baseline=TUNED)
    later = train(trainer, LATER, baseline=TUNED)
    trainer.environment[Environment.REVISION] = trainer.revision = TUNED
    return Tuned(trainer=trainer, losses=found[0], compared=compared, compared_later=later)


@pytest.fixture
def tuned_trainer(tuned: Tuned) -> Trainer:
    return tuned.trainer


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


def new_images(make_image: MakeImage) -> list[bytes]:
    return [make_image(1000 + seed, red=shade) for shade in (BLUE, RED) for seed in range(4)]


def test_the_tuned_network_is_the_artifacts_own(tuned_trainer: Trainer) -> None:
    artifact = artifact_of(tuned_trainer)
    assert artifact.backbone_place is PartPlace.ARTIFACT
    assert artifact.backbone_digest != tuned_trainer.backbone.digest
    assert tuned_trainer.outcome.backbone == "EfficientNetLite0 (Auto), fine-tuned"
    assert "torch" in artifact.library_versions
    assert tuned_trainer.outcome.backbone_digest == artifact.backbone_digest == network_of(tuned_trainer).digest


def test_the_progress_says_what_tunes(tuned_trainer: Trainer) -> None:
    assert tuned_trainer.progress.device == "PyTorch CPU float32"


def test_an_inference_server_answers_with_the_tuned_network(tuned_trainer: Trainer, make_image: MakeImage) -> None:
    settings = InferenceSettings(
        store_url=tuned_trainer.store.url,
        classifier="team-a/dogs",
        namespace=tuned_trainer.location.namespace,
        classifier_id=tuned_trainer.location.classifier_id,
        revision=tuned_trainer.revision,
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


def test_the_engines_of_cpus_and_gpus_give_the_same_scores_of_a_tuned_network(
    tuned_trainer: Trainer, make_image: MakeImage
) -> None:
    artifact, network = artifact_of(tuned_trainer), network_of(tuned_trainer)
    assert isinstance(artifact.heads, Heads)
    pixels = np.stack([decode_image(image, artifact.preprocessing) for image in new_images(make_image)])
    on_cpu = load_engine(network, threads=2, device=Accelerator.CPU, precision=artifact.precision)
    like_gpu = TorchEngine(network, torch_device="cpu", threads=2, precision=artifact.precision)
    scores = [artifact.heads.scores(engine.features(pixels)) for engine in (on_cpu, like_gpu)]
    assert np.abs(scores[0] - scores[1]).max() <= PARITY_BOUND


def test_exports_contain_the_tuned_network(tuned_trainer: Trainer) -> None:
    document = json.loads(tuned_trainer.get(tuned_trainer.artifact_key))
    summary = ArtifactSummary.parse(document)
    for export in (ExportFormat.ONNX, ExportFormat.CORE_ML):
        keys = [
            tuned_trainer.location.export_part_key(tuned_trainer.revision, summary, part) for part in summary.exports[export]
        ]
        sizes = [asyncio.run(tuned_trainer.store.size_of(key)) for key in keys]
        assert sizes == [part.size_bytes for part in summary.exports[export]]
        assert "/network/body." in keys[0]


def test_the_report_names_recipe_and_losses(tuned: Tuned) -> None:
    report = tuned.trainer.report["recipe"]["fineTuning"]
    assert (report["epochs"], report["batchSize"], report["usedEpochs"], report["improved"]) == (1, 8, 1, True)
    linear, after = (float(losses.mean()) for losses in tuned.losses)
    assert 0 < linear < after
    assert (report["linearLoss"], report["tunedLoss"]) == (pytest.approx(linear, abs=1e-6), pytest.approx(after, abs=1e-6))


def test_the_report_has_the_accuracy_of_the_linear_heads_on_the_same_images(tuned: Tuned) -> None:
    report = tuned.trainer.report["recipe"]["fineTuning"]
    assert report["linearAccuracy"] == 1.0
    assert report["linearAccuracyInterval"][1] == 1.0
    page = " ".join(tuned.trainer.report_page.split())
    assert "the network was trained for 1 of at most 1 epochs" in page
    assert "balanced accuracy of 100.0 % on the same images" in page


def test_a_test_set_is_scored_by_the_tuned_network(tuned_trainer: Trainer, make_image: MakeImage) -> None:
    judged = asyncio.run(load_judged(tuned_trainer.store, tuned_trainer.location, TUNED))
    of_digest = {digest: judged.scores[row] for row, digest in enumerate(judged.digests) if judged.tested[row]}
    artifact, network = artifact_of(tuned_trainer), network_of(tuned_trainer)
    assert isinstance(artifact.heads, Heads)
    engine = load_engine(network, threads=2, device=Accelerator.CPU, precision=artifact.precision)
    files = new_images(make_image)
    scores = artifact.heads.scores(engine.features(np.stack([decode_image(data, artifact.preprocessing) for data in files])))
    assert len(of_digest) == len(files)
    for data, expected in zip(files, scores, strict=True):
        assert of_digest[hashlib.sha256(data).hexdigest()] == pytest.approx(expected, abs=1e-6)


def test_the_served_linear_heads_are_judged_on_a_test_set_that_they_never_saw(tuned: Tuned) -> None:
    comparison = tuned.compared.comparison
    assert comparison is not None
    assert (comparison.baseline, comparison.fault, comparison.images) == (LINEAR, None, 8)


def test_a_served_tuned_network_is_run_on_images_that_it_never_saw(tuned: Tuned) -> None:
    comparison = tuned.compared_later.comparison
    assert comparison is not None
    assert (comparison.baseline, comparison.fault, comparison.images) == (TUNED, None, 31)


def test_a_reused_tuned_network_is_described_as_such(tuned: Tuned) -> None:
    trainer = tuned.trainer
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": 1, "batchSize": 8}
    again = train(trainer, TUNED, baseline=LINEAR)
    assert "Reused" in again.message
    assert again.backbone == f"{DEFAULT_BACKBONE}, fine-tuned"


def curves_of(trainer: Trainer, revision: str) -> dict[str, Curves]:
    """By folder: the stored curves of a revision."""
    prefix = trainer.location.curves_prefix(revision)
    keys = [item.key for item in asyncio.run(trainer.store.list_objects(prefix))]
    return {key.removeprefix(f"{prefix}/").partition("/")[0]: read_curves(trainer.get(key)) for key in keys}


def test_curves_are_stored_of_each_network(tuned: Tuned) -> None:
    curves = curves_of(tuned.trainer, TUNED)
    assert sorted(curves) == [f"network-{number}" for number in range(1, 7)]
    for number in range(1, 6):
        epochs = {tag: sorted(values) for tag, values in curves[f"network-{number}"].items()}
        both, trained = [0, 1], [1]
        assert epochs == {
            "accuracy/validation": both,
            "loss/validation": both,
            "loss/training": trained,
            "learning_rate": trained,
        }
    assert sorted(curves["network-6"]) == ["learning_rate", "loss/training"]


def test_linear_heads_have_no_curves(tuned: Tuned) -> None:
    assert curves_of(tuned.trainer, LINEAR) == {}


def test_checkpoints_are_deleted_when_the_training_has_ended(tuned_trainer: Trainer) -> None:
    assert not tuned_trainer.exists(tuned_trainer.location.training_key(tuned_trainer.revision, 1, POINTER))


def test_heads_that_are_not_improved_are_the_result(
    trainer: Trainer, make_example_zip: MakeExampleZip, make_image: MakeImage
) -> None:
    add_classes(trainer, make_example_zip, make_image, learningRate=1e-6)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.NOT_IMPROVED, ExitCode.SUCCEEDED)
    assert outcome.backbone.endswith("not fine-tuned: that did not improve on its linear heads")
    assert artifact_of(trainer).backbone_digest == trainer.backbone.digest
    assert "it did not improve on the linear heads, which are the result" in " ".join(trainer.report_page.split())
    for path in trainer.scratch.iterdir():
        shutil.rmtree(path)
    again, _ = trainer.run()
    assert (again.reason, again.backbone) == (outcome.reason, outcome.backbone)


def test_a_trainer_without_pytorch_refuses_and_names_the_image(
    trainer: Trainer, make_example_zip: MakeExampleZip, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_classes(trainer, make_example_zip, make_image)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome, exit_code = trainer.run()
    assert exit_code is ExitCode.MISCONFIGURED
    assert outcome.message.startswith("Classifier team-a/dogs: spec.model.strategy FineTune needs PyTorch")
    assert "ACCELERATOR=cuda" in outcome.message


def test_a_training_that_diverges_has_its_own_reason(
    trainer: Trainer, make_example_zip: MakeExampleZip, make_image: MakeImage
) -> None:
    add_classes(trainer, make_example_zip, make_image, learningRate=1e30)
    outcome, exit_code = trainer.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.TRAINING_DIVERGED, ExitCode.MISCONFIGURED)
    assert "lower spec.model.learningRate" in outcome.message


def test_other_trainings_do_not_import_pytorch() -> None:
    code = "import sys, ocelli_training.__main__, ocelli_training.attempt; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
