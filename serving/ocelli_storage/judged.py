"""Judged scores: what each image scored with heads that did not learn from it, by the SHA-256 of its bytes.

They are stored next to the artifact, outside its digest, so that a later revision can be compared with this one on the same
images, and people can see them. Each customer's images have a file of their own. Pods of tenants can write these files, so
their sizes are bounded and nothing in them is trusted.

Tensors: `digests` uint8[N, 32]; `scores` float32[N, C]; `actual` int32[N], the class or -1 for a negative example; `groups`
int32[N], equal for near duplicates; `tested` uint8[N], 1 for images of the Classifier's own test set. Metadata: the classes,
and how many images the revision learned from in all files together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ocelli_api.classifier import CLASSES_LIMIT
from ocelli_api.prediction import DECISION_THRESHOLD
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoredObject

JUDGED = "judged.safetensors"
FORMAT_VERSION = "1"
NEGATIVE = -1
"""`actual` of a negative example. As an index it means the last entry."""
LIMIT_BYTES = 256 * MEGABYTE
"""Of all files of a revision. 50,000 images with 500 scores each take 100 MB."""
_HEADER_LIMIT_BYTES = MEGABYTE
"""500 class names of 128 characters take a quarter of it. Parsed JSON takes up to 30 times as much memory."""

_DIGEST_BYTES = 32
_KINDS = {"digests": np.uint8, "scores": np.float32, "actual": np.int32, "groups": np.int32, "tested": np.uint8}

_DAMAGED = (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a file can raise. Pods of the tenant can write any content."""


class JudgedError(Exception):
    """A revision has no usable judged scores. The message is a fact about the revision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Judged scores of N images by a revision with C classes."""

    class_names: tuple[str, ...]
    has_negatives: bool
    """It learned negative examples, so that it can answer "none of the classes"."""
    digests: tuple[str, ...]
    """SHA-256 (hex)."""
    scores: NDArray[np.float32]
    """float32[N, C]."""
    actual: NDArray[np.int32]
    """int32[N]: the class, or `NEGATIVE`."""
    groups: NDArray[np.int32]
    """int32[N]: equal for near duplicates."""
    tested: NDArray[np.bool_]
    """bool[N]: it belongs to the Classifier's own test set."""
    learned_count: int
    """Number of images that the revision learned from. Where fewer of them are here, some were erased."""

    def __post_init__(self) -> None:
        count = len(self.digests)
        if not 0 < len(self.class_names) <= CLASSES_LIMIT:
            raise ValueError(f"it has {len(self.class_names)} classes; the limit is {CLASSES_LIMIT}")
        if self.scores.shape != (count, len(self.class_names)) or any(
            array.shape != (count,) for array in (self.actual, self.groups, self.tested)
        ):
            raise ValueError("the shapes of its arrays do not match")
        # Not a number is neither.
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("it contains invalid scores")
        if (self.actual < NEGATIVE).any() or (self.actual >= len(self.class_names)).any():
            raise ValueError("it contains invalid classes")

    @property
    def is_complete(self) -> bool:
        """Whether every image that the revision learned from is here."""
        return int((~self.tested).sum()) == self.learned_count

    @property
    def predicted(self) -> NDArray[np.intp]:
        """intp[N]: see `predict_classes`."""
        return predict_classes(self.scores, has_negatives=self.has_negatives)

    def take(self, rows: NDArray[np.intp]) -> Judged:
        """Some of the images, by their rows."""
        return Judged(
            class_names=self.class_names,
            has_negatives=self.has_negatives,
            digests=tuple(self.digests[row] for row in rows.tolist()),
            scores=self.scores[rows],
            actual=self.actual[rows],
            groups=self.groups[rows],
            tested=self.tested[rows],
            learned_count=self.learned_count,
        )


def predict_classes(scores: NDArray[np.float32], *, has_negatives: bool) -> NDArray[np.intp]:
    """The predicted class of each image, intp[N], from its scores float32[N, C]: the one with the highest score.

    If negative examples were learned or judged, a highest score below 0.5 means none of the classes: `NEGATIVE`.
    """
    best: NDArray[np.intp] = scores.argmax(axis=1)
    if not has_negatives:
        return best
    predicted: NDArray[np.intp] = np.where(scores.max(axis=1) < DECISION_THRESHOLD, NEGATIVE, best)
    return predicted


async def save_judged(
    store: ObjectStore, location: ClassifierLocation, revision: str, parts: Mapping[str | None, Judged]
) -> None:
    """Store judged scores, see `split_by_customer`. All image data of an earlier attempt is deleted first."""
    await store.delete_prefix(location.image_data_prefix(revision))
    for customer, judged in parts.items():
        await store.put(location.image_data_key(revision, customer, JUDGED), _build_file(judged))


