"""Exports give the server's scores: ONNX in ONNX Runtime, Core ML by its specification's own preprocessing, layers and weights.

50 images: the photographs if they are available, otherwise drawn ones, and always images of unusual sizes.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.classifier import Accelerator
from ocelli_api.export import ExportFormat
from ocelli_model.backbone import BackboneMetadata, load_backbone, load_backbone_metadata
from ocelli_model.engine import Engine, load_engine
from ocelli_model.exports.classifier_exports import build_exports
from ocelli_model.exports.core_ml_parts import input_size
from ocelli_model.exports.message_types import core_ml_messages
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import Preprocessing, ResizeMode, decode_image
from ocelli_model.publish import publish_backbone
from ocelli_storage.archives import EXAMPLE_KINDS, ArchiveImage, ImageArchive
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from tests.unit.model.core_ml_interpreter import run_core_ml
from tests.unit.model.images import make_pixels
from tests.unit.model.rejections import make_rejection

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
IMAGES = 50
CORE_ML_IMAGES = 20
"""Of these, the unusual ones first: the interpreter of its layers is slow."""
CORE_ML_REJECTED_IMAGES = 10
POWER = 0.6
CLASS_NAMES = ("heron", "Äpfel & Birnen 日本", 'quote"free')
ONNX_BOUND = 0.01
"""For losslessly compressed images: Pillow rounds to whole grey values between its two passes, ONNX Runtime does not."""
ONNX_JPEG_BOUND = 0.02
"""The server lets the decoder of a large JPEG scale it, which shows a little more of its noise."""
SAME_FEATURES_BOUND = 0.001
"""Single precision again, of which a rejection near its border makes much; 0.0001 where features differ as in photographs."""
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
class Installed:
    """A backbone in a store, and the engine of the server."""

    store: ObjectStore
    metadata: BackboneMetadata
    engine: Engine

    def features(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One by one, as single requests."""
        return np.concatenate([self.engine.features(pixels[np.newaxis]) for pixels in images])


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A classifier in the server, and both of its exports."""

    backbone: Installed
    heads: Heads
    onnx: bytes
    core_ml: bytes | None

    @property
    def preprocessing(self) -> Preprocessing:
        return self.backbone.metadata.preprocessing

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.heads.scores(self.backbone.features([pixels]))[0]


def make_heads(feature_count: int, seed: int = 0) -> Heads:
    """Heads with scores over the whole range."""
    random = np.random.default_rng(seed)
    count = len(CLASS_NAMES)
    return Heads(
        weights=(random.normal(size=(count, feature_count)) * 3 / np.sqrt(feature_count)).astype(np.float32),
        bias=random.normal(size=count).astype(np.float32),
        slope=np.array([0.7, 1.0, 1.6], dtype=np.float32),
        offset=np.array([-0.4, 0.0, 0.5], dtype=np.float32),
    )


def make_rejecting_heads(features: NDArray[np.float32]) -> Heads:
    """Heads of normalised features, with the border of the rejection amid the given ones."""
    heads = make_heads(features.shape[1])
    # Normalised features are shorter.
    longer = (heads.weights * np.sqrt(features.shape[1])).astype(np.float32)
    return replace(heads, weights=longer, power=POWER, rejection=make_rejection(features, POWER, rank=16))


async def install(folder: Path, name: str, weights: str | None = None) -> Installed:
    store = open_store((folder / "store").as_uri())
    published = await publish_backbone(store, name, weights=weights)
    metadata = await load_backbone_metadata(store, published.digest)
    backbone = await load_backbone(store, published.digest, cache=folder / "cache")
    return Installed(store=store, metadata=metadata, engine=load_engine(backbone, threads=1, device=Accelerator.CPU))


async def export(backbone: Installed, heads: Heads) -> Exported:
    exports = await build_exports(backbone.store, backbone.metadata, heads, CLASS_NAMES)

    async def whole(export: ExportFormat) -> bytes | None:
        if export not in exports.parts:
            return None
        body, head = exports.parts[export]
        key = backbone_key(backbone.metadata.digest, body.file)
        return await backbone.store.get(key, limit_bytes=1 << 32) + exports.files[head.file]

    onnx_model = await whole(ExportFormat.ONNX)
    assert onnx_model is not None
    return Exported(backbone=backbone, heads=heads, onnx=onnx_model, core_ml=await whole(ExportFormat.CORE_ML))


def rejecting(backbone: Installed) -> Exported:
    # Amid the first images, because Core ML's test takes no others.
    images = [decode_image(image, backbone.metadata.preprocessing) for image in test_images()[:CORE_ML_REJECTED_IMAGES]]
    return asyncio.run(export(backbone, make_rejecting_heads(backbone.features(images))))


@pytest.fixture(scope="module")
def lite_backbone(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return asyncio.run(install(tmp_path_factory.mktemp("lite"), "EfficientNetLite0"))


@pytest.fixture(scope="module")
def torchvision_backbone(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A torchvision network with random weights of its own: what counts is that both sides have the same."""
    import torch
    from torchvision import models

    folder = tmp_path_factory.mktemp("torchvision")
    torch.manual_seed(5)
    network = models.squeezenet1_1(weights=None)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.endswith("bias"):
            # With biases of 0 the features of all images are nearly the same.
            torch.nn.init.normal_(parameter, mean=-0.3, std=0.3)
    torch.save(network.state_dict(), folder / "squeezenet1_1.pth")
    return asyncio.run(install(folder, "squeezenet1_1", str(folder)))


