"""The feature cache: features and fingerprints of the pictures of a Classifier's last training, so that a retrain computes
those of new pictures only.

It is one object next to the artifact of the revision that was trained last, see `ocelli_storage.layout`: a line of JSON, then
the pictures' digests, features and fingerprints as they were computed, bit by bit. So a training gives the same artifact with
and without it. A cache that is not usable is ignored. It must not know classes or sources.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import BackboneMetadata, Precision
from ocelli_storage.layout import FEATURES, ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError
from ocelli_training.fit import View
from ocelli_training.near_duplicates import FINGERPRINT_NUMBERS

LIMIT_BYTES = 256 * 1024 * 1024
"""The size of the largest cache; pictures beyond it are computed each time. It counts against the namespace's quota."""
_FORMAT = 1
"""To be increased when pixels, views or fingerprints of the same picture change."""
_HEADER_BYTES = 4096
_DIGEST_BYTES = 32
_HASHED_ROWS = 4096
_LIBRARIES = ("numpy", "openvino", "pillow", "torch")
"""The versions of these may change a feature's rounding."""

logger = logging.getLogger(__name__)


class FeatureCacheError(Exception):
    """A stored cache cannot be used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFeatures:
    """What was computed of N pictures."""

    digests: Sequence[str]
    """SHA-256 (hex) of each picture's file."""
    features: NDArray[np.float32]
    """float32[N, D]: of the whole pictures."""
    other_views: Mapping[View, NDArray[np.float32]]
    """float32[N, D] each."""
    prints: NDArray[np.float16]
    """float16[N, 3072], see `near_duplicates.fingerprints`."""

    def _arrays(self, views: Sequence[View]) -> list[NDArray[Any]]:
        return [self.features, *(self.other_views[view] for view in views), self.prints]


def describe_computation(metadata: BackboneMetadata, device: Accelerator, precision: Precision) -> str:
    """A digest (hex) of everything that decides, to the last bit, which features a picture has.

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


class FeatureCache:
    """The caches of one Classifier. Errors of the store never fail a training: they are logged."""

    def __init__(self, store: ObjectStore, location: ClassifierLocation, scratch: Path) -> None:
        """`scratch` is a folder for a copy."""
        self._store = store
        self._location = location
        self._copy = scratch / FEATURES
        # Another file: rows of the loaded cache are in use until the end.
        self._made = scratch / f"new-{FEATURES}"

    async def load(self, computation: str, feature_count: int) -> PictureFeatures | None:
        """The newest cache if it was made by the same computation, see `describe_computation`; None if there is none."""
        try:
            keys = await self._find()
            if not keys:
                return None
            await self._fetch(keys[0])
            return read_cache(self._copy, self._location.classifier_id, computation, feature_count)
        except (ObjectStoreError, FeatureCacheError) as error:
            logger.warning("features.cache_ignored", extra={"error": str(error)})
            return None

    def prepare(self, computation: str, computed: PictureFeatures) -> None:
        """Write what `save` will store to the scratch folder, so that it takes no memory meanwhile."""
        try:
            write_cache(self._made, self._location.classifier_id, computation, computed)
        except OSError as error:
            logger.warning("features.not_cached", extra={"error": str(error)})
            self._made.unlink(missing_ok=True)

    async def save(self, revision: str) -> None:
        """Store the prepared cache next to the artifact of the revision, and delete those of other revisions."""
        key = self._location.artifact_key(revision, FEATURES)
        if not self._made.exists():
            return
        try:
            size_bytes = self._made.stat().st_size
            await self._store.put(key, self._made)
            for other in await self._find():
                if other != key:
                    await self._store.delete(other)
        except (ObjectStoreError, OSError) as error:
            logger.warning("features.not_cached", extra={"error": str(error)})
        else:
            logger.info("features.cached", extra={"bytes": size_bytes})
        finally:
            self._made.unlink(missing_ok=True)

    async def delete(self) -> None:
        """Delete every cache. Raises StoreUnavailableError."""
        for key in await self._find():
            await self._store.delete(key)

    async def _find(self) -> list[str]:
        """The keys of all caches, the newest first."""
        objects = await self._store.list_objects(self._location.artifacts_prefix)
        caches = [item for item in objects if item.key.rsplit("/", 1)[-1] == FEATURES]
        return [item.key for item in sorted(caches, key=lambda item: (item.modified_at, item.key), reverse=True)]

    async def _fetch(self, key: str) -> None:
        size_bytes = 0
        with self._copy.open("wb") as file:
            async for chunk in self._store.open_read(key):
                size_bytes += len(chunk)
                if size_bytes > LIMIT_BYTES:
                    raise FeatureCacheError(f"{key} has more than {LIMIT_BYTES:,} bytes")
                file.write(chunk)


def write_cache(path: Path, classifier_id: str, computation: str, computed: PictureFeatures) -> None:
    """Write a cache file of as many pictures as `LIMIT_BYTES` allows, from the first on.

    Raises:
        OSError: the file cannot be written.
    """
    views = sorted(computed.other_views)
    arrays = computed._arrays(views)
    row_bytes = _DIGEST_BYTES + sum(array[:1].nbytes for array in arrays)
    count = min(len(computed.digests), (LIMIT_BYTES - _HEADER_BYTES) // max(row_bytes, 1))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        # The digest is known at the end. A header has one size.
        file.write(b"\0" * _HEADER_BYTES)
        names = b"".join(map(bytes.fromhex, computed.digests[:count]))
        digest.update(names)
        file.write(names)
        for array in arrays:
            for start in range(0, count, _HASHED_ROWS):
                block = np.ascontiguousarray(array[start : min(start + _HASHED_ROWS, count)]).view(np.uint8).data
                digest.update(block)
                file.write(block)
        header = {
            "classifier": classifier_id,
            "computation": computation,
            "images": count,
            "features": computed.features.shape[1],
            "views": views,
            "sha256": digest.hexdigest(),
        }
        file.seek(0)
        file.write(json.dumps(header).encode().ljust(_HEADER_BYTES - 1) + b"\n")


def read_cache(path: Path, classifier_id: str, computation: str, feature_count: int) -> PictureFeatures:
    """The content of a cache file, mapped, not read: the file must stay as long as it is used.

    Raises:
        FeatureCacheError: it is truncated, damaged, of another Classifier, or made by another computation.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(_HEADER_BYTES))
            made_by = (header["classifier"], header["computation"], header["features"])
            count, views, expected = int(header["images"]), [View(name) for name in header["views"]], str(header["sha256"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FeatureCacheError("the feature cache has no valid header") from error
        if made_by != (classifier_id, computation, feature_count):
            raise FeatureCacheError("the feature cache was made for another Classifier, backbone, processor or library")
        parts = [_DIGEST_BYTES, *[4 * feature_count] * (1 + len(views)), 2 * FINGERPRINT_NUMBERS]
        if count < 1 or size_bytes != _HEADER_BYTES + count * sum(parts):
            raise FeatureCacheError(f"the feature cache has {size_bytes:,} bytes, which is not the size for {count} pictures")
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise FeatureCacheError("the feature cache does not have the digest that its header names; it is damaged")
    starts = np.cumsum([_HEADER_BYTES, *(count * part for part in parts)]).tolist()
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    names, *rows, prints = [mapped[start:end] for start, end in pairwise(starts)]
    features = [part.view(np.float32).reshape(count, feature_count) for part in rows]
    text = names.tobytes().hex()
    return PictureFeatures(
        digests=[text[start : start + 2 * _DIGEST_BYTES] for start in range(0, len(text), 2 * _DIGEST_BYTES)],
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
