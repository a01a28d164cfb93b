"""Images that were not decoded: those that are shown later are decoded from what was kept, up to a limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocelli_api.prediction import ImageFault
from ocelli_storage.image_file import ImageError
from ocelli_training.kept_images import KeptImages


def decode(data: bytes) -> NDArray[np.uint8]:
    if data == b"damaged":
        raise ImageError(ImageFault.CORRUPT, "damaged")
    return np.frombuffer(data, dtype=np.uint8)


def find(kept: KeptImages, digest: str) -> bytes | None:
    pixels = kept.find(digest)
    return None if pixels is None else pixels.tobytes()


def test_each_image_is_found_by_its_digest(tmp_path: Path) -> None:
    kept = KeptImages(tmp_path / "kept", decode)
    for digest, data in (("a", b"first"), ("b", b"second"), ("a", b"again")):
        kept.add(digest, data)
    assert [find(kept, digest) for digest in ("b", "a", "c")] == [b"second", b"first", None]


def test_images_above_the_limit_are_not_kept(tmp_path: Path) -> None:
    kept = KeptImages(tmp_path / "kept", decode, limit_bytes=8)
    for digest, data in (("a", b"12345"), ("b", b"6789"), ("c", b"678")):
        kept.add(digest, data)
    assert [find(kept, digest) for digest in ("a", "b", "c")] == [b"12345", None, b"678"]
    assert (tmp_path / "kept").stat().st_size == 8


def test_an_image_that_can_no_longer_be_decoded_is_left_out(tmp_path: Path) -> None:
    kept = KeptImages(tmp_path / "kept", decode)
    kept.add("a", b"damaged")
    assert kept.find("a") is None
