"""Files of thumbnails: small JPEGs of the images that a person should look at first, by the SHA-256 of the image's bytes.

Each customer's images have a file of their own below `image-data/`, so that an erasure deletes it. A file is in the format of
safetensors: a tensor uint8[bytes] for each thumbnail, named by the digest in hexadecimal. The header has the place of each, so
that single ones can be read. Pods of tenants can write these files: sizes are bounded, and nothing in them is trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

from ocelli_storage.archives import MEGABYTE
from ocelli_storage.documents import parse_document
from ocelli_storage.jpeg import read_sides
from ocelli_storage.layout import THUMBNAILS, is_image_data
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoredObject
from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES

IMAGES_LIMIT = 2000
"""Thumbnails of one revision, in all its files together: normally about 8 MB."""
FILES_LIMIT_BYTES = 64 * MEGABYTE
"""Of all files of a revision together, for those who read them whole."""
SIDE_PIXELS = 128
"""The longer side of a thumbnail, at most."""
FORMAT_VERSION = "1"
_HEADER_LIMIT_BYTES = 512 * 1024
"""The entry of a thumbnail takes about 130 bytes."""
_LENGTH_BYTES = 8
_DIGEST_CHARACTERS = frozenset("0123456789abcdef")
_JPEG_START = b"\xff\xd8\xff"
_CONCURRENT_READS = 8


class ThumbnailFileError(Exception):
    """A file of thumbnails cannot be used. The message is a fact about the file."""


@dataclass(frozen=True, kw_only=True)
class StoredThumbnail:
    """Where a thumbnail is."""

    key: str
    offset: int
    length: int


def build_thumbnail_file(thumbnails: Mapping[str, bytes]) -> bytes:
    """The file with these JPEGs, of at most `THUMBNAIL_LIMIT_BYTES` each, by digest."""
    tensors = {digest: np.frombuffer(data, dtype=np.uint8) for digest, data in thumbnails.items()}
    content: bytes = safetensors.numpy.save(tensors, {"formatVersion": FORMAT_VERSION})
    return content


def is_thumbnails(key: str) -> bool:
    """Whether a key is that of a file of thumbnails."""
    return is_image_data(key) and key.endswith(f"/{THUMBNAILS}")


async def find_thumbnails(store: ObjectStore, objects: Iterable[StoredObject]) -> dict[str, StoredThumbnail]:
    """Where the thumbnails in these objects are, by digest. Other objects, and deleted ones, are left out.

    Raises:
        ThumbnailFileError: a file cannot be used, or there are too many thumbnails.
        StoreUnavailableError: see there.
    """
    found: dict[str, StoredThumbnail] = {}
    files = sorted((item for item in objects if is_thumbnails(item.key)), key=lambda item: item.key)
    if len(files) > IMAGES_LIMIT:
        # Each file has a thumbnail.
        raise ThumbnailFileError(f"there are {len(files):,} files of thumbnails; the limit is {IMAGES_LIMIT:,}")
    for item in files:
        try:
            found |= await _read_places(store, item)
        except ObjectNotFoundError:
            # It was erased since the listing.
            continue
        if len(found) > IMAGES_LIMIT:
            raise ThumbnailFileError(f"there are more than {IMAGES_LIMIT:,} thumbnails")
    return found


async def read_thumbnails(store: ObjectStore, places: Sequence[StoredThumbnail]) -> list[bytes | None]:
    """The JPEGs at these places; None where there is none any more, or something else.

    Raises:
        StoreUnavailableError: see there.
    """
    slots = asyncio.Semaphore(_CONCURRENT_READS)

    async def read(place: StoredThumbnail) -> bytes | None:
        async with slots:
            try:
                data = await store.get_range(place.key, offset=place.offset, length=place.length)
            except ObjectNotFoundError:
                return None
        return data if is_thumbnail(data) else None

    return await asyncio.gather(*(read(place) for place in places))


async def read_every_thumbnail(store: ObjectStore, objects: Sequence[StoredObject]) -> dict[str, bytes]:
    """All thumbnails in these files, by digest.

    Raises:
        ThumbnailFileError: a file cannot be used, or they are too large.
        StoreUnavailableError: see there.
    """
    if sum(item.size_bytes for item in objects) > FILES_LIMIT_BYTES:
        raise ThumbnailFileError(f"there are more than {FILES_LIMIT_BYTES:,} bytes of thumbnails")
    found: dict[str, bytes] = {}
    for item in objects:
        try:
            content = await store.get(item.key, limit_bytes=item.size_bytes)
        except ObjectNotFoundError:
            continue
        except ObjectTooLargeError as error:
            raise ThumbnailFileError(f"{item.key} changes while it is read") from error
        header = content[_LENGTH_BYTES : _LENGTH_BYTES + _header_bytes(item.key, content, len(content))]
        for digest, place in parse_places(item.key, header, len(content)).items():
            data = content[place.offset : place.offset + place.length]
            if is_thumbnail(data):
                found[digest] = data
    return found


def is_thumbnail(data: bytes) -> bool:
    """Whether bytes are those of a JPEG as small as a thumbnail: few bytes may be many pixels."""
    if len(data) > THUMBNAIL_LIMIT_BYTES or not data.startswith(_JPEG_START):
        return False
    sides = read_sides(data)
    return sides is not None and max(sides) <= SIDE_PIXELS


def parse_places(key: str, header: bytes, size_bytes: int) -> dict[str, StoredThumbnail]:
    """Where the thumbnails of a file of `size_bytes` are, by digest, from its header without its length.

    Raises:
        ThumbnailFileError: it is not such a header.
    """
    try:
        document = parse_document(header)
        facts = document.pop("__metadata__")
        if facts["formatVersion"] != FORMAT_VERSION:
            raise ThumbnailFileError(f"{key} has another format version")
        start = _LENGTH_BYTES + len(header)
        return {digest: _parse_place(key, digest, entry, start, size_bytes) for digest, entry in document.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ThumbnailFileError(f"{key} is damaged") from error


async def _read_places(store: ObjectStore, item: StoredObject) -> dict[str, StoredThumbnail]:
    start = await store.get_range(item.key, offset=0, length=min(_LENGTH_BYTES, item.size_bytes))
    length = _header_bytes(item.key, start, item.size_bytes)
    return parse_places(item.key, await store.get_range(item.key, offset=_LENGTH_BYTES, length=length), item.size_bytes)


def _header_bytes(key: str, content: bytes, size_bytes: int) -> int:
    """The length of the header of a file of `size_bytes` that begins with `content`. Raises ThumbnailFileError."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if size_bytes < _LENGTH_BYTES or length > min(_HEADER_LIMIT_BYTES, size_bytes - _LENGTH_BYTES):
        raise ThumbnailFileError(f"{key} is truncated, or no file of thumbnails")
    return length


def _parse_place(key: str, digest: str, entry: Mapping[str, Any], start: int, size_bytes: int) -> StoredThumbnail:
    """Raises ValueError, LookupError, TypeError."""
    first, end = entry["data_offsets"]
    if type(first) is not int or type(end) is not int:
        raise TypeError("an offset is not a number")
    is_inside = 0 <= first < end <= min(size_bytes - start, first + THUMBNAIL_LIMIT_BYTES)
    is_digest = len(digest) == 64 and _DIGEST_CHARACTERS.issuperset(digest)
    if not is_inside or not is_digest or entry["dtype"] != "U8":
        raise ValueError("an entry is not one of a thumbnail")
    return StoredThumbnail(key=key, offset=start + first, length=end - first)
