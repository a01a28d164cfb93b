"""The segments of a JPEG, and its fast decoding.

Pillow alone is too slow, and cannot distinguish a JPEG without its end marker from one that is cut off.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

END_OF_IMAGE = b"\xff\xd9"
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN_HEADER = 0xDA
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""All markers except those between coefficients: stuffed zeros, and restarts. In a run of 0xFF bytes only the last one begins a
marker: matching the whole run would take quadratic time."""
_COEFFICIENTS = 64


@dataclass(frozen=True, kw_only=True)
class _Segment:
    marker: int
    body: bytes


def _segments(data: bytes) -> Iterator[_Segment]:
    position = 2
    while found := _MARKER.search(data, position):
        marker, start = found[1][0], found.end()
        if marker in (0x01, 0xD8, 0xD9):
            position = start
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        yield _Segment(marker=marker, body=data[start + 2 : start + length])
        position = start + max(length, 2)


def read_sides(data: bytes) -> tuple[int, int] | None:
    """Height and width in pixels, as its first frame says; None where there is none."""
    for segment in _segments(data):
        if segment.marker in _FRAME_HEADERS and len(segment.body) >= 5:
            height, width = struct.unpack(">HH", segment.body[1:5])
            return height, width
    return None


def coefficient_bytes(data: bytes) -> int:
    """The bytes that a decoder keeps for the whole image at any decoded size: 0 unless the image has several scans."""
    frame: _Segment | None = None
    for segment in _segments(data):
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


def has_all_bits(data: bytes) -> bool:
    """Whether the scans give all bits of all coefficients: a progressive JPEG that is cut off lacks the last ones."""
    missing: dict[int, list[int]] = {}
    for segment in _segments(data):
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


def decode_flawless(data: bytes, least: tuple[int, int], colours: str = "RGB") -> NDArray[np.uint8] | None:
    """Decode with DCT scaling, to at least a height and width that leaves pixels for the filter.

    None if the bytes have any flaw. Pillow then decides whether the flaw is minor or the file is cut off.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace=colours, min_height=least[0], min_width=least[1], min_factor=1
        )
    except ValueError:
        return None
    return pixels
