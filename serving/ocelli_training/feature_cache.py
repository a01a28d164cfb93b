"""The feature cache: features and fingerprints of the images of a Classifier's last training, so that a retrain computes
those of new images only.

It is part of the data about images (`image_data`) of the revision that was trained last: for each customer a file of
examples and a file of test images, which have no other views. A file is a line of JSON, then the images' digests, sides,
features and fingerprints as they were computed, bit by bit. So a training gives the same artifact with and without it. A file
that is not usable is ignored. It must not know classes or sources.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import BackboneMetadata, Precision
from ocelli_storage.layout import ClassifierLocation, is_image_data
from ocelli_storage.object_store import ObjectStore, ObjectStoreError
from ocelli_training.fit import View
from ocelli_training.image_data import rows_by_customer
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS

FEATURES = "features.bin"
TEST_FEATURES = "test-features.bin"
LIMIT_BYTES = 256 * 1024 * 1024
"""The size of all files of a cache; images beyond it are computed each time. It counts against the namespace's quota."""
_FORMAT = 2
"""To be increased when pixels, views or fingerprints of the same image change."""
_HEADER_BYTES = 4096
_DIGEST_BYTES = 32
_SIDES_BYTES = 8
_HASHED_ROWS = 4096
_LIBRARIES = ("numpy", "openvino", "pillow", "torch")
"""The versions of these may change a feature's rounding."""

logger = logging.getLogger(__name__)


class FeatureCacheError(Exception):
    """A stored file cannot be used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """What was computed of N images."""

    digests: Sequence[str]
    """SHA-256 (hex) of each image's file."""
    sides: NDArray[np.int32]
    """int32[N, 2]: the shorter and the longer side in pixels, as stored."""
    features: NDArray[np.float32]
    """float32[N, D]: of the whole images."""
    other_views: Mapping[View, NDArray[np.float32]]
    """float32[N, D] each."""
    prints: NDArray[np.float16]
    """float16[N, 3072], see `near_duplicates.fingerprints`."""

    @property
    def row_bytes(self) -> int:
        """What an image takes in a file."""
        return _DIGEST_BYTES + sum(array[:1].nbytes for array in self.arrays)

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """All of them, in the order of the file."""
        return [self.sides, self.features, *(self.other_views[view] for view in sorted(self.other_views)), self.prints]


class KnownImages:
    """Images whose features are cached."""

    def __init__(self, parts: Sequence[ImageFeatures] = (), without: Collection[str] = ()) -> None:
        """Of an image in several parts, the one with the most views counts. `without` are digests to leave out."""
        self._parts = parts
        self._places = {
            digest: (part, row)
            for part in sorted(parts, key=lambda part: len(part.other_views))
            for row, digest in enumerate(part.digests)
            if digest not in without
        }

    def __len__(self) -> int:
        return len(self._places)

    def find(self, digest: str) -> tuple[ImageFeatures, int] | None:
        """Where an image is, with its row; None if it is not known."""
        return self._places.get(digest)

    def sides(self, digest: str) -> tuple[int, int] | None:
        """The shorter and the longer side of an image, as stored; None if it is not known."""
        place = self._places.get(digest)
        if place is None:
            return None
        shorter, longer = place[0].sides[place[1]].tolist()
        return shorter, longer

    def without(self, digests: Collection[str]) -> KnownImages:
        """The others."""
        return KnownImages(self._parts, digests)


