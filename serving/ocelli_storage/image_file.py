"""Image files, opened and decoded in one way by trainer, inference server and gateway.

What is not an image, cannot be decoded rightly, or is too large is refused here.
Work and memory are bounded: sizes are judged by headers, and next to the decoded image (at most 4 bytes a pixel, and what its
decoder needs) nothing is held in its full size. It must not know what the pixels are for.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImagePalette, TiffImagePlugin

from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import CLASSIFY_KINDS, IMAGE_BYTES_LIMIT, MEGABYTE, ImageKind, image_kind

SIDE_LIMIT_PIXELS = 10
"""The shortest side that an image may have."""
PIXELS_LIMIT = 100_000_000

# Pillow's own limit is lower and warns; ours refuses, by the same check of every frame's header.
Image.MAX_IMAGE_PIXELS = PIXELS_LIMIT
# It warns of every flaw in a TIFF: that would be a line in the log per image.
warnings.filterwarnings("ignore", module="PIL")

INVALID_IMAGE = "Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF, and ZIP."
TOO_SMALL = "Image resolution is smaller than the minimum limit"
_ORIENTATION_TAG = 0x0112
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

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


class ImageError(Exception):
    """An image cannot be predicted or learned from. The message is fit for the user who sent it."""

    def __init__(self, kind: ImageFault, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def open_image(data: bytes, kinds: Collection[ImageKind] = CLASSIFY_KINDS) -> Iterator[ImageFile]:
    """The image in the bytes of a file, of which nothing but the header has been read. The kind is told by content.

    Raises:
        ImageError: it is none of these kinds, or too large or too small; or what is done in the context meets damaged bytes.
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
        data = _without_large_texts(data)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check_size(*image.size)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _check_tiff(image)
            yield ImageFile(data, kind, image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, _too_many_pixels()) from error
    except _MALFORMED as error:
        raise _corrupt() from error


