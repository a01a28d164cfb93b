"""The two photographs of scikit-learn, which are available to all tests."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ocelli_model.preprocessing import Preprocessing, decode_image


def photograph_files() -> list[bytes]:
    """A palace and a dahlia, as JPEG files of 640x427 pixels."""
    folder = resources.files("sklearn.datasets.images")
    return [(folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")]


def photographs(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """uint8[2, height, width, 3], decoded and scaled as the server does it."""
    return np.stack([decode_image(data, preprocessing) for data in photograph_files()])