def describe_computation(metadata: BackboneMetadata, device: Accelerator, precision: Precision) -> str:
    """A digest (hex) of everything that decides, to the last bit, which features an image has.

    The instruction sets of the processor are part of it: libraries choose their code by them, and these round differently.
    """
    parts = {
        "format": _FORMAT,
        "backbone": metadata.digest,
        "precision": precision,
        "device": device,
        "processor": [platform.machine(), _instruction_sets(), _gpu_name() if device is Accelerator.GPU else ""],
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Written:
    """A file that waits to be stored."""

    path: Path
    customer: str | None
    name: str


class FeatureCache:
    """The cache of one Classifier. Errors of the store never fail a training: they are logged."""

    def __init__(self, store: ObjectStore, location: ClassifierLocation, scratch: Path) -> None:
        """`scratch` is a folder for copies."""
        self._store = store
        self._location = location
        self._scratch = scratch
        self._written: list[_Written] = []

    async def load(self, computation: str, feature_count: int) -> KnownImages:
        """The cached images of the same computation, see `describe_computation`."""
        parts: list[ImageFeatures] = []
        left_bytes = LIMIT_BYTES
        try:
            for number, key in enumerate(await self._find()):
                copy = self._scratch / f"cached-{number}.bin"
                try:
                    left_bytes -= await self._fetch(key, copy, left_bytes)
                    parts.append(read_features(copy, self._location.classifier_id, computation, feature_count))
                except (FeatureCacheError, OSError) as error:
                    logger.warning("features.cache_ignored", extra={"error": f"{key}: {error}"})
                    copy.unlink(missing_ok=True)
        except ObjectStoreError as error:
            logger.warning("features.cache_ignored", extra={"error": str(error)})
        return KnownImages(parts)

    def prepare(self, computation: str, name: str, computed: ImageFeatures, customers: Sequence[str | None]) -> None:
        """Write files that `save` will store to the scratch folder, so that they take no memory meanwhile.

        `name` is `FEATURES` or `TEST_FEATURES`; `customers` are the keys of the customers whose images they are.
        """
        left_bytes = LIMIT_BYTES - sum(written.path.stat().st_size for written in self._written)
        for customer, rows in rows_by_customer(customers).items():
            rows = rows[: max(0, left_bytes - _HEADER_BYTES) // computed.row_bytes]
            if not len(rows):
                continue
            path = self._scratch / f"new-{len(self._written)}.bin"
            try:
                write_features(path, self._location.classifier_id, computation, computed, rows)
                left_bytes -= path.stat().st_size
            except OSError as error:
                logger.warning("features.not_cached", extra={"error": str(error)})
                path.unlink(missing_ok=True)
                return
            self._written.append(_Written(path=path, customer=customer, name=name))

    async def save(self, revision: str, erased: Collection[str]) -> None:
        """Store the prepared files for a revision, without those of erased customers, and delete those of other revisions."""
        keys: set[str] = set()
        size_bytes = 0
        try:
            for written in self._written:
                if written.customer not in erased:
                    key = self._location.image_data_key(revision, written.customer, written.name)
                    await self._store.put(key, written.path)
                    keys.add(key)
                    size_bytes += written.path.stat().st_size
            for other in await self._find():
                if other not in keys:
                    await self._store.delete(other)
        except (ObjectStoreError, OSError) as error:
            logger.warning("features.not_cached", extra={"error": str(error)})
        else:
            logger.info("features.cached", extra={"files": len(keys), "bytes": size_bytes})
        finally:
            for written in self._written:
                written.path.unlink(missing_ok=True)

    async def _find(self) -> list[str]:
        """The keys of all files, the newest first."""
        objects = await self._store.list_objects(self._location.artifacts_prefix)
        found = [
            item for item in objects if is_image_data(item.key) and item.key.endswith((f"/{FEATURES}", f"/{TEST_FEATURES}"))
        ]
        return [item.key for item in sorted(found, key=lambda item: (item.modified_at, item.key), reverse=True)]

    async def _fetch(self, key: str, copy: Path, limit_bytes: int) -> int:
        """Copy a file to the scratch folder. Returns its size."""
        size_bytes = 0
        with copy.open("wb") as file:
            async for chunk in self._store.open_read(key):
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise FeatureCacheError(f"all files together have more than {LIMIT_BYTES:,} bytes")
                file.write(chunk)
        return size_bytes


def write_features(path: Path, classifier_id: str, computation: str, computed: ImageFeatures, rows: NDArray[np.intp]) -> None:
    """Write a file of these rows.

    Raises:
        OSError: the file cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        # The digest is known at the end. A header has one size.
        file.write(b"\0" * _HEADER_BYTES)
        names = bytes.fromhex("".join(computed.digests[row] for row in rows.tolist()))
        digest.update(names)
        file.write(names)
        for array in computed.arrays:
            for start in range(0, len(rows), _HASHED_ROWS):
                block = np.ascontiguousarray(array[rows[start : start + _HASHED_ROWS]]).view(np.uint8).data
                digest.update(block)
                file.write(block)
        header = {
            "classifier": classifier_id,
            "computation": computation,
            "images": len(rows),
            "features": computed.features.shape[1],
            "views": sorted(computed.other_views),
            "sha256": digest.hexdigest(),
        }
        file.seek(0)
        file.write(json.dumps(header).encode().ljust(_HEADER_BYTES - 1) + b"\n")


def read_features(path: Path, classifier_id: str, computation: str, feature_count: int) -> ImageFeatures:
    """The content of a file, mapped, not read: it must stay as long as it is used.

    Raises:
        FeatureCacheError: it is truncated, damaged, of another Classifier, or made by another computation.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(_HEADER_BYTES))
            made_by = (header["classifier"], header["computation"], header["features"])
            count, views, expected = int(header["images"]), [View(name) for name in header["views"]], str(header["sha256"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FeatureCacheError("the feature cache has no valid header") from error
        if made_by != (classifier_id, computation, feature_count):
            raise FeatureCacheError("the feature cache was made for another Classifier, backbone, processor or library")
        parts = [_DIGEST_BYTES, _SIDES_BYTES, *[4 * feature_count] * (1 + len(views)), 2 * FINGERPRINT_NUMBERS]
        if count < 1 or size_bytes != _HEADER_BYTES + count * sum(parts):
            raise FeatureCacheError(f"the feature cache has {size_bytes:,} bytes, which is not the size for {count} images")
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise FeatureCacheError("the feature cache does not have the digest that its header names; it is damaged")
    starts = np.cumsum([_HEADER_BYTES, *(count * part for part in parts)]).tolist()
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    names, sides, *rows, prints = [mapped[start:end] for start, end in pairwise(starts)]
    features = [part.view(np.float32).reshape(count, feature_count) for part in rows]
    return ImageFeatures(
        digests=[name.tobytes().hex() for name in names.reshape(count, _DIGEST_BYTES)],
        sides=sides.view(np.int32).reshape(count, 2),
        features=features[0],
        other_views=dict(zip(views, features[1:], strict=True)),
        prints=prints.view(np.float16).reshape(count, FINGERPRINT_NUMBERS),
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name()


def _instruction_sets() -> str:
    """The flags of the first processor as Linux lists them; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features"))), "")
