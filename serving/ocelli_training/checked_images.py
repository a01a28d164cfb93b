"""What a check read, stored for the training that follows: the files of each source, and the pixels of their images.

So sources are read once, and the training learns what was checked. It is image data of the attempt: each customer's sources
have files of their own, see `image_data`. `sources.json` has the files of each source by its place in the definition, and the
digests of the images in `pixels.bin`, which has them one after the other, uint8[height, width, 3] each. A training that cannot
use them reads the sources itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_api.classifier import ClassifierSpec, Source
from ocelli_api.documents import build_document
from ocelli_api.prediction import ImageFault
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.archives import MEGABYTE, EntryFault
from ocelli_storage.documents import parse_document
from ocelli_storage.object_store import ObjectStore, ObjectStoreError, StoreQuotaError
from ocelli_training.dataset import FileReading, SourceReading
from ocelli_training.pixel_file import PixelFile
from ocelli_training.settings import TrainerSettings

PIXELS_LIMIT_BYTES = 4096 * MEGABYTE
"""28,000 images of 224 x 224 pixels. A training with more reads its sources itself."""
FILES_LIMIT_BYTES = 256 * MEGABYTE
_SOURCES = "sources.json"
_PIXELS = "pixels.bin"
_FORMAT = 1
"""To be increased when the pixels of the same image change."""

logger = logging.getLogger(__name__)


class CheckedImagesError(Exception):
    """What a check stored cannot be used."""


@dataclass(frozen=True, kw_only=True)
class CheckedImages:
    """What a check read."""

    readings: Mapping[int, SourceReading]
    """By the source's index among `ClassifierSpec.sources`. Erased sources have none."""
    numbers: Mapping[str, int]
    """By digest of a usable image, its number in the pixel file."""


def list_sources(definition: ClassifierSpec) -> list[tuple[int, Source]]:
    """The sources to read, with their indices, in the order in which `example_sets` and `find_test_sets` have them."""
    return [(index, source) for index, source in enumerate(definition.sources) if not source.erased]


async def save_checked(
    settings: TrainerSettings,
    store: ObjectStore,
    scratch: Path,
    checked: CheckedImages,
    pixels: PixelFile,
    preprocessing: Preprocessing,
    erased: Collection[str],
) -> bool:
    """Store what was read, without the sources of erased customers. Returns whether it was stored: it is not if it is too
    large, or exceeds the namespace's quota.

    Raises:
        StoreUnavailableError, OSError: see there.
    """
    location, place = settings.location, (settings.revision, settings.attempt)
    # Of an earlier Pod of this attempt.
    await store.delete_prefix(location.checked_prefix(*place))
    if len(checked.numbers) * pixels.image_bytes > PIXELS_LIMIT_BYTES:
        logger.warning("checked_images.not_stored", extra={"images": len(checked.numbers), "limit_bytes": PIXELS_LIMIT_BYTES})
        return False
    owners = _find_owners(checked)
    sources: dict[str | None, list[int]] = defaultdict(list)
    for index, reading in checked.readings.items():
        sources[reading.source.customer].append(index)
    copy = scratch / "pixels-of-customer"
    try:
        for customer, indices in sources.items():
            if customer in erased:
                continue
            digests = sorted(
                (digest for digest in checked.numbers if owners[digest] == customer), key=checked.numbers.__getitem__
            )
            document = {
                "format": _FORMAT,
                "preprocessing": build_document(preprocessing),
                "sources": {str(index): _pack_source(checked.readings[index]) for index in indices},
                "images": digests,
            }
            numbers = [checked.numbers[digest] for digest in digests]
            file = pixels.path
            if numbers != list(range(pixels.count)):
                await asyncio.to_thread(pixels.copy_images, numbers, copy)
                file = copy
            await store.put(location.checked_key(*place, customer, _PIXELS), file)
            # Last: it completes them.
            await store.put(location.checked_key(*place, customer, _SOURCES), json.dumps(document, ensure_ascii=False).encode())
    except StoreQuotaError as error:
        logger.warning("checked_images.not_stored", extra={"error": str(error)})
        await store.delete_prefix(location.checked_prefix(*place))
        return False
    finally:
        copy.unlink(missing_ok=True)
    return True


