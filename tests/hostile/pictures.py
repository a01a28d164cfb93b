"""Unusual, damaged or malicious pictures: a function for each kind. Each picture knows its colour, if it has one."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from tests.unit.model.tiffs import (
    BLACK_IS_ZERO,
    CIELAB,
    HEIGHT,
    RGB,
    SIGNED,
    WIDTH,
    TiffKind,
    colours_of,
    every_kind,
    make_samples,
    make_tiff,
)

COLOURS = {
    "white color": (255, 255, 255),
    "black color": (0, 0, 0),
    "red color": (255, 0, 0),
    "green color": (0, 255, 0),
    "blue color": (0, 0, 255),
}
"""The names that `default` has for the colours of these pictures."""
SIDE = 10_000
"""The sides of a picture of 100 megapixels, the limit."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file, and its correct answers."""

    data: bytes
    kind: str = "plain"
    colours: frozenset[str]
    """Names, one of which is correct; if empty, only a refusal is."""
    may_be_refused: bool = False
    """Whether a refusal is also correct."""
    in_rgb: tuple[int, int, int] | None = None
    """The colour, if a name is not precise enough."""


def _shown(data: bytes, colour: str) -> Picture:
    return Picture(data=data, colours=frozenset({colour}))


def _refused(data: bytes) -> Picture:
    return Picture(data=data, colours=frozenset())


def draw_colour(draw: random.Random) -> tuple[str, Image.Image]:
    """A plain image of one of the colours, with its name."""
    name = draw.choice(list(COLOURS))
    return name, Image.new("RGB", (draw.randrange(10, 200), draw.randrange(10, 200)), COLOURS[name])


