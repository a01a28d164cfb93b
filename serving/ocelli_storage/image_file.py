"""Image files, opened and decoded in the same way by trainer, inference server and gateway.

This module refuses what is not an image, what is too large, and what would be decoded incorrectly. Work and memory are bounded:
sizes come from headers, and the decoded image (at most 4 bytes a pixel, plus what its decoder needs) is the only thing held at
full size. It must not know what the pixels are for.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from PIL import Image, TiffImagePlugin

from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import CLASSIFY_KINDS, IMAGE_BYTES_LIMIT, MEGABYTE, ImageKind, image_kind
from ocelli_storage.decoded_image import DecodedImage
from ocelli_storage.jpeg import END_OF_IMAGE, coefficient_bytes, decode_flawless, has_all_bits
from ocelli_storage.png_texts import without_large_texts
from ocelli_storage.tiff import WHITE_IS_ZERO, is_decoded_correctly, repair_palette

SIDE_LIMIT_PIXELS = 10
"""The minimum length of the shorter side."""
PIXELS_LIMIT = 100_000_000

# Pillow's own limit is lower, and it only warns. With this limit it refuses, after checking the header of every frame.
Image.MAX_IMAGE_PIXELS = PIXELS_LIMIT
# Pillow warns about every flaw in a TIFF, which would be a log line per image.
warnings.filterwarnings("ignore", module="PIL")

INVALID_IMAGE = "Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF, and ZIP."
TOO_SMALL = "Image resolution is smaller than the minimum limit"
_ORIENTATION_TAG = 0x0112
# Raised by Pillow's readers when bytes are damaged; found by reading their code and by fuzzing.
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
    """An image cannot be used for prediction or training. The message can be shown to the user who sent the image."""

    def __init__(self, kind: ImageFault, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def open_image(data: bytes, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> Iterator[ImageFile]:
    """Open an image file from its bytes, reading only the header. The content determines its kind.

    Raises:
        ImageError: it is not an image of these kinds, is too large or too small, or is damaged. Damage may be found only in the
            context.
    """
    if len(data) > IMAGE_BYTES_LIMIT:
        raise ImageError(
            ImageFault.TOO_LARGE,
            f"Image has {len(data) / MEGABYTE:.1f} MB; the limit is {IMAGE_BYTES_LIMIT // MEGABYTE} MB",
        )
    kind = image_kind(data)
    if kind is None or kind not in kinds:
        raise ImageError(ImageFault.NOT_AN_IMAGE, INVALID_IMAGE)
    if kind is ImageKind.PNG:
        data = without_large_texts(data)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check_size(*image.size)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                if not is_decoded_correctly(image):
                    raise _corrupt()
                repair_palette(image)
            yield ImageFile(data, kind, image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, _too_many_pixels()) from error
    except _MALFORMED as error:
        raise _corrupt() from error


class ImageFile:
    """An opened file, see `open_image`."""

    def __init__(self, data: bytes, kind: ImageKind, image: Image.Image) -> None:
        self.kind = kind
        self._data = data
        self._image = image
        self.width, self.height = image.size
        """As stored, before `orientation` is applied."""

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8: how the decoded image must be turned."""
        # Pillow applies the orientation of a TIFF itself, including to its size.
        if self.kind is ImageKind.TIFF:
            return 1
        try:
            value = self._image.getexif().get(_ORIENTATION_TAG)
        except _MALFORMED:
            # Damaged EXIF data does not affect the pixels: viewers show such an image as stored.
            return 1
        return value if isinstance(value, int) else 1

    def decoding_pixels(self, least: tuple[int, int]) -> int:
        """The memory that `load` takes, in pixels of 4 bytes."""
        if self.kind is not ImageKind.JPEG:
            return self.width * self.height
        scale = self._jpeg_scale(least)
        decoded = -(-self.width // scale) * -(-self.height // scale)
        return decoded + coefficient_bytes(self._data) // 4

    def load(self, least: tuple[int, int]) -> DecodedImage:
        """The first frame, decoded. A JPEG may be scaled down, to at least this height and width."""
        if self.kind is ImageKind.JPEG:
            return DecodedImage(self._load_jpeg(least))
        self._image.load()
        if not isinstance(self._image, TiffImagePlugin.TiffImageFile):
            return DecodedImage(self._image)
        tags = self._image.tag_v2
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
        inverted = self._image.mode == "I;16" and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
        decoded = DecodedImage(self._image, grey_bits=min(bits, 16), inverted=inverted)
        decoded.check_greys()
        return decoded

    def _jpeg_scale(self, least: tuple[int, int]) -> int:
        room = min(self.height // least[0], self.width // least[1])
        return next((scale for scale in (8, 4, 2) if room >= scale), 1)

    def _load_jpeg(self, least: tuple[int, int]) -> Image.Image:
        plain = self._image.mode in ("RGB", "L")
        pixels = decode_flawless(self._data, least) if plain else None
        if pixels is not None:
            return Image.fromarray(pixels)
        try:
            return _loaded(self._image, least)
        except OSError:
            whole = self._data + END_OF_IMAGE
            # Phones and downloads often leave out the end marker. That is fine if all pixels are there.
            if not has_all_bits(self._data) or decode_flawless(whole, least, "RGB" if plain else "CMYK") is None:
                raise
        with Image.open(io.BytesIO(whole), formats=[ImageKind.JPEG]) as image:
            return _loaded(image, least)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < SIDE_LIMIT_PIXELS:
        raise ImageError(ImageFault.TOO_SMALL, TOO_SMALL)
    if width * height > PIXELS_LIMIT:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, _too_many_pixels(width * height))


def _too_many_pixels(pixels: int | None = None) -> str:
    limit = f"{PIXELS_LIMIT // 1_000_000} megapixels"
    return f"Image has more than {limit}" if pixels is None else f"Image has {pixels / 1e6:.1f} of at most {limit}"


def _corrupt() -> ImageError:
    return ImageError(ImageFault.CORRUPT, INVALID_IMAGE)


def _loaded(image: Image.Image, least: tuple[int, int]) -> Image.Image:
    image.draft(None, (least[1], least[0]))
    image.load()
    return image
