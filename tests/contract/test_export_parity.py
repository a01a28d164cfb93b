"""Exports give the server's scores: ONNX in ONNX Runtime, Core ML by its specification's own preprocessing, layers and weights.

50 images: the photographs where they are at hand, else drawn ones, and in any case images of odd sizes.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.classifier import Accelerator
from ocelli_api.export import ExportFormat
from ocelli_model.backbone import load_backbone, load_backbone_metadata
from ocelli_model.engine import load_engine
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.exports.core_ml_parts import input_size
from ocelli_model.exports.message_types import core_ml_messages
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import Preprocessing, ResizeMode, decode_image
from ocelli_model.publish import publish_backbone
from ocelli_storage.archives import EXAMPLE_KINDS, ArchiveImage, ImageArchive
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectStore
from tests.unit.model.core_ml_interpreter import run_core_ml
from tests.unit.model.images import make_pixels

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
IMAGES = 50
CORE_ML_IMAGES = 20
"""Of these, the odd ones first: the interpreter of its layers is slow."""
CLASS_NAMES = ("heron", "Äpfel & Birnen 日本", 'quote"free')
ONNX_BOUND = 0.01
"""For images that came without loss: Pillow rounds to whole grey values between its two passes, ONNX Runtime does not."""
ONNX_JPEG_BOUND = 0.02
"""The server lets the decoder of a large JPEG scale it, which shows a little more of its noise."""
CORE_ML_BOUND = 0.001
"""On pixels that were brought to the declared size: what is left is single precision."""


def photographs() -> list[bytes]:
    found: list[bytes] = []
    for name in ("cars.zip", "trucks.zip"):
        if (DATA / name).exists():
            with ImageArchive(DATA / name, kinds=EXAMPLE_KINDS) as archive:
                found += [entry.data for entry in archive if isinstance(entry, ArchiveImage)][: IMAGES // 2 - 4]
    return found


def drawn(seed: int, width: int, height: int, format_name: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(make_pixels(seed, height=height, width=width)).save(buffer, format_name, quality=92)
    return buffer.getvalue()


ODD_SIZES = ((16, 16), (129, 127), (1000, 40), (40, 1000), (37, 911), (640, 480), (1920, 1280), (10, 300))


def test_images() -> list[bytes]:
    odd = [drawn(index, *size) for index, size in enumerate(ODD_SIZES)]
    found = photographs() or [drawn(100 + index, 240 + index, 180, "JPEG") for index in range(IMAGES - len(odd))]
    return [*odd, *found]


test_images.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A classifier as the server has it, and as both exports have it."""

    preprocessing: Preprocessing
    scores: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    onnx: bytes
    core_ml: bytes | None


def make_heads(feature_count: int, seed: int = 0) -> Heads:
    """Heads whose scores spread over the whole range."""
    random = np.random.default_rng(seed)
    count = len(CLASS_NAMES)
    return Heads(
        weights=(random.normal(size=(count, feature_count)) * 3 / np.sqrt(feature_count)).astype(np.float32),
        bias=random.normal(size=count).astype(np.float32),
        slope=np.array([0.7, 1.0, 1.6], dtype=np.float32),
        offset=np.array([-0.4, 0.0, 0.5], dtype=np.float32),
    )


async def export(folder: Path, name: str, weights: str | None = None) -> Exported:
    store = ObjectStore.from_url((folder / "store").as_uri())
    published = await publish_backbone(store, name, weights=weights)
    metadata = await load_backbone_metadata(store, published.digest)
    backbone = await load_backbone(store, published.digest, cache=folder / "cache")
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)
    heads = make_heads(metadata.feature_count)
    exports = await build_exports(store, metadata, heads, CLASS_NAMES, description="a test")

    async def whole(export: ExportFormat) -> bytes | None:
        if export not in exports.parts:
            return None
        body, head = exports.parts[export]
        return await store.get(backbone_key(metadata.digest, body.file), limit_bytes=1 << 32) + exports.files[head.file]

    onnx_model = await whole(ExportFormat.ONNX)
    assert onnx_model is not None
    return Exported(
        preprocessing=metadata.preprocessing,
        scores=lambda pixels: heads.scores(engine.features(pixels[np.newaxis]))[0],
        onnx=onnx_model,
        core_ml=await whole(ExportFormat.CORE_ML),
    )


