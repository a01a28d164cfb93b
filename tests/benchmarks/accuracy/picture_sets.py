"""Sets of photographs: a folder for each set, in it a zip for each class; `negatives.zip` holds negative examples."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_model.preprocessing import Preprocessing, decode_image
from ocelli_storage.archives import EXAMPLE_KINDS, ArchiveImage, ImageArchive
from ocelli_storage.image_file import ImageError

NEGATIVES = "negatives"
NEGATIVE = -1
"""The label of a negative example. The others are indices of classes."""
_SMALLEST = Preprocessing(height=32, width=32)


class PictureSetsError(Exception):
    """There is nothing to measure with. The message names the folder and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSet:
    """The pictures of one set that can be decoded, without duplicates."""

    name: str
    class_names: tuple[str, ...]
    pictures: tuple[bytes, ...]
    """The bytes of the files, as the zips have them."""
    labels: NDArray[np.intp]
    """For each picture the index of its class, or `NEGATIVE`."""

    @property
    def has_negatives(self) -> bool:
        return bool((self.labels == NEGATIVE).any())

    def decode(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """All pictures, as the trainer and the server decode them: uint8[N, height, width, 3]."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            return np.stack(list(threads.map(lambda data: decode_image(data, preprocessing), self.pictures)))


def load_sets(folder: Path) -> list[PictureSet]:
    """The sets in a folder: its subfolders with zips of two classes at least.

    Raises:
        PictureSetsError: there is none.
    """
    sets = []
    for subfolder in sorted(path for path in folder.glob("*") if path.is_dir()):
        zips = sorted(subfolder.glob("*.zip"))
        if sum(path.stem != NEGATIVES for path in zips) >= 2:
            sets.append(_load_set(subfolder.name, zips))
    if not sets:
        raise PictureSetsError(
            f"{folder} holds no photographs to measure with; set DATA to a folder that has a subfolder for each set, "
            "and in it a zip of pictures for each class (negatives.zip: negative examples)"
        )
    return sets


def _load_set(name: str, zips: list[Path]) -> PictureSet:
    class_names = tuple(path.stem for path in zips if path.stem != NEGATIVES)
    pictures: dict[str, tuple[bytes, int]] = {}
    for path in zips:
        label = NEGATIVE if path.stem == NEGATIVES else class_names.index(path.stem)
        with ImageArchive(path, kinds=EXAMPLE_KINDS) as archive:
            for item in archive:
                if isinstance(item, ArchiveImage) and _can_be_decoded(item.data):
                    pictures.setdefault(hashlib.sha256(item.data).hexdigest(), (item.data, label))
    return PictureSet(
        name=name,
        class_names=class_names,
        pictures=tuple(data for data, _ in pictures.values()),
        labels=np.array([label for _, label in pictures.values()], dtype=np.intp),
    )


def _can_be_decoded(data: bytes) -> bool:
    try:
        decode_image(data, _SMALLEST)
    except ImageError:
        return False
    return True
