"""TIFF files of any kind, written after the specification and not by a library, with their colours."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 12, 16
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
OTHER_PHOTOMETRICS = (9, 10, 32803, 32844, 32845, 34892)
"""ICC and ITU L*a*b*, colour filter arrays, LogL, LogLuv, linear raw: no decoder here reads them."""
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
NONE, DEFLATE = 1, 8
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Of each byte: its bits in reverse order."""
_COLOURS = {RGB: 3, CMYK: 4, YCBCR: 3, CIELAB: 3}


@dataclass(frozen=True, kw_only=True)
class TiffKind:
    """The description of pixels in a TIFF."""

    photometric: int
    bits: int = 8
    sample_format: int = UNSIGNED
    planar: int = 1
    byte_order: str = "<"
    fill_order: int = 1
    extra: int | None = None
    """Meaning of an additional sample: 0 unspecified, 1 opacity with premultiplied colours, 2 opacity."""
    compression: int = NONE

    @property
    def samples(self) -> int:
        return _COLOURS.get(self.photometric, 1) + (self.extra is not None)


def every_kind() -> list[TiffKind]:
    """Every combination of the properties that readers use."""
    depths = [(bits, UNSIGNED) for bits in (1, 2, 4, 8, 12, 16, 32)]
    depths += [(bits, SIGNED) for bits in (8, 16, 32)] + [(bits, FLOAT) for bits in (16, 32, 64)]
    return [
        TiffKind(
            photometric=photometric,
            bits=bits,
            sample_format=sample_format,
            planar=planar,
            byte_order=byte_order,
            fill_order=fill_order,
            extra=extra,
            compression=compression,
        )
        for photometric, (bits, sample_format), planar, byte_order, fill_order, extra, compression in product(
            (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, *OTHER_PHOTOMETRICS),
            depths,
            (1, 2),
            "<>",
            (1, 2),
            (None, 0, 1, 2),
            (NONE, DEFLATE),
        )
        if planar == 1 or replace(TiffKind(photometric=photometric), extra=extra).samples > 1
    ]


def make_samples(kind: TiffKind) -> NDArray[Any]:
    """Samples [HEIGHT, WIDTH, N], from the least to the greatest value."""
    random = np.random.default_rng(kind.photometric * 100 + kind.bits)
    parts = random.random((HEIGHT, WIDTH, kind.samples))
    parts[:2, :, :] = 0.0
    parts[2:4, :, :] = 1.0
    if kind.extra is not None:
        parts[..., -1] = np.where(parts[..., -1] > 0.5, 1.0, 0.0)
        if kind.extra == 1:
            parts[..., :-1] *= parts[..., -1:]
    if kind.sample_format == FLOAT:
        return parts
    return np.round(parts * white_of(kind)).astype(np.int64)


def white_of(kind: TiffKind) -> int:
    """The greatest value of a sample."""
    return (1 << kind.bits) - 1 if kind.sample_format == UNSIGNED else (1 << (kind.bits - 1)) - 1


def colours_of(kind: TiffKind, samples: NDArray[Any]) -> NDArray[np.float64] | None:
    """The colours, float64[HEIGHT, WIDTH, 3] from 0 to 255, with transparent pixels white; None if they are not defined."""
    if kind.sample_format == SIGNED or (kind.sample_format == UNSIGNED and kind.bits == 32):
        return None
    parts = samples if kind.sample_format == FLOAT else samples / white_of(kind)
    colours, opacity = parts, None
    if kind.extra is not None:
        colours = parts[..., :-1]
        opacity = parts[..., -1:] if kind.extra in (1, 2) else None
    match kind.photometric:
        case 0:
            shown = np.repeat(1 - colours, 3, axis=2)
        case 1:
            shown = np.repeat(colours, 3, axis=2)
        case 2:
            shown = colours
        case 3 if kind.sample_format == UNSIGNED and kind.bits <= 8:
            indices = samples[..., 0]
            shown = np.stack([np.vectorize(lambda i, c=c: palette_value(i, c))(indices) for c in range(3)], axis=2) / 255
        case 5:
            shown = (1 - colours[..., :3]) * (1 - colours[..., 3:4])
        case 6 if kind.bits == 8:
            y, cb, cr = (colours[..., i] * 255 - (0 if i == 0 else 128) for i in range(3))
            shown = np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2) / 255, 0, 1)
        case _:
            return None
    if opacity is not None:
        if kind.extra == 1:
            shown = np.where(opacity > 0, shown / np.maximum(opacity, 1e-9), 0)
        shown = shown * opacity + (1 - opacity)
    return shown * 255


