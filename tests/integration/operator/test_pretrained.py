"""Pretrained classifiers on a real control plane: ready without examples, and invalid ones report why while others serve."""

from __future__ import annotations

import io
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocelli_api.classifier import API_VERSION, Manifest
from ocelli_api.pods import INFERENCE_PORT
from ocelli_api.prediction import LANGUAGE_HEADER, PREDICTIONS_PATH
from tests.integration.operator.conftest import SharedScene
from tests.integration.operator.scene import Scene
from tests.networks import COLOURS, PLAIN_IMAGES, onnx_bytes

pytestmark = pytest.mark.cluster

TEXTS = {
    "labels.txt": "\n".join(COLOURS),
    "two-labels.txt": "red\ngreen",
    "hierarchy.txt": "/colour/warm/red\n/colour/cold/blue\n/colour/cold/green",
    "translations.json": json.dumps({"de": {"red": "Rot", "colour": "Farbe"}}),
}
GOOD: dict[str, Any] = {
    "weights": {"url": "file:///network.onnx"},
    "labels": {"url": "file:///labels.txt"},
    "hierarchy": {"url": "file:///hierarchy.txt"},
    "translations": {"url": "file:///translations.json"},
    "images": PLAIN_IMAGES,
}


@pytest.fixture(scope="module")
def file_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    data = onnx_bytes()
    (folder / "network.onnx").write_bytes(data)
    (folder / "damaged.onnx").write_bytes(data[: len(data) // 2])
    return folder


@pytest.fixture(scope="module")
def scene(shared_scene: SharedScene, file_sources: Path) -> Iterator[Scene]:
    with shared_scene("pretrained", OCELLI_FILE_SOURCES_FOLDER=str(file_sources)) as scene:
        yield scene


def build(name: str, **pretrained: Any) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": "Classifier",
        "metadata": {"name": name},
        # A server that does not answer is tried by one Pod only, so that the test need not wait for others.
        "spec": {"pretrained": {**GOOD, **pretrained}, "training": {"backoffLimit": 0}},
    }


def predict(scene: Scene, name: str, colour: tuple[int, int, int], language: str = "en") -> list[dict[str, Any]]:
    """The answer of a classifier's inference server for an image of one colour."""
    (pod,) = [item for item in scene.pods("inference") if item["metadata"]["labels"]["ocelli.dev/classifier"] == name]
    image = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(image, "PNG")
    request = urllib.request.Request(
        f"http://{pod['status']['podIP']}:{INFERENCE_PORT}{PREDICTIONS_PATH}",
        data=image.getvalue(),
        headers={LANGUAGE_HEADER: language},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
    return predictions


def test_it_becomes_ready_and_answers_with_its_hierarchy_in_the_requested_language(scene: Scene) -> None:
    scene.apply(build("colours"))
    status = scene.wait_until_ready()
    predictions = predict(scene, "colours", (250, 0, 0), "de")
    assert predictions[0] == {"class": "Rot", "score": 1.0, "typeHierarchy": "/Farbe/warm/Rot"}
    assert {"class": "Farbe", "score": 1.0} in predictions
    assert status["backbone"].startswith("ONNX (")
    assert "accuracy" not in status
    assert scene.condition("DataValid")["message"] == "weights and labels were read, and they match"


def test_invalid_ones_report_why_while_another_serves(scene: Scene) -> None:
    scene.apply(build("good"))
    scene.wait_until_ready("good")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/network.onnx"
        bad = {
            "bad-weights": (
                "InvalidData",
                build("bad-weights", weights={"url": "file:///damaged.onnx"}),
                "weights file:///damaged.onnx: it cannot be read as ONNX; fetch the file again",
            ),
            "wrong-count": (
                "InvalidData",
                build("wrong-count", labels={"url": "file:///two-labels.txt"}),
                "labels file:///two-labels.txt has 2 lines, the network has 3 outputs; give a line for each output",
            ),
            "unreachable": (
                "SourceUnreadable",
                build("unreachable", weights={"url": closed}),
                f"weights {closed}: the connection failed (",
            ),
            "no-hierarchy": (
                "SourceUnreadable",
                build("no-hierarchy", hierarchy={"url": "file:///missing.txt"}),
                "hierarchy file:///missing.txt: there is no such file",
            ),
        }
        for _, manifest, _ in bad.values():
            scene.apply(manifest)
        for name, (reason, _, fact) in bad.items():
            message = scene.wait_for_condition("Stalled", reason, name)["message"]
            assert f"Classifier {scene.namespace}/{name}: {fact}" in message
            assert message.endswith("; then raise spec.retrainNonce to have it tried again")
            assert scene.condition("DataValid", name)["reason"] == reason
            assert predict(scene, "good", (0, 0, 250))[2]["score"] == 1.0
    assert scene.condition("Ready", "good")["status"] == "True"


def test_late_weights_are_used_when_the_nonce_is_raised(scene: Scene, file_sources: Path) -> None:
    folder = file_sources / "late"
    scene.apply({**build("late"), "spec": {"pretrained": {"weights": {"url": "file:///late/"}, "images": PLAIN_IMAGES}}})
    assert "put one file of weights" in scene.wait_for_condition("Stalled", "SourceUnreadable", "late")["message"]
    folder.mkdir()
    (folder / "network.onnx").write_bytes(onnx_bytes())
    (folder / "labels.txt").write_text(TEXTS["labels.txt"])
    scene.patch('{"spec": {"retrainNonce": 1}}', "late")
    scene.wait_until_ready("late")
    assert predict(scene, "late", (0, 250, 0))[1] == {"class": "green", "score": 1.0}


def test_an_invalid_change_leaves_the_old_revision_serving(scene: Scene) -> None:
    scene.apply(build("colours"))
    first = scene.wait_until_ready()["servedRevision"]
    scene.apply(build("colours", labels={"url": "file:///two-labels.txt"}))
    scene.wait_for_condition("Stalled", "InvalidData")
    assert scene.status()["servedRevision"] == first
    assert predict(scene, "colours", (250, 0, 0))[0]["score"] == 1.0
