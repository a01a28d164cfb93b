"""A pretrained classifier served: PyTorch's scores, hierarchy and languages, over the prediction call and the open protocol.

The bound on scores is 0.0005, as for every other classifier.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ocelli_api.classifier import Accelerator
from ocelli_api.outcome import ExitCode
from ocelli_api.prediction import LANGUAGE_HEADER, PREDICTIONS_PATH, THRESHOLD_HEADER
from ocelli_inference.admission import Admission, AdmissionLimits
from ocelli_inference.app import build_app
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.service import InferenceService
from ocelli_inference.settings import InferenceSettings
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.preprocessing import Preprocessing, ResizeMode
from tests.networks import COLOURS, PLAIN_IMAGES, onnx_bytes, save_torchvision, softmax_of_torchvision
from tests.unit.inference.artifacts import make_jpeg
from tests.unit.model.images import encode
from tests.unit.training.conftest import Trainer

pytestmark = pytest.mark.anyio

BOUND = 0.0005
HIERARCHY = "/colour/warm/red\n/colour/cold/blue\n/colour/cold/green"
TRANSLATIONS = {"de": {"red": "Rot", "colour": "Farbe", "none": "keine"}, "pt-br": {"red": "vermelho"}}


def plain(colour: tuple[int, int, int]) -> bytes:
    return encode(Image.new("RGB", (48, 40), colour), "PNG")


def make_ready(trainer: Trainer, pretrained: Mapping[str, Any]) -> InferenceSettings:
    """Have the trainer make it; the settings of a server of it."""
    trainer.definition = {"pretrained": dict(pretrained)}
    outcome, exit_code = trainer.run()
    assert exit_code is ExitCode.SUCCEEDED, outcome.message
    return InferenceSettings(
        store_url=trainer.store.url,
        classifier="team-a/dogs",
        namespace=trainer.location.namespace,
        classifier_id=trainer.location.classifier_id,
        revision=trainer.revision,
        bind_address="127.0.0.1",
        cpu_count=2,
        accelerator=Accelerator.AUTO,
        log_level="INFO",
    )


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> InferenceSettings:
    """An ONNX network that classifies colours, with every description of its outputs."""
    trainer = Trainer(tmp_path_factory.mktemp("colours"))
    texts = {"labels.txt": "\n".join(COLOURS), "hierarchy.txt": HIERARCHY, "translations.json": json.dumps(TRANSLATIONS)}
    for name, text in texts.items():
        (trainer.file_sources / name).write_text(text)
    (trainer.file_sources / "network.onnx").write_bytes(onnx_bytes())
    return make_ready(trainer, {"weights": {"url": "file:///"}, "images": PLAIN_IMAGES, "otherwise": "none"})


@asynccontextmanager
async def served(settings: InferenceSettings, metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    service = InferenceService(
        classifier_id=settings.classifier_id,
        revision=settings.revision,
        admission=Admission(AdmissionLimits(), metrics),
        metrics=metrics,
    )
    transport = httpx.ASGITransport(build_app(service))
    async with (
        open_predictor(settings, metrics) as predictor,
        httpx.AsyncClient(transport=transport, base_url="http://inference") as client,
    ):
        service.begin_serving(predictor)
        yield client


@pytest.fixture
async def client(colours: InferenceSettings, metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    async with served(colours, metrics) as client:
        yield client


async def predict(client: httpx.AsyncClient, image: bytes, language: str | None = None) -> list[dict[str, Any]]:
    headers = {} if language is None else {LANGUAGE_HEADER: language}
    answer = await client.post(PREDICTIONS_PATH, content=image, headers=headers)
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


async def test_leaves_have_their_place_and_ancestors_follow_with_sums(client: httpx.AsyncClient) -> None:
    predictions = await predict(client, plain((0, 250, 250)))
    assert [item["class"] for item in predictions] == [*COLOURS, "colour", "warm", "cold", "none"]
    assert [item.get("typeHierarchy") for item in predictions] == [
        "/colour/warm/red",
        "/colour/cold/green",
        "/colour/cold/blue",
        *[None] * 4,
    ]
    scores = {item["class"]: item["score"] for item in predictions}
    assert (scores["green"], scores["blue"]) == (0.5, 0.5)
    assert (scores["cold"], scores["colour"], scores["none"]) == (1, 1, 0)


async def test_names_and_paths_are_in_the_requested_language(client: httpx.AsyncClient) -> None:
    predictions = await predict(client, plain((250, 0, 0)), "de")
    assert [item["class"] for item in predictions] == ["Rot", "green", "blue", "Farbe", "warm", "cold", "keine"]
    assert predictions[0]["typeHierarchy"] == "/Farbe/warm/Rot"


async def test_the_case_of_a_language_does_not_matter(client: httpx.AsyncClient) -> None:
    assert (await predict(client, plain((250, 0, 0)), "pt-BR"))[0]["class"] == "vermelho"


@pytest.mark.parametrize("language", ["en", "fr", "tlh", ""])
async def test_another_language_is_answered_in_english(client: httpx.AsyncClient, language: str) -> None:
    image = plain((250, 0, 0))
    assert await predict(client, image, language) == await predict(client, image)


@pytest.mark.parametrize(
    ("threshold", "classes"),
    [
        ("0.5", ["green", "blue", "colour", "cold"]),
        ("0.500001", ["colour", "cold"]),
        ("0", [*COLOURS, "colour", "warm", "cold", "none"]),
        ("high", [*COLOURS, "colour", "warm", "cold", "none"]),
    ],
)
async def test_classes_below_the_threshold_are_left_out(client: httpx.AsyncClient, threshold: str, classes: list[str]) -> None:
    headers = {THRESHOLD_HEADER: threshold}
    answer = await client.post(PREDICTIONS_PATH, content=plain((0, 250, 250)), headers=headers)
    assert [item["class"] for item in answer.json()["predictions"]] == classes


async def test_scores_are_the_same_in_every_language(client: httpx.AsyncClient) -> None:
    english, german = [await predict(client, make_jpeg(3), language) for language in ("en", "de")]
    assert [item["score"] for item in english] == [item["score"] for item in german]


async def test_the_open_inference_protocol_has_every_class(client: httpx.AsyncClient, colours: InferenceSettings) -> None:
    image = plain((250, 0, 0))
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}
    answer = (await client.post(f"/v2/models/{colours.classifier_id}/infer", json={"inputs": [tensor]})).json()
    outputs = {item["name"]: item["data"] for item in answer["outputs"]}
    predictions = await predict(client, image)
    assert outputs["classes"] == [item["class"] for item in predictions]
    assert outputs["scores"] == [item["score"] for item in predictions]


async def test_an_image_has_the_same_scores_alone_and_among_others(client: httpx.AsyncClient) -> None:
    images = [make_jpeg(seed) for seed in range(6)]
    alone = [await predict(client, image) for image in images]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [6], "data": [base64.b64encode(i).decode() for i in images]}
    answer = (await client.post("/v2/models/dogs_1/infer", json={"inputs": [tensor]})).json()
    scores = next(item["data"] for item in answer["outputs"] if item["name"] == "scores")
    assert scores == [item["score"] for predictions in alone for item in predictions]


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[InferenceSettings, Path]:
    """A torchvision network of seven outputs, and its weights."""
    trainer = Trainer(tmp_path_factory.mktemp("squeezenet"))
    path = save_torchvision(trainer.file_sources / "weights.pth", spread=10)
    (trainer.file_sources / "labels.txt").write_text("\n".join("abcdefg"))
    weights = {"url": "file:///weights.pth", "architecture": "squeezenet1_1"}
    return make_ready(trainer, {"weights": weights, "labels": {"url": "file:///labels.txt"}}), path


@pytest.mark.slow
async def test_a_torchvision_network_scores_as_in_pytorch(squeezenet: tuple[InferenceSettings, Path], metrics: Metrics) -> None:
    settings, weights = squeezenet
    images = [make_jpeg(1), make_jpeg(2), *(plain(colour) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)))]
    decode = ImageDecoder(Preprocessing(height=224, width=224, resize=ResizeMode.SHORT_SIDE_CROP, short_side_pixels=256))
    expected = softmax_of_torchvision(weights, np.stack([decode(image) for image in images]))
    # Images that all score alike would agree in any network.
    assert np.ptp(expected, axis=0).max() > 0.1

    async with open_predictor(settings, metrics) as predictor:
        predictions = [await predictor.predict(image) for image in images]

    answers = np.array([[item.score for item in prediction.scores] for prediction in predictions])
    difference = float(np.abs(answers - expected).max())
    print(f"{predictor.engine_name}: {difference:.6f}")
    assert predictor.engine_name.endswith("float32")
    assert difference <= BOUND
