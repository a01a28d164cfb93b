"""Which TIFFs Pillow decodes to their own colours, and the settings that it lacks for them."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import ImagePalette, TiffImagePlugin

WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_COLOUR_MAP, _INK_SET, _CODED_COLOURS, _SUBSAMPLING, _REFERENCE_LEVELS = 320, 332, 529, 530, 532
_FAX = ("group3", "group4", "tiff_ccitt")
_USUAL_COLOURS = (0.299, 0.587, 0.114)
_USUAL_LEVELS = (0, 255, 128, 255, 128, 255)


def is_decoded_correctly(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow decodes a TIFF to its own colours.

    Each case was compared with the specification, see `tests/unit/model/tiffs`.
    """
    _silence_libtiff()
    tags = image.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    sample_format = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
    compression = image.info.get("compression")
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2
    swapped = tags.prefix == TiffImagePlugin.MM and compression != "raw"
    return not (
        # Without this tag, only the colours of faxes are defined.
        (photometric is None and compression not in _FAX)
        or (photometric == WHITE_IS_ZERO and bits == 32)
        # It is unknown which value is white.
        or (sample_format == _SIGNED and bits <= 16)
        or (sample_format == _UNSIGNED and bits == 32)
        or (sample_format in (_SIGNED, _FLOAT) and swapped)
        or (planes and image.mode in ("LA", "La", "PA", "LAB"))
        or (planes and bits == 16 and image.mode in ("RGB", "RGBA", "CMYK") and compression == "raw")
        or (planes and tags.get(TiffImagePlugin.FILLORDER, 1) == 2)
        or (photometric == _CMYK and tags.get(_INK_SET, 1) != 1)
        or (photometric == _YCBCR and compression == "raw" and not _has_usual_coding(tags, 3 * image.width * image.height))
    )


def repair_palette(image: TiffImagePlugin.TiffImageFile) -> None:
    """Some programs write 8-bit colours into a map of 16 bits: Pillow would show such an image as black."""
    colours = image.tag_v2.get(_COLOUR_MAP)
    if image.mode in ("P", "PA") and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _has_usual_coding(tags: TiffImagePlugin.ImageFileDirectory_v2, size_bytes: int) -> bool:
    """Whether Y, Cb and Cr are coded as in JPEG, with one value of each for every pixel, which take `size_bytes` together."""
    counts = tags.get(TiffImagePlugin.STRIPBYTECOUNTS) or tags.get(TiffImagePlugin.TILEBYTECOUNTS) or (0,)
    colours = [float(value) for value in tags.get(_CODED_COLOURS, _USUAL_COLOURS)]
    levels = [float(value) for value in tags.get(_REFERENCE_LEVELS, _USUAL_LEVELS)]
    return (
        sum(counts) >= size_bytes
        and tuple(tags.get(_SUBSAMPLING, (1, 1))) == (1, 1)
        and np.allclose(colours, _USUAL_COLOURS, atol=1e-3)
        and np.allclose(levels, _USUAL_LEVELS)
    )


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to stderr for each damaged file. Pillow raises the error, and has no setting for this."""
    for path in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*"):
        library = ctypes.CDLL(str(path))
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
