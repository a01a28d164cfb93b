"""Pictures that tests draw, or make from the two photographs of scikit-learn, and their features by the installed network."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import Precision
from ocelli_model.engine import Engine, load_engine
from ocelli_model.preprocessing import decode_image
from ocelli_training.near_duplicates import fingerprints
from tests.installed_backbone import installed_backbone

SIZE = (240, 240)
_SEEN_PART = 7 / 8
"""The share of both sides, from the middle, that preprocessing keeps."""
_BATCH_IMAGES = 32


def find_features(files: Sequence[bytes]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Fingerprints and the network's features of image files."""
    preprocessing = installed_backbone().metadata.preprocessing
    images = np.stack([decode_image(data, preprocessing) for data in files])
    batches = [images[start : start + _BATCH_IMAGES] for start in range(0, len(images), _BATCH_IMAGES)]
    return fingerprints(images), np.concatenate([_engine().features(batch) for batch in batches])


def save(picture: Image.Image, quality: int = 92) -> bytes:
    """A JPEG."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


@functools.cache
def photographs() -> tuple[Image.Image, Image.Image]:
    """A temple, and a flower; the middle of both."""
    temple, flower = (ImageOps.fit(Image.fromarray(pixels), (427, 427)) for pixels in load_sample_images().images)
    return temple, flower


def textured(seed: int) -> Image.Image:
    """Coloured clouds of several sizes, others for each seed."""
    random = np.random.default_rng(seed)
    sums = np.zeros((SIZE[1], SIZE[0], 3))
    for cells, weight in ((3, 1.0), (8, 0.6), (24, 0.4), (80, 0.25)):
        for channel in range(3):
            coarse = Image.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
            sums[..., channel] += weight * np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(128 + 45 * sums, 0, 255).astype(np.uint8))


def take_burst(scene: Image.Image, count: int, *, seed: int = 0, largest_move: float = 0.02) -> list[bytes]:
    """One scene several times: the camera moves by a part of its sides, exposure and JPEG quality vary."""
    random, (width, height) = np.random.default_rng(seed), scene.size
    files = []
    for _ in range(count):
        left, top = random.uniform(0, 2 * largest_move, 2) * scene.size
        box = (left, top, left + (1 - 2 * largest_move) * width, top + (1 - 2 * largest_move) * height)
        picture = scene.resize(SIZE, Image.Resampling.BICUBIC, box=box)
        files.append(save(ImageEnhance.Brightness(picture).enhance(random.uniform(0.9, 1.1)), int(random.integers(60, 96))))
    return files


def take_from_fixed_camera(scene: Image.Image, count: int, *, object_part: float, seed: int = 0) -> list[bytes]:
    """One scene with a different object in the foreground of each picture. Its side is a share of the picture's."""
    random = np.random.default_rng(seed)
    side, unseen = int(SIZE[0] * object_part), SIZE[0] * (1 - _SEEN_PART) / 2
    files = []
    for _ in range(count):
        picture = scene.resize(SIZE, Image.Resampling.BICUBIC)
        thing = _draw_object(random, side)
        left, top = random.uniform(unseen, SIZE[0] - unseen - side, 2)
        picture.paste(thing, (int(left), int(top)), thing)
        noisy = np.asarray(picture) + random.normal(0, 2, (SIZE[1], SIZE[0], 3))
        files.append(save(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))))
    return files


def draw_arrow(seed: int, *, left: bool) -> Image.Image:
    """A dark arrow of any size, place, thickness and shape on light and noisy paper, to the left or to the right."""
    random, side = np.random.default_rng((seed, left)), 160
    length, thickness = random.uniform(70, 120), random.uniform(6, 16)
    head, spread = random.uniform(0.3, 0.45) * length, random.uniform(0.22, 0.35) * length
    tail, height = random.uniform(15, side - 15 - length), random.uniform(15 + spread, side - 15 - spread)
    paper, ink = (int(random.integers(*bounds)) for bounds in ((215, 256), (0, 90)))
    # Twice as large, and then made smaller, so that edges are soft.
    picture = Image.new("L", (2 * side, 2 * side), paper)
    draw = ImageDraw.Draw(picture)

    def placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(2 * (side - across if left else across), 2 * down) for across, down in points]

    tip = tail + length
    draw.line(placed([(tail, height), (tip - 0.6 * head, height)]), fill=ink, width=int(2 * thickness))
    draw.polygon(placed([(tip, height), (tip - head, height - spread), (tip - head, height + spread)]), fill=ink)
    pixels = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
    return Image.fromarray(np.clip(pixels + random.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8))


def _draw_object(random: np.random.Generator, side: int) -> Image.Image:
    """A coloured shape on nothing."""
    picture = Image.new("RGBA", (4 * side, 4 * side), (0, 0, 0, 0))
    draw, colour = ImageDraw.Draw(picture), tuple(int(value) for value in random.integers(0, 256, 3))
    match random.integers(3):
        case 0:
            draw.ellipse((0, 0, 4 * side - 1, 4 * side - 1), fill=colour)
        case 1:
            draw.polygon([(float(x), float(y)) for x, y in random.uniform(0, 4 * side, (6, 2))], fill=colour)
        case _:
            draw.rectangle((0, side, 4 * side - 1, 3 * side), fill=colour)
            draw.rectangle((side, 0, 2 * side, 4 * side - 1), fill=tuple(255 - value for value in colour))
    return picture.resize((side, side), Image.Resampling.BICUBIC)


@functools.cache
def _engine() -> Engine:
    return load_engine(installed_backbone(), threads=2, device=Accelerator.CPU, precision=Precision.FLOAT32)
