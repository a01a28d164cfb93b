"""Unusual, damaged or malicious zips of given images: a function for each kind."""

from __future__ import annotations

import functools
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

ENTRIES_LIMIT = 50_000
"""The maximum for a zip of examples."""


@dataclass(frozen=True, kw_only=True)
class Zip:
    """A file, and its correct answers."""

    data: bytes
    usable: int
    """The number of its usable images; 0: only a refusal is correct."""
    words: tuple[str, ...] = ()
    """Texts in a refusal."""
    entries: int | None = None
    """How many entries a classify counts as images, where these are more than are usable."""

    @property
    def counted(self) -> int:
        return self.usable if self.entries is None else self.entries


def pack(images: Sequence[bytes], compression: int = zipfile.ZIP_DEFLATED, names: Sequence[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for index, data in enumerate(images):
            archive.writestr(f"{index}.png" if names is None else names[index], data)
    return buffer.getvalue()


def plain(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=pack(images), usable=len(images))


def odd_names(draw: random.Random, images: Sequence[bytes]) -> Zip:
    odd = [
        "../../x.png",
        "/etc/passwd.png",
        "C:\\x.png",
        "\u202egnp.x",
        "a\x07b.png",
        "😀.png",
        "x" * 3000 + ".png",
        "a/" * 90 + "b",
    ]
    names = [draw.choice(odd) + str(index) for index in range(len(images))]
    return Zip(data=pack(images, names=names), usable=len(images))


def with_rubbish(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """Files of file managers are skipped silently."""
    names = [f"{index}.png" for index in range(len(images))] + ["__MACOSX/._1.png", ".DS_Store", "Thumbs.db", "folder/"]
    return Zip(data=pack([*images, b"x", b"x", b"x", b""], names=names), usable=len(images))


def behind_a_prefix(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """A self-extracting zip."""
    return Zip(data=draw.choice([b"MZ" + bytes(5000), b"\n", b"#!/bin/sh\n"]) + pack(images), usable=len(images))


def by_bzip2(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=pack(images, zipfile.ZIP_BZIP2), usable=len(images))


def by_lzma(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=pack(images, zipfile.ZIP_LZMA), usable=0, words=("LZMA",), entries=len(images))


def by_unknown_method(draw: random.Random, images: Sequence[bytes]) -> Zip:
    method, name = draw.choice([(9, "Deflate64"), (93, "Zstandard"), (77, "method 77"), (99, "AES")])
    data = pack(images).replace(struct.pack("<HHH", 20, 0, 8), struct.pack("<HHH", 20, 0, method))
    return Zip(data=data, usable=0, words=(name,), entries=len(images))


def renamed(images: Sequence[bytes], raw: bytes, *, utf8: bool) -> bytes:
    """The first entry has exactly these bytes as its name, with or without the UTF-8 flag."""
    old = b"\x01" * len(raw)
    data = pack(images, names=[old.decode(), *(f"{index}.png" for index in range(1, len(images)))])
    changed = bytearray(data.replace(old, raw))
    for position in (6, changed.index(b"PK\x01\x02") + 8):
        struct.pack_into("<H", changed, position, 0x800 if utf8 else 0)
    return bytes(changed)


def invalid_utf8_name(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """One byte of a name with the UTF-8 flag is invalid."""
    return Zip(data=renamed(images, b"ov\xffl.png", utf8=True), usable=len(images))


def legacy_name(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """Half of a letter looks like a backslash."""
    raw = draw.choice(["\u8868.jpg".encode("shift_jis"), "\u529f.jpg".encode("big5"), "größe.png".encode("cp850"), b"a\0b.png"])
    return Zip(data=renamed(images, raw, utf8=draw.random() < 0.5), usable=len(images))


def overlapping(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """Many directory entries refer to the same bytes."""
    return Zip(data=overlapping_zip(images[0], draw.choice([2, 300])), usable=0, words=("overlap",))


def overlapping_zip(image: bytes, copies: int, name: bytes = b"a.png") -> bytes:
    """Many directory entries that all point at one and the same compressed file."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(image) + deflate.flush()
    sizes = struct.pack("<LLL", zlib.crc32(image), len(packed), len(image))
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", len(name), 0) + name + packed
    entry = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 33) + sizes
    entry += struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, 0) + name
    directory = entry * copies
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, copies, copies, len(directory), len(local), 0)
    return local + directory + end


def lying_sizes(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """The directory has a wrong size for the first image."""
    data = bytearray(pack(images))
    position = data.index(b"PK\x01\x02") + 24
    struct.pack_into("<L", data, position, draw.choice([1, len(images[0]) - 1, len(images[0]) + 1, 9_000_000]))
    return Zip(data=bytes(data), usable=len(images) - 1, entries=len(images))


def wrong_checksum(draw: random.Random, images: Sequence[bytes]) -> Zip:
    data = bytearray(pack(images))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 16, draw.randrange(2**32))
    return Zip(data=bytes(data), usable=len(images) - 1, entries=len(images))


def bomb(draw: random.Random, images: Sequence[bytes]) -> Zip:
    """One entry inflates to 12 MB, more than an image may have, and says so or says it has 1,000 bytes."""
    data = pack([_bomb(), *images])
    if draw.random() < 0.5:
        data = data.replace(struct.pack("<L", len(_bomb())), struct.pack("<L", 1000))
    return Zip(data=data, usable=len(images), entries=len(images) + 1)


@functools.cache
def _bomb() -> bytes:
    return b"\xff\xd8\xff\xe0" + bytes(12 * 1024 * 1024)


def encrypted(draw: random.Random, images: Sequence[bytes]) -> Zip:
    data = bytearray(pack(images))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return Zip(data=bytes(data), usable=0, words=("encrypted",))


def cut_off(draw: random.Random, images: Sequence[bytes]) -> Zip:
    data = pack(images)
    return Zip(data=data[: draw.randrange(4, len(data) - 22)], usable=0, words=("damaged",))


def without_files(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=draw.choice([pack([]), pack([b"", b"x"], names=["folder/", ".DS_Store"])]), usable=0, words=("no files",))


def zip_in_a_zip(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=pack([pack(images)], names=["inner.zip"]), usable=0, entries=1)


@functools.cache
def many_entries(count: int = ENTRIES_LIMIT) -> bytes:
    """A zip with almost no content whose directory takes long to read."""
    return pack([b"x"] * count, zipfile.ZIP_STORED)


def huge_directory(draw: random.Random, images: Sequence[bytes]) -> Zip:
    return Zip(data=many_entries(), usable=0, entries=ENTRIES_LIMIT)


KINDS = {
    plain: 3,
    odd_names: 2,
    with_rubbish: 1,
    behind_a_prefix: 2,
    by_bzip2: 2,
    by_lzma: 2,
    by_unknown_method: 1,
    invalid_utf8_name: 2,
    legacy_name: 2,
    overlapping: 3,
    lying_sizes: 3,
    wrong_checksum: 2,
    bomb: 2,
    encrypted: 1,
    cut_off: 2,
    without_files: 1,
    zip_in_a_zip: 1,
}
"""With how often each comes."""


def draw_zip(draw: random.Random, images: Sequence[bytes], *, heavy: float = 0.0) -> Zip:
    """A zip of any kind; `heavy` is the probability of one that takes a second."""
    if draw.random() < heavy:
        return huge_directory(draw, images)
    (kind,) = draw.choices(list(KINDS), list(KINDS.values()))
    return kind(draw, images)