def encode(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def plain_png(draw: random.Random) -> Picture:
    name, image = draw_colour(draw)
    return _shown(encode(image, "PNG"), name)


def usual_modes(draw: random.Random) -> Picture:
    """Grey, palette, alpha, CMYK, GIF: all are valid."""
    name, image = draw_colour(draw)
    forms = [("P", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGBA", "TIFF")]
    if name in ("white color", "black color"):
        forms += [("1", "PNG"), ("L", "JPEG"), ("I;16", "PNG"), ("LA", "PNG")]
    mode, format_name = draw.choice(forms)
    if mode == "I;16":
        image = Image.fromarray(np.full((image.height, image.width), 257 * COLOURS[name][0], dtype=np.uint16))
    return _shown(encode(image if image.mode == mode else image.convert(mode), format_name), name)


def jpeg_without_its_end(draw: random.Random) -> Picture:
    """Every pixel is there; cameras and cut downloads leave out the last two bytes."""
    name, image = draw_colour(draw)
    data = encode(image, "JPEG", progressive=draw.random() < 0.3)
    return _shown(data[: -draw.choice([1, 2])], name)


def truncated_jpeg(draw: random.Random) -> Picture:
    noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG")
    return _refused(data[: draw.randrange(3, len(data) - 500)])


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with an additional chunk after its header."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    after_header = 8 + 25
    return png[:after_header] + chunk + png[after_header:]


def text_bomb(draw: random.Random) -> Picture:
    """A PNG whose zTXt, iTXt or iCCP inflates to megabytes; some more of them, some damaged."""
    name, image = draw_colour(draw)
    data = encode(image, "PNG")
    for _ in range(draw.choice([1, 1, 5])):
        chunk, head = draw.choice(
            [
                (b"zTXt", b"Comment\0\0"),
                (b"iTXt", b"Comment\0\1\0\0\0"),
                (b"iCCP", b"sRGB\0\0"),
                (b"zTXt", b"Raw profile type exif\0\0"),
                (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
            ]
        )
        body = _zeros(draw.choice([2, 20]))
        data = with_chunk(data, chunk, head + (body if draw.random() < 0.8 else body[: len(body) // 2]))
    return _shown(data, name)


@functools.cache
def _zeros(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * 1_000_000))


def damaged_png(draw: random.Random) -> Picture:
    """Its pixels are cut off."""
    noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "PNG")
    return _refused(data[: draw.randrange(60, len(data) - 2000)])


@functools.cache
def _every_tiff() -> list[TiffKind]:
    return every_kind()


def any_tiff(draw: random.Random) -> Picture:
    """A TIFF of any photometric interpretation, depth, planes and bit order: decoded correctly or refused."""
    kind = draw.choice(_every_tiff())
    samples = make_samples(kind)
    # One colour: the least and the greatest value of each sample, and opaque.
    values = [draw.choice([0, 3]) for _ in range(kind.samples)]
    plain = np.stack([np.full((HEIGHT, WIDTH), samples[row, 0, index]) for index, row in enumerate(values)], axis=2)
    if kind.extra is not None:
        plain[..., -1] = samples[3, 0, 0] if kind.extra == 0 else 1.0 if kind.sample_format == 3 else samples[..., -1].max()
    data = make_tiff(kind, plain)
    expected = None if kind.photometric == CIELAB else colours_of(kind, plain)
    signed = (kind.photometric, kind.sample_format, kind.bits) == (BLACK_IS_ZERO, SIGNED, 32)
    if signed and plain.min() >= 0 and plain.max() <= 65535:
        # Pillow writes 16-bit images like this, so signed values in that range are read as 16 bits.
        expected = np.repeat(plain[..., :1] / 65535 * 255, 3, axis=2)
    if expected is None:
        # What L*a*b* values mean depends on the reader.
        return Picture(data=data, colours=frozenset({"*"}) if kind.photometric == CIELAB else frozenset(), may_be_refused=True)
    red, green, blue = (round(float(value)) for value in expected[0, 0])
    return Picture(data=data, colours=frozenset({"="}), may_be_refused=True, in_rgb=(red, green, blue))


def white_is_zero_16_bits(draw: random.Random) -> Picture:
    """An earlier release read it as its negative."""
    kind = TiffKind(photometric=0, bits=16)
    name, value = draw.choice([("white color", 0), ("black color", 65535)])
    return _shown(make_tiff(kind, np.full((HEIGHT, WIDTH, 1), value)), name)


def usual_tiff(draw: random.Random) -> Picture:
    name, value = draw.choice([("white color", 255), ("black color", 0)])
    kind = TiffKind(photometric=draw.choice([BLACK_IS_ZERO, RGB]), planar=1, byte_order=draw.choice("<>"))
    return _shown(make_tiff(kind, np.full((HEIGHT, WIDTH, kind.samples), value)), name)


def _png(width: int, height: int, colour_type: int, body: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _rows(row: bytes, count: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(b"\0" + row) for _ in range(count)) + packer.flush()


@functools.cache
def hundred_megapixels() -> bytes:
    """A grey PNG of 100 megapixels: few bytes, and half a second of work."""
    return _png(SIDE, SIDE, 0, _rows(bytes(SIDE), SIDE))


@functools.cache
def hundred_megapixels_with_alpha() -> bytes:
    """Four times the bytes when decoded."""
    return _png(SIDE, SIDE, 6, _rows(b"\xff" * 4 * SIDE, SIDE))


def largest_png(draw: random.Random) -> Picture:
    return _shown(hundred_megapixels(), "black color")


def largest_with_alpha(draw: random.Random) -> Picture:
    return _shown(hundred_megapixels_with_alpha(), "white color")


def too_many_pixels(draw: random.Random) -> Picture:
    """Its header declares them, but there are none."""
    width, height = draw.choice([(SIDE + 1, SIDE), (2**31 - 1, 2**31 - 1), (2**31 - 1, 10)])
    return _refused(_png(width, height, 0, b""))


def too_few_pixels(draw: random.Random) -> Picture:
    return _refused(
        encode(Image.new("RGB", (draw.randrange(1, 10), draw.randrange(1, 300))), draw.choice(["PNG", "JPEG", "GIF"]))
    )


def another_format(draw: random.Random) -> Picture:
    image = Image.new("RGB", (32, 32))
    made = [encode(image, format_name) for format_name in ("BMP", "WEBP", "PPM", "ICO")]
    texts = [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"hello",
        b"\0" * 100,
        b"\xff\xd8\xff",
        b"GIF89a",
        b"II*\0",
    ]
    return _refused(draw.choice(made + texts))


KINDS = {
    plain_png: 3,
    usual_modes: 3,
    jpeg_without_its_end: 3,
    truncated_jpeg: 2,
    text_bomb: 3,
    damaged_png: 2,
    any_tiff: 12,
    white_is_zero_16_bits: 1,
    usual_tiff: 1,
    too_many_pixels: 1,
    too_few_pixels: 1,
    another_format: 2,
}
"""With how often each comes."""
HEAVY_KINDS = {largest_png: 5, largest_with_alpha: 1}
"""Each takes a second."""


def draw_picture(draw: random.Random, *, heavy: float = 0.0) -> Picture:
    """A picture of any kind; `heavy` is the probability of one that takes a second."""
    kinds = HEAVY_KINDS if draw.random() < heavy else KINDS
    (kind,) = draw.choices(list(kinds), list(kinds.values()))
    return replace(kind(draw), kind=kind.__name__)