@pytest.fixture(scope="module")
def lite(lite_backbone: Installed) -> Exported:
    return asyncio.run(export(lite_backbone, make_heads(lite_backbone.metadata.feature_count)))


@pytest.fixture(scope="module")
def torchvision(torchvision_backbone: Installed) -> Exported:
    return asyncio.run(export(torchvision_backbone, make_heads(torchvision_backbone.metadata.feature_count)))


@pytest.fixture(scope="module")
def lite_and_rejecting(lite_backbone: Installed) -> Exported:
    return rejecting(lite_backbone)


@pytest.fixture(scope="module")
def torchvision_and_rejecting(torchvision_backbone: Installed) -> Exported:
    return rejecting(torchvision_backbone)


def onnx_session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(model: bytes, images: list[bytes]) -> NDArray[np.float32]:
    session = onnx_session(model)
    rows = [session.run(["scores"], {"image": full_size(image)})[0] for image in images]
    return np.stack(rows)


def full_size(image: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def server_scores(exported: Exported, images: list[bytes]) -> NDArray[np.float32]:
    return np.stack([exported.scores(decode_image(image, exported.preprocessing)) for image in images])


@pytest.mark.parametrize("name", ["lite", "torchvision"])
def test_onnx_gives_the_scores_of_the_server(name: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    images = test_images()
    differences = np.abs(run_onnx(exported.onnx, images) - server_scores(exported, images)).max(axis=1)
    print(f"ONNX, {name}, {len(images)} images: largest difference {differences.max():.5f}, mean {differences.mean():.5f}")
    lossless = differences[: len(ODD_SIZES)]
    assert len(images) == IMAGES
    assert (lossless.max() <= ONNX_BOUND, differences.max() <= ONNX_JPEG_BOUND) == (True, True)


@pytest.mark.parametrize("name", ["lite_and_rejecting", "torchvision_and_rejecting"])
def test_onnx_normalises_and_rejects_as_the_server(name: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    model = onnx.load_from_string(exported.onnx)
    onnx.checker.check_model(model, full_check=True)
    model.graph.output.append(onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None))
    session = onnx_session(model.SerializeToString())
    answers = [session.run(["scores", "features"], {"image": full_size(image)}) for image in test_images()]
    scores, features = np.stack([answer[0] for answer in answers]), np.concatenate([answer[1] for answer in answers])
    difference = float(np.abs(scores - exported.heads.scores(features)).max())
    print(f"ONNX, {name}: largest difference for the same features {difference:.6f}")
    assert difference <= SAME_FEATURES_BOUND


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1920, 1280), (1000, 700)], ids=["1920x1280", "1000x700"])
def test_onnx_gives_the_scores_of_the_server_for_images_scaled_in_the_same_steps(
    lite_and_rejecting: Exported, size: tuple[int, int], format_name: str
) -> None:
    image = drawn(7, *size, format_name)
    # As in docs/exports.md.
    width, height = (256 * side // min(size) for side in size)
    if format_name == "JPEG":
        pixels = simplejpeg.decode_jpeg(image, min_height=2 * height, min_width=2 * width, min_factor=1)
    else:
        pixels = full_size(image)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    (given,) = onnx_session(lite_and_rejecting.onnx).run(["scores"], {"image": np.asarray(small)})
    (expected,) = server_scores(lite_and_rejecting, [image])
    assert given == pytest.approx(expected, abs=CORE_ML_BOUND)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lite", CORE_ML_IMAGES),
        ("torchvision", CORE_ML_IMAGES),
        ("lite_and_rejecting", CORE_ML_REJECTED_IMAGES),
        ("torchvision_and_rejecting", CORE_ML_REJECTED_IMAGES),
    ],
)
def test_core_ml_specification_gives_the_scores_of_the_server(name: str, count: int, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    assert exported.core_ml is not None
    model = core_ml_messages().Model.FromString(exported.core_ml)
    # Vision first does what the server does before its crop.
    height, width = input_size(exported.preprocessing)
    before = Preprocessing(
        height=height,
        width=width,
        resize=exported.preprocessing.resize,
        short_side_pixels=exported.preprocessing.short_side_pixels,
        interpolation=exported.preprocessing.interpolation,
    )
    images = test_images()[:count]
    expected = server_scores(exported, images)
    answers = run_core_ml(model, [decode_image(image, before) for image in images])
    given = np.array([[answer[label] for label in CLASS_NAMES] for answer in answers])
    difference = float(np.abs(given - expected).max())
    print(f"Core ML, {name}, {len(images)} images: largest difference {difference:.6f}")
    assert difference <= CORE_ML_BOUND


@pytest.mark.parametrize("name", ["lite_and_rejecting", "torchvision_and_rejecting"])
@pytest.mark.parametrize("count", [IMAGES, CORE_ML_REJECTED_IMAGES])
def test_test_images_are_rejected_fully_partly_or_not_at_all(name: str, count: int, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    images = test_images()[:count]
    unrejected = server_scores(replace(exported, heads=replace(exported.heads, rejection=None)), images)
    factors = (server_scores(exported, images) / unrejected).max(axis=1)
    assert factors.max() == pytest.approx(1)
    assert factors.min() < 0.02
    assert ((factors > 0.1) & (factors < 0.9)).any()
    assert unrejected.max() > 0.7


@pytest.mark.parametrize("name", ["lite_and_rejecting", "torchvision_and_rejecting"])
def test_core_ml_of_every_backbone_has_the_version_required_by_its_layers(name: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(name)
    model = core_ml_messages().Model.FromString(exported.core_ml)
    network = model.neuralNetworkClassifier
    # Version 4 brought layers for any rank, and with them features of rank 2.
    assert (model.specificationVersion >= 4, network.arrayInputShapeMapping, network.imageInputShapeMapping) == (True, 1, 1)


def test_scores_of_the_test_spread_over_the_range(lite: Exported) -> None:
    scores = server_scores(lite, test_images())
    assert scores.min() < 0.3
    assert scores.max() > 0.7


def test_onnx_is_a_valid_model_with_its_class_names(lite: Exported) -> None:
    model = onnx.load_from_string(lite.onnx)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(lite.onnx)
    names = session.run(["class_names"], {"image": np.zeros((50, 60, 3), dtype=np.uint8)})[0]
    assert tuple(names) == CLASS_NAMES


def test_core_ml_has_one_image_input_and_the_class_names_as_labels(lite: Exported) -> None:
    model = core_ml_messages().Model.FromString(lite.core_ml)
    inputs = [(item.name, item.type.WhichOneof("Type")) for item in model.description.input]
    assert (model.WhichOneof("Type"), inputs) == ("neuralNetworkClassifier", [("image", "imageType")])
    assert tuple(model.neuralNetworkClassifier.stringClassLabels.vector) == CLASS_NAMES
    assert [item.name for item in model.description.output] == ["classLabel", "classLabelProbs"]


def test_core_ml_is_read_by_coremltools(lite: Exported, tmp_path: Path) -> None:
    import coremltools

    path = tmp_path / "birds.mlmodel"
    path.write_bytes(lite.core_ml or b"")
    specification: Any = coremltools.utils.load_spec(str(path))
    assert specification.description.predictedFeatureName == "classLabel"


def test_input_describes_how_to_fit_an_image(lite: Exported, torchvision: Exported) -> None:
    for exported in (lite, torchvision):
        model = core_ml_messages().Model.FromString(exported.core_ml)
        image = model.description.input[0]
        crop = model.description.metadata.userDefined["ocelli.imageCropAndScale"]
        assert exported.preprocessing.resize is ResizeMode.SHORT_SIDE_CROP
        assert (crop, image.type.imageType.height, crop in image.shortDescription) == ("centerCrop", 256, True)


def test_a_wrong_weight_changes_the_scores_noticeably(lite: Exported) -> None:
    model = core_ml_messages().Model.FromString(lite.core_ml)
    height, width = input_size(lite.preprocessing)
    pixels = make_pixels(3, height=height, width=width)
    (before,) = run_core_ml(model, [pixels])
    convolution = next(layer for layer in model.neuralNetworkClassifier.layers if layer.WhichOneof("layer") == "convolution")
    for index in range(len(convolution.convolution.weights.floatValue)):
        convolution.convolution.weights.floatValue[index] *= 2
    (after,) = run_core_ml(model, [pixels])
    assert max(abs(before[name] - after[name]) for name in CLASS_NAMES) > CORE_ML_BOUND
