"""Thumbnails of images, made from the pixels that the network gets: in the page of a report, and in files of their own.

They are encoded again, so nothing of the original file, such as its metadata, is in them. A training reuses those of the last
one: the pixels of images whose features are cached are not at hand.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError
from ocelli_storage.thumbnail_files import (
    IMAGES_LIMIT,
    SIDE_PIXELS,
    ThumbnailFileError,
    build_thumbnail_file,
    is_thumbnails,
    read_every_thumbnail,
)
from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES, build_thumbnail
from ocelli_training.dataset import Example

SHOWN_LIMIT = 200
"""In one report: a page of about a megabyte."""
_QUALITIES = (80, 50, 20)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnails:
    """The thumbnails of one training or check."""

    shown: Sequence[str]
    """Digests of the images that the report shows, the most important first."""
    owners: Mapping[str, str | None]
    """By digest, the key of the customer whose image it is."""
    files: Mapping[str, bytes]
    """JPEGs by digest."""

    def build_lines(self, erased: Collection[str] = ()) -> dict[str, str]:
        """Lines of HTML by digest, for the first `SHOWN_LIMIT` of the shown images, without those of erased customers."""
        lines: dict[str, str] = {}
        for digest in self.shown:
            if len(lines) >= SHOWN_LIMIT:
                break
            if digest in self.files and self.owners[digest] not in erased:
                lines[digest] = build_thumbnail(self.files[digest], self.owners[digest])
        return lines

    async def save(self, store: ObjectStore, key_of: Callable[[str | None], str], erased: Collection[str]) -> None:
        """Store the thumbnails of each customer, except erased ones, at the key that `key_of` has for it.

        Errors of the store fail nothing: they are logged. People see less then.
        """
        files: dict[str | None, dict[str, bytes]] = defaultdict(dict)
        for digest, data in self.files.items():
            if self.owners[digest] not in erased:
                files[self.owners[digest]][digest] = data
        try:
            for customer, own in files.items():
                await store.put(key_of(customer), build_thumbnail_file(own))
        except ObjectStoreError as error:
            logger.warning("thumbnails.not_stored", extra={"error": str(error)})
        else:
            logger.info("thumbnails.stored", extra={"files": len(files), "images": sum(map(len, files.values()))})


@dataclass(frozen=True, kw_only=True)
class ThumbnailSource:
    """Where thumbnails come from."""

    find_pixels: Callable[[str], NDArray[np.uint8] | None]
    """The pixels of an image by its digest, uint8[height, width, 3]; None leaves it out."""
    threads: int
    known: Mapping[str, bytes] | None = None
    """JPEGs of an earlier training, by digest."""

    def make(self, shown: Iterable[str], examples: Sequence[Example]) -> Thumbnails:
        """Thumbnails of the images that a report shows, then of other examples, up to `IMAGES_LIMIT`.

        `shown` are their digests, the most important first. Images that are not examples are left out.
        """
        started = time.monotonic()
        owners = {example.digest: example.customer for example in examples}
        shown = [digest for digest in dict.fromkeys(shown) if digest in owners]
        wanted = list(dict.fromkeys(chain(shown, _in_turns(examples))))[:IMAGES_LIMIT]
        with ThreadPoolExecutor(self.threads, thread_name_prefix="thumbnails") as pool:
            made = dict(zip(wanted, pool.map(self._find, wanted), strict=True))
        files = {digest: data for digest, data in made.items() if data is not None}
        logger.info("thumbnails.made", extra={"images": len(files), "seconds": time.monotonic() - started})
        return Thumbnails(shown=shown, owners=owners, files=files)

    def _find(self, digest: str) -> bytes | None:
        known = (self.known or {}).get(digest)
        if known is not None:
            return known
        pixels = self.find_pixels(digest)
        return None if pixels is None else encode_thumbnail(pixels)


def encode_thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG file of at most `THUMBNAIL_LIMIT_BYTES` with sides of at most 128 pixels, of an image uint8[height, width, 3]."""
    image = Image.fromarray(pixels)
    # A training makes up to two thousand: these filters and encoders take half the time of Pillow's own choice.
    image.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BILINEAR)
    small = np.ascontiguousarray(image)
    for quality in _QUALITIES:
        file: bytes = simplejpeg.encode_jpeg(small, quality=quality, colorsubsampling="420")
        if len(file) <= THUMBNAIL_LIMIT_BYTES:
            break
    return file


async def load_thumbnails(store: ObjectStore, location: ClassifierLocation) -> dict[str, bytes]:
    """The thumbnails that the last training of a classifier stored, by digest; none where they cannot be used."""
    try:
        files = [item for item in await store.list_objects(location.artifacts_prefix) if is_thumbnails(item.key)]
        if not files:
            return {}
        newest = max(files, key=lambda item: (item.modified_at, item.key)).key
        revision = newest.removeprefix(f"{location.artifacts_prefix}/").partition("/")[0]
        prefix = f"{location.image_data_prefix(revision)}/"
        return await read_every_thumbnail(store, [item for item in files if item.key.startswith(prefix)])
    except (ObjectStoreError, ThumbnailFileError) as error:
        logger.warning("thumbnails.ignored", extra={"error": str(error)})
        return {}


def _in_turns(examples: Iterable[Example]) -> Iterator[str]:
    """The digests of all examples, one of each set after the other, so that each set has some thumbnails."""
    sets: dict[int, list[str]] = defaultdict(list)
    for example in examples:
        sets[example.set_index].append(example.digest)
    return (digest for turn in zip_longest(*sets.values()) for digest in turn if digest is not None)
