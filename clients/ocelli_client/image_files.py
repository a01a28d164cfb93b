"""One image file on this machine: whether it can be an example, its size and digest.

The rules are those of the trainer: JPEG or PNG by content, at most 10 MB, at least 10 pixels wide and high, not damaged. This
module must not know which class an image has.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MEGABYTE = 1024 * 1024
IMAGE_BYTES_LIMIT = 10 * MEGABYTE
SIDE_LIMIT_PIXELS = 10
PIXELS_LIMIT = 100_000_000
_KINDS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"))
_OTHER_KINDS = ((b"GIF8", "a GIF"), (b"II*\0", "a TIFF"), (b"MM\0*", "a TIFF"), (b"BM", "a BMP"))
_THREADS_LIMIT = 4
# With a scale of 8 a JPEG takes a third of the time, and all of its data is still read.
_JPEG_SCALE = 8

Progress = Callable[[int, int], None]
"""Called with the number of files that are done, and of all files."""


@dataclass(frozen=True, kw_only=True)
class ZipEntry:
    """A file in a zip. It is never extracted, so its name is never used as a path."""

    archive: zipfile.ZipFile
    """Open, because reading the directory of a large zip for each entry takes minutes."""
    name: str


@dataclass(frozen=True, kw_only=True)
class FileLocation:
    """Where a file's bytes are."""

    path: Path
    """The file, or the zip that has it."""
    entry: ZipEntry | None = None
    name: str
    """The name in zips, reports and messages: relative, with forward slashes."""

    def read(self, limit_bytes: int) -> bytes:
        """The first `limit_bytes` bytes.

        Raises:
            OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError: it cannot be read.
        """
        if self.entry is None:
            with self.path.open("rb") as file:
                return file.read(limit_bytes)
        with self.entry.archive.open(self.entry.name) as file:
            return file.read(limit_bytes)


def has_file(location: FileLocation) -> bool:
    """Whether its path is that of a file; a text of any length may be called a path."""
    try:
        return location.path.is_file()
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image that can be an example."""

    location: FileLocation
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.location.name


@dataclass(frozen=True, kw_only=True)
class UnusableFile:
    """A file that cannot be an example."""

    location: FileLocation
    reason: str
    """The end of a sentence that begins with the name, such as `is damaged`."""

    @property
    def name(self) -> str:
        return self.location.name


READING_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""Raised for a file, or an entry of a zip, that is missing, forbidden, damaged, encrypted, or compressed in an unusual way."""


def inspect_files(locations: Sequence[FileLocation], on_progress: Progress | None = None) -> list[ImageFile | UnusableFile]:
    """Read and decode every file, in the order given."""
    found: list[ImageFile | UnusableFile] = []
    threads = min(_THREADS_LIMIT, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        # Pillow warns below the limit that applies here, and the warning would interrupt a progress bar.
        warnings.simplefilter("ignore")
        for file in pool.map(inspect_file, locations):
            found.append(file)
            if on_progress is not None:
                on_progress(len(found), len(locations))
    return found


def inspect_file(location: FileLocation) -> ImageFile | UnusableFile:
    """Read and decode one file."""
    try:
        data = location.read(IMAGE_BYTES_LIMIT + 1)
    except READING_ERRORS as error:
        return UnusableFile(location=location, reason=f"cannot be read ({_in_words(error)})")
    fault = _find_fault(data)
    if fault is not None:
        return UnusableFile(location=location, reason=fault)
    return ImageFile(location=location, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def image_suffix(data: bytes) -> str:
    """The suffix of a file with this content, such as `.jpg`; empty for what is neither JPEG nor PNG."""
    kind = _kind(data)
    return {"JPEG": ".jpg", "PNG": ".png"}.get(kind or "", "")


def _kind(data: bytes) -> str | None:
    return next((kind for signature, kind in _KINDS if data.startswith(signature)), None)


def _find_fault(data: bytes) -> str | None:
    if not data:
        return "is empty"
    if len(data) > IMAGE_BYTES_LIMIT:
        return f"has more than {IMAGE_BYTES_LIMIT // MEGABYTE} MB"
    kind = _kind(data)
    if kind is None:
        return _describe_other_kind(data)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if min(image.size) < SIDE_LIMIT_PIXELS:
                return f"has {image.width}x{image.height} pixels; the shorter side needs {SIDE_LIMIT_PIXELS}"
            if image.width * image.height > PIXELS_LIMIT:
                return f"has more than {PIXELS_LIMIT // 1_000_000} megapixels"
            image.draft(None, (image.width // _JPEG_SCALE, image.height // _JPEG_SCALE))
            image.load()
    except Image.DecompressionBombError:
        return f"has more than {PIXELS_LIMIT // 1_000_000} megapixels"
    # Pillow's readers raise almost anything for damaged bytes.
    except Exception:
        return "is damaged"
    return None


def _describe_other_kind(data: bytes) -> str:
    kind = next((name for signature, name in _OTHER_KINDS if data.startswith(signature)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "a WebP"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        kind = "a HEIC or AVIF"
    if kind is None:
        return "is not an image"
    return f"is {kind} image; examples are JPEG or PNG"


def _in_words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
