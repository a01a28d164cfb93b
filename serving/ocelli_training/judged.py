"""Judged scores: what each image scored with heads that did not learn from it, by the SHA-256 of its bytes.

They are stored next to the artifact, outside its digest, so that a later revision can be compared with this one on the same
images. Each customer's images have a file of their own, see `image_data`.

Tensors: `digests` uint8[N, 32]; `scores` float32[N, C]; `actual` int32[N], the class or -1 for a negative example; `groups`
int32[N], equal for near duplicates; `tested` uint8[N], 1 for images of the Classifier's own test set. Metadata: the classes,
and how many images the revision learned from in all files together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ocelli_storage.archives import MEGABYTE
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_training.dataset import Dataset
from ocelli_training.fit import Fit
from ocelli_training.image_data import rows_by_customer
from ocelli_training.own_test_set import TestImages

JUDGED = "judged.safetensors"
FORMAT_VERSION = "1"
NEGATIVE = -1
"""`actual` of a negative example. As an index it means the last entry."""
LIMIT_BYTES = 256 * MEGABYTE
"""50,000 images with 500 scores each take 100 MB."""

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
        if self.scores.shape != (count, len(self.class_names)) or any(
            array.shape != (count,) for array in (self.actual, self.groups, self.tested)
        ):
            raise ValueError("the shapes of its arrays do not match")
        if not np.isfinite(self.scores).all() or (self.actual < NEGATIVE).any() or (self.actual >= len(self.class_names)).any():
            raise ValueError("it contains invalid numbers")

    @property
    def is_complete(self) -> bool:
        """Whether every image that the revision learned from is here."""
        return int((~self.tested).sum()) == self.learned_count

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


def judge(fit: Fit, dataset: Dataset, groups: NDArray[np.intp], test: TestImages | None) -> Judged:
    """The judged scores of a training: out of fold for every example, then by the served heads for the test set.

    `groups` of near duplicates of the examples are intp[N].
    """
    examples, scores = dataset.examples, fit.scores
    if test is not None:
        examples = (*examples, *test.test_set.examples)
        scores = np.concatenate([scores, fit.heads.scores(test.features)])
        groups = np.concatenate([groups, test.groups])
    actual = np.array([example.set_index for example in examples], dtype=np.int32)
    # The negative examples are the set after those of the classes.
    actual[actual == len(dataset.class_names)] = NEGATIVE
    return Judged(
        class_names=dataset.class_names,
        has_negatives=bool((actual == NEGATIVE).any()),
        digests=tuple(example.digest for example in examples),
        scores=scores.astype(np.float32),
        actual=actual,
        groups=groups.astype(np.int32),
        tested=np.arange(len(examples)) >= len(dataset.examples),
        learned_count=len(dataset.examples),
    )


def split_by_customer(judged: Judged, customers: Sequence[str | None]) -> Mapping[str | None, Judged]:
    """The judged scores of each customer's images; at None those of all images without a customer.

    `customers` are the keys of the images' customers.
    """
    return {customer: judged.take(rows) for customer, rows in rows_by_customer(customers).items()}


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
    objects = await store.list_objects(location.image_data_prefix(revision))
    keys = sorted(item.key for item in objects if item.key.endswith(f"/{JUDGED}"))
    parts = []
    for key in keys:
        try:
            parts.append(_parse_file(await store.get(key, limit_bytes=LIMIT_BYTES)))
        except ObjectNotFoundError:
            # It was erased since the listing.
            continue
        except ObjectTooLargeError as error:
            raise JudgedError(f"revision {revision} has too many stored scores") from error
        except _DAMAGED as error:
            raise JudgedError(f"the stored scores of revision {revision} are damaged") from error
    if not parts:
        raise JudgedError(
            f"revision {revision} has no stored scores, because an earlier release trained it or its examples were erased"
        )
    first = parts[0]
    shared = {(part.class_names, part.has_negatives, part.learned_count) for part in parts}
    if len(shared) != 1:
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
    tensors = safetensors.numpy.load(content)
    # The library returns no metadata. By its format, the JSON header follows its length in 8 bytes.
    facts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if facts["formatVersion"] != FORMAT_VERSION:
        raise ValueError(f"its format version is {facts['formatVersion']}")
    digests = tensors["digests"].astype(np.uint8)
    return Judged(
        class_names=tuple(str(name) for name in json.loads(facts["classes"])),
        has_negatives=bool(json.loads(facts["hasNegatives"])),
        digests=tuple(row.tobytes().hex() for row in digests),
        scores=tensors["scores"].astype(np.float32),
        actual=tensors["actual"].astype(np.int32),
        groups=tensors["groups"].astype(np.int32),
        tested=tensors["tested"].astype(np.bool_),
        learned_count=int(json.loads(facts["learnedImages"])),
    )
