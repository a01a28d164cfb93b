"""Zips of examples, as the gateway takes them. The same images give the same bytes on every machine.

So a folder has a digest before anything is sent, an interrupted upload finds what is stored already, and a manifest can pin it.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from ocelli_client.errors import OcelliError
from ocelli_client.image_files import IMAGE_BYTES_LIMIT, MEGABYTE, READING_ERRORS, ImageFile

ZIP_BYTES_LIMIT = 100 * MEGABYTE
ZIP_IMAGES_LIMIT = 10_000
# The earliest time that a zip can have.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_FILE_MODE = 0o100644 << 16
# Local header, directory entry and, for large files, their extra fields; the name is in both.
_ENTRY_BYTES = 30 + 46 + 2 * 32
_END_BYTES = 22 + 56 + 20


class ChangedImageError(OcelliError):
    """An image is not the one that was checked."""


class ZipWriteError(OcelliError):
    """A zip cannot be written."""


@dataclass(frozen=True, kw_only=True)
class ExampleZip:
    """A written zip."""

    path: Path
    sha256: str
    size_bytes: int
    images: tuple[ImageFile, ...]


def build_zips(images: Sequence[ImageFile], folder: Path) -> Iterator[ExampleZip]:
    """Write the images into as few zips as needed, one after the other: the caller may delete each before it takes the next.

    Raises:
        ChangedImageError: an image has changed since it was checked.
    """
    for number, part in enumerate(plan_zips(images), start=1):
        yield write_zip(part, folder / f"{number:03}.zip")


def plan_zips(images: Sequence[ImageFile], limit_bytes: int = ZIP_BYTES_LIMIT) -> list[tuple[ImageFile, ...]]:
    """Which images go into which zip, in the order of their names: as few zips as possible.

    Their numbers of images differ by at most one. The console cuts in the same way, so that both have the same digests.
    """
    ordered = sorted(images, key=lambda image: (image.name, image.sha256))
    ends = [0, *accumulate(image.size_bytes + _ENTRY_BYTES + 2 * len(image.name.encode()) for image in ordered)]
    for count in range(1, len(ordered) + 1):
        cuts = _cut(len(ordered), count)
        runs = list(pairwise(cuts))
        if all(_END_BYTES + ends[end] - ends[start] <= limit_bytes and end - start <= ZIP_IMAGES_LIMIT for start, end in runs):
            return [tuple(ordered[start:end]) for start, end in runs]
    # An image that exceeds the limit alone: the gateway's refusal names it.
    return [(image,) for image in ordered]


def _cut(images: int, count: int) -> list[int]:
    """Where `count` runs begin and end whose lengths differ by at most one; the longer ones come first."""
    length, longer = divmod(images, count)
    return [0, *accumulate(length + (index < longer) for index in range(count))]


def write_zip(images: Sequence[ImageFile], path: Path) -> ExampleZip:
    """Write one zip: stored, in the order given, all times and rights the same.

    Raises:
        ChangedImageError: an image has changed since it was checked.
        ZipWriteError: the zip cannot be written, for example because the disk is full.
    """
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for image in images:
                entry = zipfile.ZipInfo(image.name, date_time=_TIME)
                entry.create_system = _UNIX
                entry.external_attr = _FILE_MODE
                archive.writestr(entry, _read(image))
    except OSError as error:
        reason = error.strerror or error
        raise ZipWriteError(f"{path} cannot be written: {reason}; free space, or name another folder in TMPDIR") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExampleZip(path=path, sha256=digest, size_bytes=path.stat().st_size, images=tuple(images))


def _read(image: ImageFile) -> bytes:
    try:
        data = image.location.read(IMAGE_BYTES_LIMIT + 1)
    except READING_ERRORS as error:
        raise ChangedImageError(f"{image.location.path} can no longer be read ({error}); start again") from error
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ChangedImageError(f"{image.location.path} has changed since it was checked; start again")
    return data