async def load_judged(store: ObjectStore, location: ClassifierLocation, revision: str) -> Judged:
    """All judged scores of a revision.

    Raises:
        JudgedError: there are none, or they cannot be used.
        StoreUnavailableError: see there.
    """
    return await read_judged(store, revision, await store.list_objects(location.image_data_prefix(revision)))


async def read_judged(
    store: ObjectStore, revision: str, objects: Sequence[StoredObject], *, limit_bytes: int = LIMIT_BYTES
) -> Judged:
    """The judged scores in these objects of a revision, at most `limit_bytes` of them; other objects are left out.

    Raises: as `load_judged`.
    """
    files = sorted((item for item in objects if is_judged(item.key)), key=lambda item: item.key)
    if sum(item.size_bytes for item in files) > limit_bytes:
        raise JudgedError(f"revision {revision} has more than {limit_bytes:,} bytes of stored scores")
    parts = []
    for item in files:
        try:
            # The listed size was counted, so it is the limit.
            content = await store.get(item.key, limit_bytes=item.size_bytes)
            parts.append(await asyncio.to_thread(_parse_file, content))
        except ObjectNotFoundError:
            # It was erased since the listing.
            continue
        except (ObjectTooLargeError, *_DAMAGED) as error:
            raise JudgedError(f"the stored scores of revision {revision} are damaged") from error
    if not parts:
        raise JudgedError(
            f"revision {revision} has no stored scores, because an earlier release trained it or its examples were erased"
        )
    first = parts[0]
    if {(part.class_names, part.has_negatives, part.learned_count) for part in parts} != {
        (first.class_names, first.has_negatives, first.learned_count)
    }:
        raise JudgedError(f"the stored scores of revision {revision} are damaged")
    return Judged(
        class_names=first.class_names,
        has_negatives=first.has_negatives,
        digests=tuple(digest for part in parts for digest in part.digests),
        scores=np.concatenate([part.scores for part in parts]),
        actual=np.concatenate([part.actual for part in parts]),
        groups=np.concatenate([part.groups for part in parts]),
        tested=np.concatenate([part.tested for part in parts]),
        learned_count=first.learned_count,
    )


def is_judged(key: str) -> bool:
    """Whether a key of a revision is that of judged scores."""
    return key.endswith(f"/{JUDGED}")


def _build_file(judged: Judged) -> bytes:
    tensors: dict[str, NDArray[Any]] = {
        "digests": np.frombuffer(bytes.fromhex("".join(judged.digests)), dtype=np.uint8).reshape(-1, 32),
        "scores": np.ascontiguousarray(judged.scores, dtype=np.float32),
        "actual": np.ascontiguousarray(judged.actual, dtype=np.int32),
        "groups": np.ascontiguousarray(judged.groups, dtype=np.int32),
        "tested": judged.tested.astype(np.uint8),
    }
    facts = {
        "formatVersion": FORMAT_VERSION,
        "classes": json.dumps(judged.class_names, ensure_ascii=False),
        "hasNegatives": json.dumps(judged.has_negatives),
        "learnedImages": json.dumps(judged.learned_count),
    }
    content: bytes = safetensors.numpy.save(tensors, facts)
    return content


def _parse_file(content: bytes) -> Judged:
    """Raises one of `_DAMAGED`."""
    # By the format, the JSON header follows its length in 8 bytes.
    header_bytes = int.from_bytes(content[:8], "little")
    if header_bytes > _HEADER_LIMIT_BYTES:
        raise ValueError(f"its header has {header_bytes:,} bytes")
    # The library returns no metadata.
    facts = json.loads(content[8 : 8 + header_bytes])["__metadata__"]
    if facts["formatVersion"] != FORMAT_VERSION:
        raise ValueError(f"its format version is {facts['formatVersion']}")
    tensors = safetensors.numpy.load(content)
    if any(tensors[name].dtype != kind for name, kind in _KINDS.items()):
        raise ValueError("a tensor has another type")
    digests = tensors["digests"]
    if digests.ndim != 2 or digests.shape[1] != _DIGEST_BYTES:
        raise ValueError("its digests have another length")
    return Judged(
        class_names=_parse_names(json.loads(facts["classes"])),
        has_negatives=bool(json.loads(facts["hasNegatives"])),
        digests=tuple(row.tobytes().hex() for row in digests),
        scores=tensors["scores"],
        actual=tensors["actual"],
        groups=tensors["groups"],
        tested=tensors["tested"].astype(np.bool_),
        learned_count=int(json.loads(facts["learnedImages"])),
    )


def _parse_names(names: Any) -> tuple[str, ...]:
    """Raises ValueError, TypeError."""
    found = tuple(str(name) for name in names)
    # JSON allows lone surrogates, which cannot be sent.
    "".join(found).encode()
    if len(set(found)) != len(found):
        raise ValueError("two of its classes have the same name")
    return found