async def load_checked(
    settings: TrainerSettings, store: ObjectStore, definition: ClassifierSpec, pixels: PixelFile, preprocessing: Preprocessing
) -> CheckedImages | None:
    """What the attempt's check read, with the images in the pixel file, which was empty; None if there was no check.

    Raises:
        CheckedImagesError: it is damaged, incomplete, or was read for another network.
        StoreUnavailableError: see there.
    """
    prefix = settings.location.checked_prefix(settings.revision, settings.attempt)
    keys = sorted(item.key for item in await store.list_objects(prefix) if item.key.endswith(f"/{_SOURCES}"))
    if not keys:
        return None
    sources = dict(list_sources(definition))
    readings: dict[int, SourceReading] = {}
    numbers: dict[str, int] = {}
    for key in keys:
        try:
            document = parse_document(await store.get(key, limit_bytes=FILES_LIMIT_BYTES))
            if (document["format"], document["preprocessing"]) != (_FORMAT, build_document(preprocessing)):
                raise CheckedImagesError(f"{key} was made for another network, or by another release")
            for index, packed in document["sources"].items():
                if int(index) in sources:
                    readings[int(index)] = _unpack_source(packed, sources[int(index)])
            digests = [str(digest) for digest in document["images"]]
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise CheckedImagesError(f"{key} is damaged") from error
        await _load_pixels(store, f"{key.removesuffix(_SOURCES)}{_PIXELS}", digests, pixels, numbers)
    used = {file.digest for reading in readings.values() for file in reading.files if file.digest is not None}
    if readings.keys() != sources.keys() or not used <= numbers.keys():
        raise CheckedImagesError(f"{prefix} is not complete")
    return CheckedImages(readings=readings, numbers=numbers)


async def delete_checked(settings: TrainerSettings, store: ObjectStore) -> None:
    """Delete what the attempt's check read. What is left after an error is deleted by the operator's sweep."""
    try:
        await store.delete_prefix(settings.location.checked_prefix(settings.revision, settings.attempt))
    except ObjectStoreError as error:
        logger.warning("checked_images.not_deleted", extra={"error": str(error)})


def arrange_readings(checked: CheckedImages, sets: Sequence[Sequence[Source]]) -> tuple[tuple[SourceReading, ...], ...]:
    """The readings of each set's sources, for all sets of a definition in their order."""
    indices = iter(sorted(checked.readings))
    return tuple(tuple(checked.readings[next(indices)] for _ in sources) for sources in sets)


async def _load_pixels(
    store: ObjectStore, key: str, digests: Sequence[str], pixels: PixelFile, numbers: dict[str, int]
) -> None:
    buffer = bytearray()
    remaining = iter(digests)
    try:
        async for chunk in store.open_read(key):
            buffer += chunk
            while len(buffer) >= pixels.image_bytes:
                digest = next(remaining, None)
                if digest is None:
                    raise CheckedImagesError(f"{key} has more images than its list")
                numbers[digest] = pixels.append_bytes(buffer[: pixels.image_bytes])
                del buffer[: pixels.image_bytes]
    except ObjectStoreError as error:
        raise CheckedImagesError(str(error)) from error
    if buffer or next(remaining, None) is not None:
        raise CheckedImagesError(f"{key} is truncated")


def _find_owners(checked: CheckedImages) -> dict[str, str | None]:
    """By digest, the customer whose image it is; None: it has no customer. Of several, the first."""
    owners: dict[str, str | None] = {}
    for _, reading in sorted(checked.readings.items()):
        for file in reading.files:
            if file.digest is not None:
                owners[file.digest] = owners.get(file.digest) or reading.source.customer
    return owners


def _pack_source(reading: SourceReading) -> dict[str, Any]:
    return {"sha256": reading.sha256, "files": [_pack(file) for file in reading.files]}


def _unpack_source(packed: Mapping[str, Any], source: Source) -> SourceReading:
    """Raises ValueError, TypeError, LookupError, OverflowError."""
    sha256 = packed["sha256"]
    files = tuple(_unpack(file) for file in packed["files"])
    return SourceReading(source=source, files=files, sha256=None if sha256 is None else str(sha256))


def _pack(file: FileReading) -> list[Any]:
    return [file.name, file.digest, None if file.sides is None else list(file.sides), file.fault]


def _unpack(packed: Sequence[Any]) -> FileReading:
    """Raises ValueError, TypeError, LookupError, OverflowError."""
    name, digest, sides, fault = packed
    return FileReading(
        name=str(name),
        digest=None if digest is None else str(digest),
        sides=None if sides is None else (int(sides[0]), int(sides[1])),
        fault=None if fault is None else _parse_fault(fault),
    )


def _parse_fault(text: str) -> EntryFault | ImageFault:
    return EntryFault(text) if text in set(EntryFault) else ImageFault(text)
