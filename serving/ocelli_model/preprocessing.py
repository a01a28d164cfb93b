"""From the bytes of an image to the pixels that a backbone takes.

Its description, `Preprocessing`, is stored with backbone and artifact, so that trainer, inference server and exports cannot
differ. Scaling is done here; normalisation (`mean`, `standard_deviation`) is part of the network. It must not know networks.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_storage.archives import CLASSIFY_KINDS, ImageKind
from ocelli_storage.decoded_image import Box, DecodedImage
from ocelli_storage.image_file import ImageFile, open_image

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = frozenset({5, 6, 7, 8})
# If an image is longer than this times its width, the parts outside the centre crop are cut off before scaling: a strip of
# 10 x 100,000 pixels, scaled to 256 pixels of width, would have 655 megapixels.
STRIP_RATIO = 16
ENLARGED_PART = 0.8
# Before the filter, a decoder may scale a JPEG down to this multiple of the target size, and any image may be shrunk by integer
# factors to the other multiple. This limits the work for large images, and hardly changes features.
_DECODER_HEADROOM, _REDUCING_GAP = 2, 3.0
# Some networks are sensitive to it, and must give the same results as their original code: for these, the filter alone scales
# images of up to 3,000 pixels a side.
_EXACT_DECODER_HEADROOM, _EXACT_REDUCING_GAP = 12, 6.0


class ResizeMode(StrEnum):
    """How an image of any shape is brought to the backbone's shape."""

    SQUASH = "Squash"
    """Scaled to height and width independently."""
    SHORT_SIDE_CROP = "ShortSideCrop"
    """Scaled so that the shorter side is `short_side_pixels`, then the centre is cropped."""
    SQUASH_CROP = "SquashCrop"
    """Both sides scaled to `short_side_pixels` independently, then the centre is cropped. Bit-identical to Pillow's `resize`
    and `crop` for images of up to 3,000 pixels a side.
    """


class Interpolation(StrEnum):
    """The filter for scaling; all filters average over the source pixels when they shrink an image (antialiasing)."""

    BILINEAR = "Bilinear"
    BICUBIC = "Bicubic"