@pytest.fixture(scope="module")
def squashing(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return asyncio.run(export(tmp_path_factory.mktemp("squashing"), "EfficientNetLite0"))


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A torchvision network with random weights of its own: what counts is that both sides have the same."""
    import torch
    from torchvision import models

    folder = tmp_path_factory.mktemp("cropping")
    torch.manual_seed(5)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), folder / "squeezenet1_1.pth")
    return asyncio.run(export(folder, "squeezenet1_1", str(folder)))


def run_onnx(model: bytes, images: list[bytes]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = [session.run(["scores"], {"image": full_size(image)})[0] for image in images]
    return np.stack(rows)


def full_size(image: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def server_scores(exported: Exported, images: list[bytes]) -> NDArray[np.float32]:
    return np.stack([exported.scores(decode_image(image, exported.preprocessing)) for image in images])


@pytest.mark.parametrize("name", ["squashing", "cropping"])
def test_onnx_gives_the_scores_of_the_server(name: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    images = test_images()
    differences = np.abs(run_onnx(exported.onnx, images) - server_scores(exported, images)).max(axis=1)
    print(f"ONNX, {name}, {len(images)} images: largest difference {differences.max():.5f}, mean {differences.mean():.5f}")
    lossless = differences[: len(ODD_SIZES)]
    assert len(images) == IMAGES
    assert (lossless.max() <= ONNX_BOUND, differences.max() <= ONNX_JPEG_BOUND) == (True, True)


@pytest.mark.parametrize("name", ["squashing", "cropping"])
def test_core_ml_specification_gives_the_scores_of_the_server(name: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    assert exported.core_ml is not None
    model = core_ml_messages().Model.FromString(exported.core_ml)
    # What Vision does beforehand is what the server does before its crop.
    height, width = input_size(exported.preprocessing)
    before = Preprocessing(
        height=height,
        width=width,
        resize=exported.preprocessing.resize,
        short_side_pixels=exported.preprocessing.short_side_pixels,
        interpolation=exported.preprocessing.interpolation,
    )
    images = test_images()[:CORE_ML_IMAGES]
    expected = server_scores(exported, images)
    answers = run_core_ml(model, [decode_image(image, before) for image in images])
    given = np.array([[answer[label] for label in CLASS_NAMES] for answer in answers])
    difference = float(np.abs(given - expected).max())
    print(f"Core ML, {name}, {len(images)} images: largest difference {difference:.6f}")
    assert difference <= CORE_ML_BOUND


def test_scores_of_the_test_spread_over_the_range(squashing: Exported) -> None:
    scores = server_scores(squashing, test_images())
    assert scores.min() < 0.3
    assert scores.max() > 0.7


def test_onnx_is_a_valid_model_with_its_class_names(squashing: Exported) -> None:
    model = onnx.load_from_string(squashing.onnx)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(squashing.onnx)
    names = session.run(["class_names"], {"image": np.zeros((50, 60, 3), dtype=np.uint8)})[0]
    assert tuple(names) == CLASS_NAMES


def test_core_ml_has_one_image_input_and_the_class_names_as_labels(squashing: Exported) -> None:
    model = core_ml_messages().Model.FromString(squashing.core_ml)
    inputs = [(item.name, item.type.WhichOneof("Type")) for item in model.description.input]
    assert (model.WhichOneof("Type"), inputs) == ("neuralNetworkClassifier", [("image", "imageType")])
    assert tuple(model.neuralNetworkClassifier.stringClassLabels.vector) == CLASS_NAMES
    assert [item.name for item in model.description.output] == ["classLabel", "classLabelProbs"]


def test_core_ml_is_read_by_coremltools(squashing: Exported, tmp_path: Path) -> None:
    import coremltools

    path = tmp_path / "birds.mlmodel"
    path.write_bytes(squashing.core_ml or b"")
    specification: Any = coremltools.utils.load_spec(str(path))
    assert specification.description.predictedFeatureName == "classLabel"


def test_input_says_how_an_image_is_to_be_fitted(squashing: Exported, cropping: Exported) -> None:
    described = []
    for exported in (squashing, cropping):
        model = core_ml_messages().Model.FromString(exported.core_ml)
        image = model.description.input[0]
        crop = model.description.metadata.userDefined["ocelli.imageCropAndScale"]
        described.append((crop, image.type.imageType.height, crop in image.shortDescription))
    assert squashing.preprocessing.resize is ResizeMode.SQUASH
    assert described == [("scaleFill", squashing.preprocessing.height, True), ("centerCrop", 256, True)]


def test_wrong_weight_would_be_seen(squashing: Exported) -> None:
    model = core_ml_messages().Model.FromString(squashing.core_ml)
    pixels = make_pixels(3, height=224, width=224)
    (before,) = run_core_ml(model, [pixels])
    convolution = next(layer for layer in model.neuralNetworkClassifier.layers if layer.WhichOneof("layer") == "convolution")
    for index in range(len(convolution.convolution.weights.floatValue)):
        convolution.convolution.weights.floatValue[index] *= 2
    (after,) = run_core_ml(model, [pixels])
    assert max(abs(before[name] - after[name]) for name in CLASS_NAMES) > CORE_ML_BOUND
