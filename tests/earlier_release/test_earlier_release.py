"""Classifiers of an earlier release stay available. `hog_color.zip` has its store and its answers; see `record.py`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from ocelli_api.classifier import Accelerator, Manifest, parse_classifier, parse_spec
from ocelli_api.classifier_status import ClassifierStatus, parse_status
from ocelli_api.export import ArtifactSummary, ExportFormat
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.outcome import ExitCode, Outcome, OutcomeReason
from ocelli_api.pods import Environment
from ocelli_api.revision import definition, spec_revision, training_hash
from ocelli_api.settings import load_settings
from ocelli_gateway.export_files import open_export
from ocelli_gateway.stored_files import StoredExport
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import load_artifact
from ocelli_model.backbone import Precision, load_backbone_metadata
from ocelli_model.engine import device_for
from ocelli_operator.actions import StartTraining
from ocelli_operator.plan import Plan
from ocelli_operator.training_store import TrainingStore
from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from ocelli_training.attempt import run_attempt
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from tests.installed_backbone import install_backbone
from tests.unit.operator.factories import World

ARCHIVE = Path(__file__).parent / "hog_color.zip"
LOCATION = ClassifierLocation(namespace="team-a", classifier_id="shapes_1941945966")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The unpacked archive."""

    folder: Path
    facts: dict[str, Any]
    """The contents of `recorded.json`."""

    @property
    def store(self) -> ObjectStore:
        return open_store((self.folder / "store").as_uri())

    @property
    def revision(self) -> str:
        return str(self.facts["revision"])

    @property
    def images(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / "images").iterdir())}

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """By image and class, before rounding."""
        return {name: scores["exact"] for name, scores in self.facts["scores"].items()}

    def summary(self) -> ArtifactSummary:
        return ArtifactSummary.parse(
            json.loads((self.folder / "store" / LOCATION.artifact_key(self.revision, ARTIFACT_METADATA)).read_bytes())
        )

    def world(self) -> World:
        """The classifier as the operator observes it after the upgrade, with its artifact in the store."""
        world = World()
        artifact = asyncio.run(TrainingStore(self.store).load_artifact(LOCATION, self.revision, 1))
        assert artifact is not None
        world.see(classifier=parse_classifier(self.facts["classifier"]), artifact=artifact)
        return world


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return Recording(folder=tmp_path, facts=json.loads((tmp_path / "recorded.json").read_bytes()))


async def answer(recording: Recording) -> dict[str, dict[str, float]]:
    settings = InferenceSettings(
        store_url=recording.store.url,
        classifier="team-a/dogs",
        namespace=LOCATION.namespace,
        classifier_id=LOCATION.classifier_id,
        revision=recording.revision,
        bind_address="127.0.0.1",
        cpu_count=1,
        accelerator=Accelerator.CPU,
        log_level="INFO",
    )
    async with open_predictor(settings, Metrics()) as predictor:
        predictions = {name: await predictor.predict(data) for name, data in recording.images.items()}
    return {name: {item.class_name: item.score for item in prediction.scores} for name, prediction in predictions.items()}


def test_an_earlier_artifact_is_served_with_its_scores(recording: Recording) -> None:
    answered = asyncio.run(answer(recording))
    assert answered.keys() == recording.scores.keys()
    differences = [
        abs(score - answered[name][class_name])
        for name, scores in recording.scores.items()
        for class_name, score in scores.items()
    ]
    assert max(differences) <= 1e-6


def test_the_recorded_scores_are_of_both_classes_and_of_neither(recording: Recording) -> None:
    scores = np.array([list(scores.values()) for scores in recording.scores.values()])
    assert (scores > 0.5).sum(axis=0).min() >= 2
    assert (scores < 0.1).all(axis=1).sum() == 3


def test_the_revision_of_its_definition_is_unchanged(recording: Recording) -> None:
    spec = recording.facts["classifier"]["spec"]
    named = {**spec, "model": {"backbone": "HogColor"}}
    assert spec_revision(parse_spec(spec)) == recording.facts["revision"]
    assert spec_revision(parse_spec(named)) == recording.facts["revisionWithHogColorNamed"]
    assert training_hash(parse_spec(spec).training) == recording.facts["trainingHash"]


def test_its_artifact_is_read_with_its_digest(recording: Recording) -> None:
    artifact = asyncio.run(load_artifact(recording.store, LOCATION, recording.revision))
    assert artifact.digest == recording.facts["outcome"]["artifactDigest"]
    assert artifact.precision is None


def test_its_backbone_keeps_its_digest_and_runs_on_the_cpu_of_a_node_with_a_gpu(recording: Recording) -> None:
    digest = recording.facts["outcome"]["backboneDigest"]
    metadata = asyncio.run(load_backbone_metadata(recording.store, digest))
    assert (metadata.digest, device_for(metadata, Accelerator.GPU)) == (digest, Accelerator.CPU)