def palette_value(index: int, channel: int) -> int:
    """A colour of the palette, 0 to 255."""
    return (index * (37, 91, 153)[channel] + 11) % 256


def make_tiff(kind: TiffKind, samples: NDArray[Any], *, more_tags: dict[int, tuple[int, ...]] | None = None) -> bytes:
    """The file. Tags in `more_tags` are short integers."""
    planes = [samples] if kind.planar == 1 else [samples[..., index : index + 1] for index in range(kind.samples)]
    strips = [_pack(kind, plane) for plane in planes]
    if kind.compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    if kind.fill_order == 2:
        # The bit order of compressed bytes, as libtiff reads it.
        strips = [strip.translate(_REVERSED) for strip in strips]
    tags: dict[int, tuple[int, ...]] = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (kind.bits,) * kind.samples,
        259: (kind.compression,),
        262: (kind.photometric,),
        266: (kind.fill_order,),
        277: (kind.samples,),
        278: (HEIGHT,),
        284: (kind.planar,),
        339: (kind.sample_format,) * kind.samples,
    }
    if kind.extra is not None:
        tags[338] = (kind.extra,)
    if kind.photometric == PALETTE and kind.bits <= 8:
        tags[320] = tuple(palette_value(i, channel) * 257 for channel in range(3) for i in range(1 << kind.bits))
    if kind.photometric == YCBCR:
        tags[530] = (1, 1)
    tags |= more_tags or {}
    return _assemble(kind.byte_order, tags, strips)


def _pack(kind: TiffKind, plane: NDArray[Any]) -> bytes:
    rows = plane.reshape(HEIGHT, -1)
    if kind.sample_format == FLOAT:
        return rows.astype(f"{kind.byte_order}f{kind.bits // 8}").tobytes()
    if kind.bits in (8, 16, 32):
        return (rows & ((1 << kind.bits) - 1)).astype(f"{kind.byte_order}u{kind.bits // 8}").tobytes()
    places = np.arange(kind.bits - 1, -1, -1)
    return np.packbits((rows[..., np.newaxis] >> places & 1).astype(np.uint8).reshape(HEIGHT, -1), axis=1).tobytes()


def _assemble(order: str, tags: dict[int, tuple[int, ...]], strips: list[bytes]) -> bytes:
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0")
    offsets = []
    for strip in strips:
        offsets.append(len(body))
        body += strip + b"\0" * (len(strip) % 2)
    entries: list[tuple[int, int, tuple[int, ...]]] = [(tag, 3, values) for tag, values in tags.items()]
    entries += [(273, 4, tuple(offsets)), (279, 4, tuple(len(strip) for strip in strips))]
    table = bytearray(struct.pack(order + "H", len(entries)))
    for tag, kind, values in sorted(entries):
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'L'}", *values)
        if len(data) > 4:
            offset = len(body)
            body += data + b"\0" * (len(data) % 2)
            data = struct.pack(order + "L", offset)
        table += struct.pack(order + "HHL", tag, kind, len(values)) + data.ljust(4, b"\0")
    struct.pack_into(order + "L", body, 4, len(body))
    return bytes(body + table + b"\0\0\0\0")