class ImageFile:
    """One opened file; see `open_image`."""

    def __init__(self, data: bytes, kind: ImageKind, image: Image.Image) -> None:
        self.kind = kind
        self._data = data
        self._image = image
        self.width, self.height = image.size
        """As stored: before `orientation` is applied."""

    @property
    def orientation(self) -> int:
        """As EXIF has it, 1 to 8: how the decoded image must be turned."""
        # Pillow applies a TIFF's orientation itself, to its size already.
        if self.kind is ImageKind.TIFF:
            return 1
        try:
            value = self._image.getexif().get(_ORIENTATION_TAG)
        except _MALFORMED:
            # Damaged EXIF data say nothing about the pixels: viewers show such an image as stored.
            return 1
        return value if isinstance(value, int) else 1

    def decoding_pixels(self, least: tuple[int, int]) -> int:
        """How much memory `load` takes, in pixels of 4 bytes."""
        if self.kind is not ImageKind.JPEG:
            return self.width * self.height
        scale = self._jpeg_scale(least)
        decoded = -(-self.width // scale) * -(-self.height // scale)
        return decoded + _jpeg_coefficient_bytes(self._data) // 4

    def load(self, least: tuple[int, int]) -> DecodedImage:
        """The first frame, decoded. A JPEG may come scaled down, to at least such a height and width."""
        if self.kind is ImageKind.JPEG:
            return DecodedImage(self._load_jpeg(least))
        self._image.load()
        if not isinstance(self._image, TiffImagePlugin.TiffImageFile):
            return DecodedImage(self._image)
        tags = self._image.tag_v2
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
        inverted = self._image.mode == "I;16" and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
        decoded = DecodedImage(self._image, grey_bits=min(bits, 16), inverted=inverted)
        decoded.check_greys()
        return decoded

    def _jpeg_scale(self, least: tuple[int, int]) -> int:
        room = min(self.height // least[0], self.width // least[1])
        return next((scale for scale in (8, 4, 2) if room >= scale), 1)

    def _load_jpeg(self, least: tuple[int, int]) -> Image.Image:
        plain = self._image.mode in ("RGB", "L")
        pixels = _decode_flawless_jpeg(self._data, least) if plain else None
        if pixels is not None:
            return Image.fromarray(pixels)
        try:
            return _loaded(self._image, least)
        except OSError:
            whole = self._data + _END_OF_IMAGE
            # All pixels are there, only the mark of the end is missing: many a phone and download leaves it out.
            if not _lacks_only_its_end(self._data, whole, least, colours="RGB" if plain else "CMYK"):
                raise
        with Image.open(io.BytesIO(whole), formats=[ImageKind.JPEG]) as image:
            return _loaded(image, least)


class DecodedImage:
    """A decoded image of any mode."""

    def __init__(self, image: Image.Image, *, grey_bits: int = 16, inverted: bool = False) -> None:
        """`grey_bits` are those of integers of more than 8 bits; where it is `inverted`, their 0 is white."""
        self._image = image
        self._grey_bits = grey_bits
        self._inverted = inverted
        self.width, self.height = image.size

    def check_greys(self) -> None:
        """Raises ValueError where integers have more than the 16 bits that they are taken for: nothing tells what is white."""
        if self._image.mode == "I" and not all(values.min() >= 0 and values.max() <= 65535 for values in self._bands()):
            raise ValueError("grey values of more than 16 bits")

    def resized(self, box: Box, size: tuple[int, int], resampling: Image.Resampling, reducing_gap: float) -> Image.Image:
        """A part of the image as RGB of a height and width, transparent parts white.

        To the bit what Pillow's `resize` with a `reducing_gap` makes of a copy that was converted first. Such copies of an
        image of 100 megapixels took 2 GB; here it is converted and reduced band by band.
        """
        height, width = size
        box_height, box_width = box[3] - box[1], box[2] - box[0]
        factors = max(1, int(box_width / width / reducing_gap)), max(1, int(box_height / height / reducing_gap))
        white = self._white_level()
        if factors == (1, 1):
            small = self._coloured(self._image.crop(box), white)
            if small.size != (width, height):
                small = small.resize((width, height), resampling)
        else:
            reduced_box = (0, 0, box_width / factors[0], box_height / factors[1])
            small = self._reduced(box, factors, white).resize((width, height), resampling, box=reduced_box)
            if small.mode == "RGBa":
                small = small.convert("RGBA")
        if small.mode != "RGBA":
            return small
        # On white only now: resizing weighs colours by their opacity.
        return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")

    def _reduced(self, box: Box, factors: tuple[int, int], white: float) -> Image.Image:
        """A part as RGB or, where it has transparency, RGBa, shrunk by whole factors for width and height."""
        left, top, right, bottom = box
        # Bands begin where a reduced row does.
        band_rows = factors[1] * max(1, _BAND_PIXELS // ((right - left) * factors[1]))
        bands = []
        for row in range(top, bottom, band_rows):
            band = self._coloured(self._image.crop((left, row, right, min(row + band_rows, bottom))), white)
            bands.append((band.convert("RGBa") if band.mode == "RGBA" else band).reduce(factors))
        reduced = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
        row = 0
        for band in bands:
            reduced.paste(band, (0, row))
            row += band.height
        return reduced

    def _coloured(self, image: Image.Image, white: float) -> Image.Image:
        """A part as RGB, or as RGBA where it has transparency."""
        mode = image.mode
        if mode.startswith(("I", "F")):
            return Image.fromarray(self._eight_bits(np.asarray(image), white)).convert("RGB")
        if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            return image if mode == "RGBA" else image.convert("RGBA")
        return image if mode == "RGB" else image.convert("RGB")

    def _white_level(self) -> float:
        """The value that counts as white in floating point: 1 if nothing is above, else 255, else 65,535."""
        if not self._image.mode.startswith("F"):
            return 65535.0
        highest = max(float(_finite(values).max()) for values in self._bands())
        return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0

    def _bands(self) -> Iterator[NDArray[Any]]:
        image = self._image
        rows = max(1, _BAND_PIXELS // image.width)
        for row in range(0, image.height, rows):
            yield np.asarray(image.crop((0, row, image.width, min(row + rows, image.height))))

    def _eight_bits(self, values: NDArray[Any], white: float) -> NDArray[np.uint8]:
        """Grey values of 16 or 32 bits, or floating point, as uint8[height, width]."""
        if values.dtype.kind == "f":
            scaled: NDArray[Any] = _finite(values) * (255.0 / white)
        else:
            scaled = np.clip(values, 0, 65535).astype(np.uint16) >> (self._grey_bits - 8)
        eight_bits: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
        return 255 - eight_bits if self._inverted else eight_bits


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


def _finite(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


# JPEG

_END_OF_IMAGE = b"\xff\xd9"
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN_HEADER = 0xDA
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Not those that stand between coefficients: stuffed zeros, and restarts. Of a run of 0xFF the last one begins it: to match
them all would take quadratic time."""
_COEFFICIENTS = 64


@dataclass(frozen=True, kw_only=True)
class _JpegSegment:
    marker: int
    body: bytes


def _jpeg_segments(data: bytes) -> Iterator[_JpegSegment]:
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        marker, start = found[1][0], found.end()
        if marker in (0x01, 0xD8, 0xD9):
            position = start
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        yield _JpegSegment(marker=marker, body=data[start + 2 : start + length])
        position = start + max(length, 2)


def _jpeg_coefficient_bytes(data: bytes) -> int:
    """What a decoder keeps of the whole image, however small it decodes it: nothing, unless it comes in several scans."""
    frame: _JpegSegment | None = None
    for segment in _jpeg_segments(data):
        if segment.marker in _FRAME_HEADERS:
            frame = segment
        elif segment.marker == _SCAN_HEADER:
            if frame is None or len(frame.body) < 6 or not segment.body:
                return 0
            components = frame.body[5]
            if frame.marker not in _PROGRESSIVE_FRAMES and segment.body[0] == components:
                return 0
            height, width = struct.unpack(">HH", frame.body[1:5])
            factors = [(byte >> 4, byte & 15) for byte in frame.body[7 : 6 + 3 * components : 3]]
            largest = max((across for across, _ in factors), default=1) * max((down for _, down in factors), default=1)
            samples = sum(across * down for across, down in factors) / max(largest, 1)
            return int(width * height * samples * 2)
    return 0


def _is_refined(data: bytes) -> bool:
    """Whether the scans of a JPEG give all bits of all coefficients: the last scan of a progressive one may be missing."""
    missing: dict[int, list[int]] = {}
    for segment in _jpeg_segments(data):
        body = segment.body
        if segment.marker in _FRAME_HEADERS:
            if segment.marker not in _PROGRESSIVE_FRAMES:
                return True
            missing = {identifier: [_COEFFICIENTS] * _COEFFICIENTS for identifier in body[6::3]}
        elif segment.marker == _SCAN_HEADER and body and len(body) >= 4 + 2 * body[0]:
            count = body[0]
            first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
            for identifier in body[1 : 1 + 2 * count : 2]:
                bits = missing.get(identifier, [])
                bits[first : last + 1] = [low] * len(bits[first : last + 1])
    return not any(any(bits) for bits in missing.values())


def _decode_flawless_jpeg(data: bytes, least: tuple[int, int], colours: str = "RGB") -> NDArray[np.uint8] | None:
    """Decode with scaling by DCT, to at least such a height and width so that the filter still has a choice.

    None where the bytes are not flawless: Pillow then decides what is a blemish and what is a cut-off file.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace=colours, min_height=least[0], min_width=least[1], min_factor=1
        )
    except ValueError:
        return None
    return pixels


def _lacks_only_its_end(data: bytes, whole: bytes, least: tuple[int, int], *, colours: str) -> bool:
    return _is_refined(data) and _decode_flawless_jpeg(whole, least, colours) is not None


def _loaded(image: Image.Image, least: tuple[int, int]) -> Image.Image:
    image.draft(None, (least[1], least[0]))
    image.load()
    return image


# PNG

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_BYTES = 12
"""Of a chunk: its length, name and checksum."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""The texts that may say how the image must be turned."""
_PNG_TEXT_BYTES = MEGABYTE
"""A text that is longer says nothing about the orientation; Pillow would refuse the image for it."""
_PNG_KEPT_TEXTS = 8


def _without_large_texts(data: bytes) -> bytes:
    """A PNG without its colour profile and without texts, except those that are needed. Its pixels do not depend on them."""
    kept: list[memoryview] = []
    view, position, begin, texts = memoryview(data), _PNG_SIGNATURE_BYTES, 0, 0
    while position + _PNG_CHUNK_BYTES <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + _PNG_CHUNK_BYTES + length
        if name in _PNG_TEXTS or name == b"iCCP":
            needed = False
            # Those that are not kept count, too: to look at one takes as long.
            if name != b"iCCP" and texts < _PNG_KEPT_TEXTS and data.startswith(_PNG_ORIENTATION_TEXTS, position + 8):
                texts += 1
                needed = _is_needed_text(name, data[position + 8 : end - 4])
            if not needed:
                kept.append(view[begin:position])
                begin = min(end, len(data))
        position = end
    return b"".join([*kept, view[begin:]]) if begin else data


def _is_needed_text(name: bytes, body: bytes) -> bool:
    if not body.startswith(_PNG_ORIENTATION_TEXTS):
        return False
    _, _, rest = body.partition(b"\0")
    if name == b"zTXt":
        return _inflates_within(rest[1:])
    if name == b"iTXt" and rest[:1] == b"\1":
        _, _, text = rest[2:].partition(b"\0")
        return _inflates_within(text.partition(b"\0")[2])
    return len(rest) <= _PNG_TEXT_BYTES


def _inflates_within(compressed: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(compressed, _PNG_TEXT_BYTES + 1)) <= _PNG_TEXT_BYTES
    except zlib.error:
        return False


# TIFF

_WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_COLOUR_MAP, _INK_SET, _CODED_COLOURS, _SUBSAMPLING, _REFERENCE_LEVELS = 320, 332, 529, 530, 532
_FAX = ("group3", "group4", "tiff_ccitt")
_USUAL_COLOURS = (0.299, 0.587, 0.114)
_USUAL_LEVELS = (0, 255, 128, 255, 128, 255)


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse what Pillow reads wrongly: each of these was compared with what the specification says (`tests/unit/model/tiffs`).

    Raises:
        ImageError: it would be decoded to other colours than it has.
    """
    tags = image.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    sample_format = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
    compression = image.info.get("compression")
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    swapped = tags.prefix == TiffImagePlugin.MM and compression != "raw"
    wrong = (
        # Without it, only faxes have a usual meaning.
        (photometric is None and compression not in _FAX)
        or (photometric == _WHITE_IS_ZERO and bits == 32)
        # Nothing tells which value is white.
        or (sample_format == _SIGNED and bits <= 16)
        or (sample_format == _UNSIGNED and bits == 32)
        or (sample_format in (_SIGNED, _FLOAT) and swapped)
        or (planes and image.mode in ("LA", "La", "PA", "LAB"))
        or (planes and bits == 16 and image.mode in ("RGB", "RGBA", "CMYK") and compression == "raw")
        or (planes and tags.get(TiffImagePlugin.FILLORDER, 1) == 2)
        or (photometric == _CMYK and tags.get(_INK_SET, 1) != 1)
        or (photometric == _YCBCR and compression == "raw" and not _has_usual_coding(tags, 3 * image.width * image.height))
    )
    if wrong:
        raise _corrupt()
    colours = tags.get(_COLOUR_MAP)
    # Some programs write 8 bits where there are 16; without this such an image is black.
    if image.mode in ("P", "PA") and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _has_usual_coding(tags: TiffImagePlugin.ImageFileDirectory_v2, size_bytes: int) -> bool:
    """Whether Y, Cb and Cr are coded as in JPEG, each of its own for every pixel: then they have so many bytes."""
    counts = tags.get(TiffImagePlugin.STRIPBYTECOUNTS) or tags.get(TiffImagePlugin.TILEBYTECOUNTS) or (0,)
    colours = [float(value) for value in tags.get(_CODED_COLOURS, _USUAL_COLOURS)]
    levels = [float(value) for value in tags.get(_REFERENCE_LEVELS, _USUAL_LEVELS)]
    return (
        sum(counts) >= size_bytes
        and tuple(tags.get(_SUBSAMPLING, (1, 1))) == (1, 1)
        and np.allclose(colours, _USUAL_COLOURS, atol=1e-3)
        and np.allclose(levels, _USUAL_LEVELS)
    )
