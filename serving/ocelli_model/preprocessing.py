"""From the bytes of an image to the pixels that a backbone takes.

The one description, `Preprocessing`, travels with backbone and artifact, so that trainer, inference server and exports cannot
differ. Scaling happens here; normalisation (`mean`, `standard_deviation`) is part of the network. Nothing here knows networks.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import CLASSIFY_KINDS, IMAGE_BYTES_LIMIT, MEGABYTE, ImageKind, image_kind

SIDE_LIMIT_PIXELS = 10
"""The shortest side that an image may have."""
PIXELS_LIMIT = 100_000_000

# Pillow's own limit is lower and warns; ours refuses, by the same check of every frame's header.
Image.MAX_IMAGE_PIXELS = PIXELS_LIMIT

_NOT_AN_IMAGE = "Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF, and ZIP."
_TOO_SMALL = "Image resolution is smaller than the minimum limit"
_ORIENTATION_TAG = 0x0112
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
# Where an image is longer than this times its breadth, what a centre crop cannot show is cut off before scaling: scaled to 256
# pixels of breadth a strip of 10 x 100,000 would have 655 megapixels.
STRIP_RATIO = 16
ENLARGED_PART = 0.8
# Before the filter, a decoder may scale a JPEG down to so many times the wanted size, and any image may be shrunk by whole
# factors down to so many times it. This bounds the work for large images, and features hardly notice.
_DECODER_HEADROOM, _REDUCING_GAP = 2, 3.0
# Some networks do notice, and must answer as their makers' code does: up to 3,000 pixels a side are left to the filter.
_EXACT_DECODER_HEADROOM, _EXACT_REDUCING_GAP = 12, 6.0
_BAND_PIXELS = 1_000_000
# What Pillow's readers raise over damaged bytes, found by reading them and by fuzzing.
_MALFORMED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class ImageError(Exception):
    """An image cannot be predicted or learned from. The message is fit for the user who sent it."""

    def __init__(self, kind: ImageFault, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ResizeMode(StrEnum):
    """How an image of any shape comes to the backbone's shape."""

    SQUASH = "Squash"
    """Scaled to height and width, each on its own."""
    SHORT_SIDE_CROP = "ShortSideCrop"
    """Scaled so that the shorter side is `short_side_pixels`, then the centre is cut out."""
    SQUASH_CROP = "SquashCrop"
    """Both sides scaled to `short_side_pixels`, each on its own, then the centre is cut out. To the bit what Pillow's `resize`
    and `crop` give, for images of up to 3,000 pixels a side.
    """


class Interpolation(StrEnum):
    """The filter of the resize; all of them average over the source pixels when they shrink (antialiasing)."""

    BILINEAR = "Bilinear"
    BICUBIC = "Bicubic"


_Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

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
    """Of the scaled image before the centre is cut out; None for `SQUASH`, which cuts nothing."""
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    standard_deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if (self.resize is ResizeMode.SQUASH) != (self.short_side_pixels is None):
            raise ValueError(f"preprocessing: short_side_pixels is for modes that crop: all but {ResizeMode.SQUASH}")
        if self.short_side_pixels is not None and self.short_side_pixels < max(self.height, self.width):
            raise ValueError("preprocessing: short_side_pixels is less than the crop; raise it or choose a smaller crop")

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "resize": str(self.resize),
            "interpolation": str(self.interpolation),
            "mean": list(self.mean),
            "standardDeviation": list(self.standard_deviation),
        }
        if self.short_side_pixels is not None:
            document["shortSidePixels"] = self.short_side_pixels
        return document

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Type a stored description.

        Raises:
            KeyError, ValueError, TypeError: it is none.
        """
        red, green, blue = (float(value) for value in document["mean"])
        deviations = tuple(float(value) for value in document["standardDeviation"])
        return cls(
            height=int(document["height"]),
            width=int(document["width"]),
            resize=ResizeMode(document["resize"]),
            short_side_pixels=document.get("shortSidePixels"),
            interpolation=Interpolation(document["interpolation"]),
            mean=(red, green, blue),
            standard_deviation=(deviations[0], deviations[1], deviations[2]),
        )

    @property
    def _decoder_headroom(self) -> int:
        return _EXACT_DECODER_HEADROOM if self.resize is ResizeMode.SQUASH_CROP else _DECODER_HEADROOM

    @property
    def _reducing_gap(self) -> float:
        return _EXACT_REDUCING_GAP if self.resize is ResizeMode.SQUASH_CROP else _REDUCING_GAP

    def _kept_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the middle part that is scaled, for an upright image of that size: all of it but for strips."""
        if self.resize is not ResizeMode.SHORT_SIDE_CROP:
            return height, width
        limit = STRIP_RATIO * min(height, width)
        return min(height, limit), min(width, limit)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling and before cropping, for an upright part of that size."""
        if self.short_side_pixels is None:
            return self.height, self.width
        if self.resize is ResizeMode.SQUASH_CROP:
            return self.short_side_pixels, self.short_side_pixels
        if height <= width:
            return self.short_side_pixels, max(self.width, int(self.short_side_pixels * width / height))
        return max(self.height, int(self.short_side_pixels * height / width)), self.short_side_pixels


def decode_image(data: bytes, preprocessing: Preprocessing, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> NDArray[np.uint8]:
    """Decode an image and bring it to the backbone's size. Safe to call from several threads.

    The kind is told by content; `kinds` are those accepted. Orientation by EXIF is applied, transparency lies on white, of
    several frames the first counts. Work and memory are bounded: the size is judged by the header, before decoding, and beside
    the decoded image itself (at most 4 bytes a pixel, and what its decoder needs) nothing is held in its full size.

    Returns:
        uint8[height, width, 3], red, green, blue; a pure function of bytes and preprocessing.

    Raises:
        ImageError: see its `kind`.
    """
    if len(data) > IMAGE_BYTES_LIMIT:
        raise ImageError(
            ImageFault.TOO_LARGE,
            f"Image has {len(data) / MEGABYTE:.1f} MB; the limit is {IMAGE_BYTES_LIMIT // MEGABYTE} MB",
        )
    kind = image_kind(data)
    if kind is None or kind not in kinds:
        raise ImageError(ImageFault.NOT_AN_IMAGE, _NOT_AN_IMAGE)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            _refuse_size(*image.size)
            # Pillow applies a TIFF's orientation itself, to its size already.
            orientation = 1 if kind is ImageKind.TIFF else _orientation(image)
            height, width = (image.width, image.height) if orientation in _SIDES_SWAPPED else (image.height, image.width)
            kept = preprocessing._kept_size(height, width)
            scaled = preprocessing._scaled_size(*kept)
            parts = (kept[0] / height, kept[1] / width)
            stored, parts = (scaled[::-1], parts[::-1]) if orientation in _SIDES_SWAPPED else (scaled, parts)
            least = (stored[0] * preprocessing._decoder_headroom, stored[1] * preprocessing._decoder_headroom)
            pixels = _decode_plain_jpeg(data, least) if kind is ImageKind.JPEG and image.mode in ("RGB", "L") else None
            decoded = Image.fromarray(pixels) if pixels is not None else _decode_any(image, least)
            box, resampling = _middle(decoded, parts), _FILTERS[preprocessing.interpolation]
            upright = _resized(decoded, box, stored, resampling, preprocessing._reducing_gap)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, _too_many_pixels()) from error
    except _MALFORMED as error:
        raise ImageError(ImageFault.CORRUPT, _NOT_AN_IMAGE) from error
    if orientation in _TRANSPOSITIONS:
        upright = upright.transpose(_TRANSPOSITIONS[orientation])
    # Rounded as torchvision's centre crop does.
    top, left = round((scaled[0] - preprocessing.height) / 2), round((scaled[1] - preprocessing.width) / 2)
    return np.ascontiguousarray(np.asarray(upright)[top : top + preprocessing.height, left : left + preprocessing.width])


def mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images flipped left to right, for training. uint8[..., height, width, 3] to the same."""
    return np.ascontiguousarray(images[..., ::-1, :])


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of images, `ENLARGED_PART` of each side, as large as the whole, for training. uint8[N, height, width, 3]."""
    views = np.empty_like(images)
    height, width = images.shape[1:3]
    rows, columns = int(height * ENLARGED_PART), int(width * ENLARGED_PART)
    top, left = (height - rows) / 2, (width - columns) / 2
    for index, image in enumerate(images):
        box = (left, top, left + columns, top + rows)
        views[index] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))
    return views


def _refuse_size(width: int, height: int) -> None:
    if min(width, height) < SIDE_LIMIT_PIXELS:
        raise ImageError(ImageFault.TOO_SMALL, _TOO_SMALL)
    if width * height > PIXELS_LIMIT:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, _too_many_pixels(width * height))


def _too_many_pixels(pixels: int | None = None) -> str:
    limit = f"{PIXELS_LIMIT // 1_000_000} megapixels"
    return f"Image has more than {limit}" if pixels is None else f"Image has {pixels / 1e6:.1f} of at most {limit}"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except _MALFORMED:
        # Damaged EXIF data say nothing about the pixels: viewers show such an image as stored.
        return 1
    return value if isinstance(value, int) else 1


def _decode_plain_jpeg(data: bytes, least: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode with scaling by DCT, to at least such a height and width so that the filter still has a choice.

    None where the bytes are not flawless: Pillow then decides what is a blemish and what is a cut-off file.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=least[0], min_width=least[1], min_factor=1
        )
    except ValueError:
        return None
    return pixels


def _decode_any(image: Image.Image, least: tuple[int, int]) -> Image.Image:
    """The first frame, decoded completely, in whatever mode the file has; a JPEG with scaling as above."""
    image.draft(None, (least[1], least[0]))
    image.load()
    return image


def _middle(image: Image.Image, parts: tuple[float, float]) -> _Box:
    """The middle of an image: such parts, 0 to 1, of its height and width."""
    height, width = round(image.height * parts[0]), round(image.width * parts[1])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return left, top, left + width, top + height


def _resized(
    image: Image.Image, box: _Box, size: tuple[int, int], resampling: Image.Resampling, reducing_gap: float
) -> Image.Image:
    """A part of a decoded image of any mode as RGB of a height and width.

    To the bit what Pillow's `resize` with a `reducing_gap` makes of a copy that was converted first. Such copies of an image
    of 100 megapixels took 2 GB; here it is converted and reduced band by band.
    """
    height, width = size
    box_height, box_width = box[3] - box[1], box[2] - box[0]
    factors = max(1, int(box_width / width / reducing_gap)), max(1, int(box_height / height / reducing_gap))
    white = _white_level(image)
    if factors == (1, 1):
        small = _coloured(image.crop(box), white)
        if small.size != (width, height):
            small = small.resize((width, height), resampling)
    else:
        reduced_box = (0, 0, box_width / factors[0], box_height / factors[1])
        small = _reduced(image, box, factors, white).resize((width, height), resampling, box=reduced_box)
        if small.mode == "RGBa":
            small = small.convert("RGBA")
    if small.mode != "RGBA":
        return small
    # On white only now: resizing weighs colours by their opacity.
    return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")


def _reduced(image: Image.Image, box: _Box, factors: tuple[int, int], white: float) -> Image.Image:
    """A part of an image as RGB or, where it has transparency, RGBa, shrunk by whole factors for width and height."""
    left, top, right, bottom = box
    # Bands begin where a reduced row does.
    band_rows = factors[1] * max(1, _BAND_PIXELS // ((right - left) * factors[1]))
    bands = []
    for row in range(top, bottom, band_rows):
        band = _coloured(image.crop((left, row, right, min(row + band_rows, bottom))), white)
        bands.append((band.convert("RGBa") if band.mode == "RGBA" else band).reduce(factors))
    reduced = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    row = 0
    for band in bands:
        reduced.paste(band, (0, row))
        row += band.height
    return reduced


def _coloured(image: Image.Image, white: float) -> Image.Image:
    """The same as RGB, or as RGBA where it has transparency."""
    mode = image.mode
    if mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), white)).convert("RGB")
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image if mode == "RGBA" else image.convert("RGBA")
    return image if mode == "RGB" else image.convert("RGB")


def _white_level(image: Image.Image) -> float:
    """The grey value that counts as white in an image of more than 8 bits.

    Integers are taken as 16-bit ones, which is what files hold; floating point as 0 to 1 if nothing is above, else 0 to 255,
    else 0 to 65,535.
    """
    if not image.mode.startswith("F"):
        return 65535.0
    rows = max(1, _BAND_PIXELS // image.width)
    bands = (image.crop((0, row, image.width, min(row + rows, image.height))) for row in range(0, image.height, rows))
    highest = max(float(_finite(np.asarray(band)).max()) for band in bands)
    return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _eight_bits(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits, or floating point, as uint8[height, width]; see `_white_level`."""
    if values.dtype.kind == "f":
        scaled: NDArray[Any] = _finite(values) * (255.0 / white)
    else:
        scaled = np.clip(values, 0, 65535).astype(np.uint16) >> 8
    eight_bits: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return eight_bits


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