def test_the_operator_trains_nothing_again(recording: Recording) -> None:
    world = recording.world()
    plans: list[Plan] = [world.step() for _ in range(4)]
    assert [action for plan in plans for action in plan.actions if isinstance(action, StartTraining)] == []
    assert {plan.status.served_revision for plan in plans} == {recording.revision}
    assert world.status.training_revision is None
    assert lifecycle(world.observed.classifier) is Lifecycle.READY


def test_an_upgrade_does_not_change_its_status(recording: Recording) -> None:
    world = recording.world()
    world.settle()
    before = parse_status(recording.facts["classifier"]["status"])
    assert before.accuracy is not None
    assert without_texts(world.status) == without_texts(before)


def without_texts(status: ClassifierStatus) -> ClassifierStatus:
    """Without the messages, whose wording may differ between releases, and the times."""
    conditions = (replace(item, last_transition_time="", message="") for item in status.conditions)
    return replace(status, conditions=tuple(conditions))


def test_its_next_training_uses_the_new_default_and_keeps_the_served_revision(recording: Recording) -> None:
    before = asyncio.run(answer(recording))
    document = {**definition(parse_spec(recording.facts["classifier"]["spec"])), "model": {"seed": 1}}
    revision = spec_revision(parse_spec(document))
    outcome, exit_code = train(recording, revision, document)
    artifact = asyncio.run(load_artifact(recording.store, LOCATION, revision))
    assert (outcome.backbone, exit_code) == ("EfficientNetLite0 (Auto)", ExitCode.SUCCEEDED)
    assert (artifact.backbone_name, artifact.precision) == ("EfficientNetLite0", Precision.FLOAT32)
    assert asyncio.run(answer(recording)) == before


def test_a_training_that_names_the_removed_backbone_fails_with_the_remedy(recording: Recording) -> None:
    spec = {**recording.facts["classifier"]["spec"], "model": {"backbone": "HogColor"}}
    outcome, exit_code = train(recording, recording.facts["revisionWithHogColorNamed"], definition(parse_spec(spec)))
    assert (outcome.reason, exit_code) == (OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
    assert outcome.message == (
        'Classifier team-a/dogs: backbone "HogColor" was removed from Ocelli; the served revision stays available; '
        "to train again, set model.backbone to EfficientNetLite0, or remove model.backbone"
    )


def test_an_attempt_whose_outcome_was_lost_reuses_its_artifact(recording: Recording) -> None:
    document = definition(parse_spec(recording.facts["classifier"]["spec"]))
    outcome, exit_code = train(recording, recording.revision, document)
    assert (outcome.artifact_digest, exit_code) == (recording.facts["outcome"]["artifactDigest"], ExitCode.SUCCEEDED)


def train(recording: Recording, revision: str, document: Manifest) -> tuple[Outcome, ExitCode]:
    """An attempt of the current trainer, in an installation that still lists the old backbone."""
    scratch = recording.folder / "scratch"
    scratch.mkdir()
    key = LOCATION.training_key(revision, 2, DEFINITION)
    asyncio.run(recording.store.put(key, json.dumps(document).encode()))
    old = f"HogColor={recording.facts['outcome']['backboneDigest']}"
    environment = {
        Environment.STORE_URL: recording.store.url,
        Environment.CLASSIFIER: "team-a/dogs",
        Environment.NAMESPACE: LOCATION.namespace,
        Environment.CLASSIFIER_ID: LOCATION.classifier_id,
        Environment.REVISION: revision,
        Environment.ATTEMPT: "2",
        Environment.BACKBONES: f"{old},{install_backbone(recording.folder / 'store')}",
        Environment.SCRATCH_FOLDER: str(scratch),
        Environment.CPU_LIMIT: "1",
    }
    settings = load_settings(TrainerSettings, environment)
    return asyncio.run(run_attempt(settings, recording.store, scratch, StopRequest(os._exit)))


def download(recording: Recording, export: ExportFormat) -> bytes:
    summary = recording.summary()
    parts = summary.exports[export]
    keys = tuple(LOCATION.export_part_key(recording.revision, summary, part) for part in parts)

    async def read() -> bytes:
        file = await open_export(recording.store, StoredExport(parts=parts, keys=keys))
        data = b"".join([chunk async for chunk in file.chunks])
        assert len(data) == file.size_bytes
        return data

    return asyncio.run(read())


def test_its_exports_are_downloaded_whole(recording: Recording) -> None:
    assert {export for export in ExportFormat if download(recording, export)} == set(ExportFormat)


def test_its_onnx_export_gives_the_recorded_scores(recording: Recording) -> None:
    session = onnxruntime.InferenceSession(download(recording, ExportFormat.ONNX))
    for name, data in recording.images.items():
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        scores = session.run(["scores"], {"image": pixels})[0]
        assert scores == pytest.approx(list(recording.scores[name].values()), abs=0.02)
