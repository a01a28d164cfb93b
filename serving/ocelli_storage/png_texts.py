"""The texts of a PNG: Pillow would inflate all of them, and refuse an image for a large one."""

from __future__ import annotations

import struct
import zlib

from ocelli_storage.archives import MEGABYTE

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_BYTES = 12
"""Length, name and checksum of a chunk."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""The texts that can contain the orientation."""
_PNG_TEXT_BYTES = MEGABYTE
"""A longer text is not an orientation, and Pillow would refuse the image because of it."""
_PNG_KEPT_TEXTS = 8


def without_large_texts(data: bytes) -> bytes:
    """The PNG without its colour profile and all texts except the orientation. Pixels do not depend on these."""
    kept: list[memoryview] = []
    view, position, begin, texts = memoryview(data), _PNG_SIGNATURE_BYTES, 0, 0
    while position + _PNG_CHUNK_BYTES <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + _PNG_CHUNK_BYTES + length
        if name in _PNG_TEXTS or name == b"iCCP":
            needed = False
            # Texts that are not kept count too: reading one takes as long.
            if name != b"iCCP" and texts < _PNG_KEPT_TEXTS and data.startswith(_PNG_ORIENTATION_TEXTS, position + 8):
                texts += 1
                needed = _is_needed_text(name, data[position + 8 : end - 4])
            if not needed:
                kept.append(view[begin:position])
                begin = min(end, len(data))
        position = end
    return b"".join([*kept, view[begin:]]) if begin else data


def _is_needed_text(name: bytes, body: bytes) -> bool:
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
