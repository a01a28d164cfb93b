"""TIFF files of every kind: decoded to the colours that the specification gives them, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ocelli_model.preprocessing import Preprocessing, decode_image
from ocelli_storage.image_file import ImageError
from tests.unit.model.images import encode, make_pixels
from tests.unit.model.tiffs import (
    BLACK_IS_ZERO,
    CIELAB,
    CMYK,
    DEFLATE,
    FLOAT,
    HEIGHT,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    WIDTH,
    YCBCR,
    TiffKind,
    colours_of,
    every_kind,
    make_samples,
    make_tiff,
)

AS_STORED = Preprocessing(height=HEIGHT, width=WIDTH)
COMMON = [
    *(
        TiffKind(photometric=photometric, bits=bits)
        for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        for bits in (1, 2, 4, 8, 16)
    ),
    TiffKind(photometric=BLACK_IS_ZERO, bits=16, byte_order=">"),
    TiffKind(photometric=BLACK_IS_ZERO, bits=12),
    TiffKind(photometric=BLACK_IS_ZERO, bits=32, sample_format=FLOAT),
    TiffKind(photometric=BLACK_IS_ZERO, extra=2),
    *(TiffKind(photometric=RGB, bits=bits, byte_order=order) for bits in (8, 16) for order in "<>"),
    *(TiffKind(photometric=RGB, extra=extra) for extra in (0, 1, 2)),
    TiffKind(photometric=RGB, planar=2),
    *(TiffKind(photometric=PALETTE, bits=bits) for bits in (1, 2, 4, 8)),
    TiffKind(photometric=CMYK),
    TiffKind(photometric=YCBCR),
]


def decode(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return decode_image(data, AS_STORED)
    except ImageError:
        return None


@pytest.mark.slow
def test_no_kind_of_tiff_is_decoded_to_wrong_colours() -> None:
    wrong: list[TiffKind] = []
    for kind in every_kind():
        samples = make_samples(kind)
        decoded = decode(make_tiff(kind, samples))
        if decoded is None or kind.photometric == CIELAB:
            continue
        expected = colours_of(kind, samples)
        if expected is None or np.abs(decoded - expected).max() > 2:
            wrong.append(kind)

    assert wrong == []


@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("kind", COMMON, ids=str)
def test_the_common_kinds_are_decoded(kind: TiffKind, compression: int) -> None:
    kind = replace(kind, compression=compression)

    assert decode(make_tiff(kind, make_samples(kind))) is not None


@pytest.mark.parametrize("planar", [1, 2])
def test_lab_colours_are_right_or_refused(planar: int) -> None:
    samples = np.empty((HEIGHT, WIDTH, 3), dtype=np.int64)
    samples[:] = (138, 81, 70)

    decoded = decode(make_tiff(TiffKind(photometric=CIELAB, planar=planar), samples))

    if planar == 2:
        assert decoded is None
    else:
        assert decoded is not None
        assert np.abs(decoded - np.array([254, 0, 0])).max() < 12


def test_subsampled_colours_without_compression_are_refused() -> None:
    kind = TiffKind(photometric=YCBCR)

    assert decode(make_tiff(kind, make_samples(kind), more_tags={530: (2, 2)})) is None


def test_other_inks_than_those_of_cmyk_are_refused() -> None:
    kind = TiffKind(photometric=CMYK)

    assert decode(make_tiff(kind, make_samples(kind), more_tags={332: (2,)})) is None


def test_a_palette_of_8_bits_in_fields_of_16_is_not_black() -> None:
    kind = TiffKind(photometric=PALETTE)
    samples = make_samples(kind)
    colours = tuple((index * factor) % 256 for factor in (37, 91, 153) for index in range(256))

    decoded = decode(make_tiff(kind, samples, more_tags={320: colours}))

    assert decoded is not None
    assert np.array_equal(decoded, np.stack([(samples[..., 0] * factor) % 256 for factor in (37, 91, 153)], axis=2))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_compressed_files_have_their_colours(mode: str, compression: str) -> None:
    image = Image.fromarray(make_pixels(height=48, width=64)).convert(mode)

    decoded = decode_image(encode(image, "TIFF", compression=compression), Preprocessing(height=48, width=64))

    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_a_fax_has_its_colours(compression: str) -> None:
    image = Image.fromarray(make_pixels(height=48, width=64)).convert("1")

    decoded = decode_image(encode(image, "TIFF", compression=compression), Preprocessing(height=48, width=64))

    assert np.array_equal(decoded[..., 0], np.asarray(image.convert("L")))


def test_damaged_file_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    image = bytearray(encode(Image.fromarray(make_pixels(height=48, width=64)), "TIFF", compression="tiff_lzw"))
    image[200:1200:7] = bytes(0x5A ^ byte for byte in image[200:1200:7])

    with pytest.raises(ImageError):
        decode_image(bytes(image), Preprocessing(height=48, width=64))

    assert capfd.readouterr().err == ""
