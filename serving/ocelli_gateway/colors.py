"""The colour classes of `default`, computed from the pixels of an image.

The palette is a selection from the XKCD colour survey (over 200,000 people named colours on screens; public domain, CC0 1.0,
https://xkcd.com/color/rgb.txt): its 48 most common names, and more where the distances between them were large. Distances are
those of CIE L*a*b* under D65, in which equal distances look about equally different. The eleven basic colour terms (Berlin and
Kay, 1969) reach further than others and have several centres: red must not become coral.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ocelli_gateway.wire import ScoredClass

FloatArray: TypeAlias = npt.NDArray[np.float64]

NAME_SUFFIX = " color"
SCORE_DECIMALS = 6
LEAST_SHARE = 0.01
"""Colours with a smaller share of the image are left out."""
_HALF_SCORE_SHARE = 0.1
"""The share of the image at which a colour has a score of 0.5."""

PALETTE: dict[str, str] = {
    "amber": "#feb308",
    "aqua": "#13eac9",
    "azure": "#069af3",
    "beige": "#e6daa6",
    "black": "#000000",
    "blue": "#0343df",
    "brick red": "#8f1402",
    "brown": "#653700",
    "burnt orange": "#c04e01",
    "charcoal": "#343837",
    "chestnut": "#742802",
    "coral": "#fc5a50",
    "cream": "#ffffc2",
    "crimson": "#8c000f",
    "cyan": "#00ffff",
    "dark blue": "#00035b",
    "dark brown": "#341c02",
    "dark gray": "#363737",
    "dark green": "#033500",
    "dark pink": "#cb416b",
    "dark purple": "#35063e",
    "dark red": "#840000",
    "dark teal": "#014d4e",
    "emerald": "#01a049",
    "forest green": "#06470c",
    "fuchsia": "#ed0dd9",
    "gold": "#dbb40c",
    "gray": "#929591",
    "green": "#15b01a",
    "hot pink": "#ff028d",
    "indigo": "#380282",
    "jade green": "#2baf6a",
    "khaki": "#aaa662",
    "lavender": "#c79fef",
    "lemon yellow": "#fdff38",
    "light blue": "#95d0fc",
    "light brown": "#ad8150",
    "light gray": "#d8dcd6",
    "light green": "#96f97b",
    "light pink": "#ffd1df",
    "lilac": "#cea2fd",
    "lime green": "#89fe05",
    "magenta": "#c20078",
    "maroon": "#650021",
    "mauve": "#ae7181",
    "medium gray": "#7d7f7c",
    "mint green": "#8fff9f",
    "mustard": "#ceb301",
    "navy blue": "#001146",
    "olive": "#6e750e",
    "olive green": "#677a04",
    "orange": "#f97306",
    "pale green": "#c7fdb5",
    "pale yellow": "#ffff84",
    "peach": "#ffb07c",
    "periwinkle": "#8e82fe",
    "pink": "#ff81c0",
    "plum": "#580f41",
    "purple": "#7e1e9c",
    "red": "#e50000",
    "reddish brown": "#7f2b0a",
    "reddish orange": "#f8481c",
    "rose": "#cf6275",
    "royal blue": "#0504aa",
    "sage green": "#88b378",
    "salmon": "#ff796c",
    "sea green": "#53fca1",
    "sky blue": "#75bbfd",
    "slate gray": "#59656d",
    "steel blue": "#5a7d9a",
    "tan": "#d1b26f",
    "taupe": "#b9a281",
    "teal": "#029386",
    "turquoise": "#06c2ac",
    "ultramarine": "#2000b1",
    "violet": "#9a0eea",
    "white": "#ffffff",
    "yellow": "#ffff14",
}

BASIC = ("black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "gray")
_FURTHER_CENTRES: dict[str, tuple[str, ...]] = {
    "red": ("#ff0000", "#cc2222", "#f44336"),
    "green": ("#00ff00", "#008000", "#4caf50"),
    "yellow": ("#ffff00", "#ffe000"),
    "blue": ("#0000ff", "#0000cd", "#2060d0"),
    "brown": ("#8b4513", "#795548"),
    "orange": ("#ffa500", "#ff8c00"),
    "pink": ("#ffc0cb", "#ff69b4"),
    "purple": ("#800080", "#9c27b0"),
    "gray": ("#808080", "#a9a9a9"),
    "navy blue": ("#000080",),
}
"""The same colours in style sheets and drawing programs."""
_BASIC_REACH = 1.5
"""How much further a basic term reaches from its centres than others."""

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""IEC 61966-2-1, D65."""
_WHITE = _SRGB_TO_XYZ.sum(axis=1)


def to_lab(pixels: npt.NDArray[np.uint8]) -> FloatArray:
    """sRGB pixels, uint8 of shape (N, 3), as CIE L*a*b* (CIE 15:2004), float64 of shape (N, 3)."""
    encoded = pixels.astype(np.float64) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    ratios = (linear @ _SRGB_TO_XYZ.T) / _WHITE
    delta = 6.0 / 29.0
    cube = np.where(ratios > delta**3, np.cbrt(ratios), ratios / (3 * delta**2) + 4.0 / 29.0)
    return np.stack([116.0 * cube[:, 1] - 16.0, 500.0 * (cube[:, 0] - cube[:, 1]), 200.0 * (cube[:, 1] - cube[:, 2])], axis=1)


_NAMES = tuple(PALETTE)
_CENTRES = [(name, value) for name, first in PALETTE.items() for value in (first, *_FURTHER_CENTRES.get(name, ()))]
_CENTRE_NAMES = np.array([_NAMES.index(name) for name, _ in _CENTRES])
_CENTRE_LAB = to_lab(np.array([list(bytes.fromhex(value[1:])) for _, value in _CENTRES], dtype=np.uint8))
_CENTRE_REACH = np.array([_BASIC_REACH if name in BASIC else 1.0 for name, _ in _CENTRES])


def name_colors(pixels: npt.NDArray[np.uint8]) -> list[ScoredClass]:
    """The colours of an image, uint8 of shape (height, width, 3), by descending share of the pixels nearest to each.

    The score is share^0.301: a tenth of the image gives 0.5, the whole image 1. A plain colour with noise is nearest to so few
    names that the first of them has a share of at least a tenth.
    """
    lab = to_lab(pixels.reshape(-1, 3))
    squares = (lab**2).sum(axis=1)[:, None] - 2 * lab @ _CENTRE_LAB.T + (_CENTRE_LAB**2).sum(axis=1)[None, :]
    # Rounding may make the distance of a colour to itself negative.
    nearest = _CENTRE_NAMES[np.argmin(np.maximum(squares, 0) / _CENTRE_REACH**2, axis=1)]
    shares = np.bincount(nearest, minlength=len(_NAMES)) / len(nearest)
    exponent = np.log(0.5) / np.log(_HALF_SCORE_SHARE)
    return [
        ScoredClass(class_name=_NAMES[index] + NAME_SUFFIX, score=round(float(shares[index] ** exponent), SCORE_DECIMALS))
        for index in np.argsort(-shares, kind="stable")
        if shares[index] >= LEAST_SHARE
    ]
