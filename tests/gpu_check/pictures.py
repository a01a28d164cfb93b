"""Pictures of three kinds, made of numbers: stripes, rings and squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("stripes", "rings", "squares")


def make_picture(kind: int, seed: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """uint8[height, width, 3]: stripes, rings or squares in random colours, sizes and places."""
    random = np.random.default_rng([kind, seed])
    rows, columns = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    rows, columns = rows - random.uniform(0.2, 0.8), columns - random.uniform(0.2, 0.8)
    angle, waves = random.uniform(0, np.pi), random.uniform(15, 40)
    along, across = rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)
    pattern = (
        np.sin(waves * along),
        np.sin(waves * np.hypot(rows, columns)),
        np.sign(np.sin(waves * along) * np.sin(waves * across)),
    )[kind]
    light, dark = random.uniform(120, 255, 3), random.uniform(0, 100, 3)
    shares = ((pattern + 1) / 2)[:, :, np.newaxis]
    pixels = light * shares + dark * (1 - shares) + random.normal(0, 8, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_pictures(count: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """uint8[count, height, width, 3], each a blend of two kinds, so that scores are between 0 and 1."""
    pictures = []
    for number in range(count):
        first, second = (
            make_picture(kind % len(CLASS_NAMES), 1000 + number, height=height, width=width).astype(np.float64)
            for kind in (number, number + 1)
        )
        share = np.random.default_rng(number).uniform()
        pictures.append((share * first + (1 - share) * second).astype(np.uint8))
    return np.stack(pictures)