_FILTERS = {Interpolation.BILINEAR: Image.Resampling.BILINEAR, Interpolation.BICUBIC: Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the input of a backbone.

    `mean` and `standard_deviation` are per channel (red, green, blue), on a scale of 0 to 1; the network applies them.
    """

    height: int
    width: int
    resize: ResizeMode = ResizeMode.SQUASH
    short_side_pixels: int | None = None
    """Of the scaled image before it is cropped; None for `SQUASH`, which does not crop."""
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    standard_deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if (self.resize is ResizeMode.SQUASH) != (self.short_side_pixels is None):
            raise ValueError(f"preprocessing: short_side_pixels is for modes that crop, all except {ResizeMode.SQUASH}")
        if self.short_side_pixels is not None and self.short_side_pixels < max(self.height, self.width):
            raise ValueError("preprocessing: short_side_pixels is less than the crop; raise it or choose a smaller crop")

    def gives_the_pixels_of(self, other: Preprocessing) -> bool:
        """Whether both give the same pixels of every image. Mean and standard deviation are the network's part."""
        return replace(self, mean=other.mean, standard_deviation=other.standard_deviation) == other

    @property
    def _decoder_headroom(self) -> int:
        return _EXACT_DECODER_HEADROOM if self.resize is ResizeMode.SQUASH_CROP else _DECODER_HEADROOM

    @property
    def _reducing_gap(self) -> float:
        return _EXACT_REDUCING_GAP if self.resize is ResizeMode.SQUASH_CROP else _REDUCING_GAP

    def _kept_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the middle part that is scaled, for an upright image of this size: the whole image, except for
        strips.
        """
        if self.resize is not ResizeMode.SHORT_SIDE_CROP:
            return height, width
        limit = STRIP_RATIO * min(height, width)
        return min(height, limit), min(width, limit)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling and before cropping, for an upright part of this size."""
        if self.short_side_pixels is None:
            return self.height, self.width
        if self.resize is ResizeMode.SQUASH_CROP:
            return self.short_side_pixels, self.short_side_pixels
        if height <= width:
            return self.short_side_pixels, max(self.width, int(self.short_side_pixels * width / height))
        return max(self.height, int(self.short_side_pixels * height / width)), self.short_side_pixels


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How one image is brought to the backbone's size. All sizes are heights and widths."""

    orientation: int
    scaled: tuple[int, int]
    """After scaling and before cropping, upright."""
    stored: tuple[int, int]
    """The same, in the orientation of the file."""
    parts: tuple[float, float]
    """The middle part that is scaled, 0 to 1 of height and width, in the orientation of the file."""
    least: tuple[int, int]
    """The minimum size to which the decoder may scale the image down."""


def _plan(image: ImageFile, preprocessing: Preprocessing) -> _Plan:
    orientation = image.orientation
    turned = orientation in _SIDES_SWAPPED
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    kept = preprocessing._kept_size(height, width)
    scaled = preprocessing._scaled_size(*kept)
    parts = (kept[0] / height, kept[1] / width)
    stored, parts = (scaled[::-1], parts[::-1]) if turned else (scaled, parts)
    least = (stored[0] * preprocessing._decoder_headroom, stored[1] * preprocessing._decoder_headroom)
    return _Plan(orientation=orientation, scaled=scaled, stored=stored, parts=parts, least=least)


class OpenedImage:
    """An image file whose header has been read, to be decoded once. From one thread at a time."""

    def __init__(self, data: bytes, preprocessing: Preprocessing, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> None:
        """`kinds` are the accepted kinds. Raises ImageError if the header is not that of an accepted image."""
        self._preprocessing = preprocessing
        with ExitStack() as context:
            self._image = context.enter_context(open_image(data, kinds))
            # In other kinds the orientation may be stored after the pixels.
            is_jpeg = self._image.kind is ImageKind.JPEG
            self.pixels = self._image.decoding_pixels(_plan(self._image, preprocessing).least if is_jpeg else (1, 1))
            """The memory that `decode` takes, in pixels of 4 bytes."""
            self.sides = (min(self._image.width, self._image.height), max(self._image.width, self._image.height))
            """Its shorter and its longer side in pixels, as stored."""
            self._context = context.pop_all()

    def decode(self) -> NDArray[np.uint8]:
        """Returns and raises the same as `decode_image`."""
        with self._context:
            plan = _plan(self._image, self._preprocessing)
            decoded = self._image.load(plan.least)
            resampling = _FILTERS[self._preprocessing.interpolation]
            middle = _middle(decoded, plan.parts)
            upright = decoded.resized(middle, plan.stored, resampling, self._preprocessing._reducing_gap)
        if plan.orientation in _TRANSPOSITIONS:
            upright = upright.transpose(_TRANSPOSITIONS[plan.orientation])
        height, width = self._preprocessing.height, self._preprocessing.width
        # Rounded as in torchvision's centre crop.
        top, left = round((plan.scaled[0] - height) / 2), round((plan.scaled[1] - width) / 2)
        return np.ascontiguousarray(np.asarray(upright)[top : top + height, left : left + width])


def decode_image(data: bytes, preprocessing: Preprocessing, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> NDArray[np.uint8]:
    """Decode an image and bring it to the backbone's size. Safe to call from several threads.

    `kinds` are the accepted kinds. The EXIF orientation is applied, transparent pixels become white, and only the first frame
    is used. Work and memory are bounded, see `ocelli_storage.image_file`.

    Returns:
        uint8[height, width, 3], red, green, blue; a pure function of bytes and preprocessing.

    Raises:
        ImageError: see its `kind`.
    """
    return OpenedImage(data, preprocessing, kinds).decode()


def mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images flipped left to right, for training. uint8[..., height, width, 3] to the same."""
    return np.ascontiguousarray(images[..., ::-1, :])


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of images, `ENLARGED_PART` of each side, scaled to the size of the image, for training. uint8[N, height,
    width, 3].
    """
    views = np.empty_like(images)
    height, width = images.shape[1:3]
    rows, columns = int(height * ENLARGED_PART), int(width * ENLARGED_PART)
    top, left = (height - rows) / 2, (width - columns) / 2
    for index, image in enumerate(images):
        box = (left, top, left + columns, top + rows)
        views[index] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))
    return views


def _middle(image: DecodedImage, parts: tuple[float, float]) -> Box:
    """The middle of an image: these parts, 0 to 1, of its height and width."""
    height, width = round(image.height * parts[0]), round(image.width * parts[1])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return left, top, left + width, top + height
