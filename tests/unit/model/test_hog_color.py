import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocelli_model.backbone import ONNX_FILE, Precision
from ocelli_model.backbones import hog_color
from ocelli_model.publish import packaged_hog_color
from tests.benchmarks.hog_color_accuracy import load_hog_color
from tests.unit.model.images import make_pixels

# Blocks of 3x3 cells with 9 orientations, at 6x6 places.
GRADIENTS = 6 * 6 * 9 * 9


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        computed: NDArray[np.float32] = hog_color.HogColor().eval()(torch.from_numpy(images)).numpy()
    return computed


def plain(*colour: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (1, 128, 128, 3)).copy()


def test_the_packaged_file_is_the_network() -> None:
    images = np.concatenate(
        [np.stack([make_pixels(seed, height=128, width=128) for seed in range(6)]), plain(0, 0, 0), plain(9, 200, 0)]
    )

    assert load_hog_color().features(images) == pytest.approx(features(images), abs=5e-5)


def test_the_packaged_metadata_describe_the_network() -> None:
    metadata, files = packaged_hog_color()

    assert (metadata.name, metadata.version) == (hog_color.NAME, hog_color.VERSION)
    assert metadata.preprocessing == hog_color.PREPROCESSING
    assert metadata.feature_count == features(plain(0, 0, 0)).shape[1]
    assert metadata.precision is Precision.FLOAT32
    assert b"/" + b"home/" not in files[ONNX_FILE]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (128, 128, 128), (1, 2, 3)])
def test_plain_images_have_finite_features(colour: tuple[int, int, int]) -> None:
    assert np.isfinite(features(plain(*colour))).all()


def test_features_differ_by_colour_alone() -> None:
    red, blue = features(plain(255, 0, 0)), features(plain(0, 0, 255))

    assert np.linalg.norm(red - blue) > 1


def test_an_edge_between_colours_of_equal_brightness_is_an_edge() -> None:
    image = plain(100, 0, 0)
    image[:, :, 64:] = (0, 51, 0)

    assert features(image)[0, :GRADIENTS].sum() > 10


def test_orientation_decides_the_bin() -> None:
    upright = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    upright[:, :, 64:] = 255
    lying = np.ascontiguousarray(upright.transpose(0, 2, 1, 3))
    bins = [features(image)[0, :GRADIENTS].reshape(9, 9, 36).sum((0, 2)) for image in (upright, lying)]

    # An upright edge has a gradient of 0 degrees, which the first and the last bin share; one that lies has 90, the middle bin.
    assert bins[0][[0, 8]].sum() > 0.95 * bins[0].sum()
    assert bins[1].argmax() == 4


def test_the_network_learns_nothing() -> None:
    assert not list(hog_color.HogColor().parameters())
