"""Thumbnails of the images that a report shows, made from the pixels that the network gets.

They are encoded again, so nothing of the original file, such as its metadata, is in them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocelli_storage.thumbnails import THUMBNAIL_LIMIT_BYTES, build_thumbnail
from ocelli_training.dataset import Example

THUMBNAILS_LIMIT = 200
"""In one report: a page of about a megabyte."""
_SIDE_PIXELS = 128
_QUALITIES = (80, 50, 20)


def encode_thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG file of at most `THUMBNAIL_LIMIT_BYTES` with sides of at most 128 pixels, of an image uint8[height, width, 3]."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS))
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= THUMBNAIL_LIMIT_BYTES:
            break
    return file.getvalue()


def build_thumbnails(
    shown: Iterable[str],
    examples: Iterable[Example],
    find_pixels: Callable[[str], NDArray[np.uint8] | None],
    erased: Collection[str] = (),
) -> dict[str, str]:
    """Lines of HTML by digest, for the first `THUMBNAILS_LIMIT` of the images that a report shows.

    Args:
        shown: their digests, the most important first.
        examples: say whose images they are. Other images are not shown.
        find_pixels: the pixels of an image by its digest, uint8[height, width, 3]; None leaves it out.
        erased: keys of customers whose images must not be shown any more.
    """
    owners = {example.digest: example.customer for example in examples}
    lines: dict[str, str] = {}
    for digest in shown:
        if digest in lines or digest not in owners or owners[digest] in erased:
            continue
        if len(lines) >= THUMBNAILS_LIMIT:
            break
        image = find_pixels(digest)
        if image is not None:
            lines[digest] = build_thumbnail(encode_thumbnail(image), owners[digest])
    return lines
