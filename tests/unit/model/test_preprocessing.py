import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ocelli_api.documents import build_document, parse_fields
from ocelli_api.prediction import ImageFault
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode, decode_image, mirrored
from ocelli_storage.archives import EXAMPLE_KINDS
from ocelli_storage.image_file import PIXELS_LIMIT, ImageError
from tests.unit.model.images import encode, make_file, make_pixels

SQUASH = Preprocessing(height=48, width=64)
SQUASH_CROP = Preprocessing(height=40, width=36, resize=ResizeMode.SQUASH_CROP, short_side_pixels=48)
CROP = Preprocessing(height=40, width=40, resize=ResizeMode.SHORT_SIDE_CROP, short_side_pixels=48)


def kind_of(data: bytes, **options: Any) -> ImageFault:
    with pytest.raises(ImageError) as caught:
        decode_image(data, SQUASH, **options)
    return caught.value.kind


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and contains almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG"])
def test_every_kind_is_scaled_to_the_size_of_the_backbone(image_format: str) -> None:
    pixels = make_pixels()

    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}

    decoded = decode_image(make_file(pixels, image_format, **options), SQUASH)

    assert decoded.dtype == np.uint8
    assert decoded.shape == (48, 64, 3)
    expected = np.asarray(Image.fromarray(pixels).resize((64, 48), Image.Resampling.BILINEAR))
    assert np.abs(decoded.astype(int) - expected).mean() < 5


def test_the_first_frame_of_a_gif_counts() -> None:
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")

    decoded = decode_image(encode(red, "GIF", save_all=True, append_images=[blue]), SQUASH)

    assert (decoded == [255, 0, 0]).all()


def test_squashing_keeps_everything() -> None:
    pixels = np.zeros((30, 90, 3), dtype=np.uint8)
    pixels[:, 45:] = 255

    decoded = decode_image(make_file(pixels, "PNG"), SQUASH)

    assert decoded[:, :30].max() == 0
    assert decoded[:, 34:].min() == 255


def test_cropping_keeps_the_centre_and_the_proportions() -> None:
    pixels = np.zeros((96, 192, 3), dtype=np.uint8)
    pixels[:, 56:136] = 200  # the central 80 columns, of which 40 remain after scaling by half

    decoded = decode_image(make_file(pixels, "PNG"), CROP)

    assert decoded.shape == (40, 40, 3)
    assert decoded[:, 1:-1].min() > 190


def test_an_upright_image_is_cropped_at_top_and_bottom() -> None:
    pixels = np.zeros((192, 96, 3), dtype=np.uint8)
    pixels[56:136] = 200

    assert decode_image(make_file(pixels, "PNG"), CROP)[1:-1].min() > 190


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("description", [SQUASH, CROP, SQUASH_CROP], ids=["squash", "crop", "squash and crop"])
def test_orientation_by_exif_is_applied(image_format: str, orientation: int, description: Preprocessing) -> None:
    upright = Image.fromarray(make_pixels(height=96, width=128))
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    turned = decode_image(encode(stored, image_format, exif=exif), description)
    plain = decode_image(encode(upright, image_format), description)

    assert np.abs(turned.astype(int) - plain).mean() < 4


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("P", 0, (0, 0, 0)),
        ("I;16", 30000, (117, 117, 117)),
    ],
)
def test_every_mode_of_a_png_is_decoded_to_colours(mode: str, value: Any, expected: tuple[int, int, int]) -> None:
    decoded = decode_image(encode(Image.new(mode, (40, 30), value), "PNG"), SQUASH)

    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [("CMYK", (0, 255, 255, 0), 255), ("F", 0.5, 127), ("F", 200.0, 200), ("I", 30000, 117), ("I;16B", 30000, 117)],
)
def test_every_mode_of_a_tiff_is_decoded_to_colours(mode: str, value: Any, expected: int) -> None:
    decoded = decode_image(encode(Image.new(mode, (40, 30), value), "TIFF"), SQUASH)

    assert np.abs(decoded[..., 0].astype(int) - expected).max() <= 2


def test_a_cmyk_jpeg_has_its_colours() -> None:
    decoded = decode_image(encode(Image.new("CMYK", (200, 300), (0, 255, 255, 0)), "JPEG"), SQUASH)

    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 12


def test_the_colour_of_a_transparent_pixel_is_ignored() -> None:
    pixels = np.full((96, 128, 4), 255, dtype=np.uint8)
    pixels[::2] = (0, 0, 0, 0)

    assert decode_image(make_file(pixels, "PNG"), SQUASH).min() == 255


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (40, 30), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])

    assert decode_image(encode(image, "PNG", transparency=0), SQUASH).min() == 255


def test_scaling_while_decoding_looks_like_scaling_afterwards() -> None:
    smooth = Image.fromarray(make_pixels(height=12, width=16)).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encode(smooth, "JPEG", quality=90)

    decoded = decode_image(data, SQUASH)

    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.resize((64, 48), Image.Resampling.BILINEAR))
    assert np.abs(decoded.astype(int) - expected).mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF"), ("F", "TIFF"), ("I;16", "PNG"), ("1", "PNG")],
)
@pytest.mark.parametrize("size", [(2100, 1007), (300, 2999)])
def test_reducing_band_by_band_gives_the_same_as_pillow(mode: str, image_format: str, size: tuple[int, int]) -> None:
    depth = {"RGBA": 4, "LA": 2, "CMYK": 4}.get(mode, 3)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], depth), dtype=np.uint8)
    image = Image.fromarray(noise, {4: "RGBA", 2: "LA", 3: "RGB"}[depth]) if mode != "CMYK" else Image.fromarray(noise, mode)
    eight_bits = image
    if mode in ("F", "I;16", "1"):
        eight_bits = image.convert("1" if mode == "1" else "L")
        grey = np.asarray(eight_bits)
        image = (
            eight_bits if mode == "1" else Image.fromarray(grey.astype(np.float32) if mode == "F" else grey.astype("<u2") << 8)
        )
    colours = eight_bits.convert("RGBA" if mode in ("RGBA", "LA") else "RGB")
    expected = colours.resize((64, 48), Image.Resampling.BILINEAR, reducing_gap=3.0)
    if expected.mode == "RGBA":
        expected = Image.alpha_composite(Image.new("RGBA", expected.size, "white"), expected).convert("RGB")

    decoded = decode_image(encode(image, image_format), SQUASH)

    assert np.array_equal(decoded, np.asarray(expected))


@pytest.mark.parametrize("size", [(10, 50_000), (50_000, 10)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_only_the_middle_of_a_strip_is_scaled(mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # A file of a few kilobytes: scaled completely, it would need gigabytes.
    middle = np.full((size[1], size[0], len(mode)), 255, dtype=np.uint8)
    middle[: size[1] // 2 - 5, :, 1:3] = 0
    middle[:, : size[0] // 2 - 5, 1:3] = 0
    largest = 0
    resize = Image.Image.resize

    def spy(image: Image.Image, wanted: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, wanted[0] * wanted[1])
        return resize(image, wanted, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)

    decoded = decode_image(encode(Image.fromarray(middle), "PNG"), CROP)

    assert largest <= 48 * 48 * 16
    assert decoded.min() == 255


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "value", "image_format", "limit_mib"),
    [("F", 0.5, "TIFF", 560), ("RGBA", (255, 0, 0, 128), "PNG", 560), ("P", 0, "GIF", 260)],
)
def test_100_megapixels_take_little_more_memory_than_the_decoded_image(
    mode: str, value: Any, image_format: str, limit_mib: int, tmp_path: Path
) -> None:
    options = {"compression": "tiff_deflate"} if image_format == "TIFF" else {}
    path = tmp_path / "large"
    path.write_bytes(encode(Image.new(mode, (10_000, 10_000), value), image_format, **options))
    program = (
        "import re, sys, pathlib\n"
        "from ocelli_model.preprocessing import Preprocessing, decode_image\n"
        "decode_image(pathlib.Path(sys.argv[1]).read_bytes(), Preprocessing(height=128, width=128))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024)"
    )

    # In a separate process, because a peak of memory stays.
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)

    assert int(ran.stdout) < limit_mib


def test_the_same_bytes_give_the_same_pixels() -> None:
    data = make_file(make_pixels(), "JPEG")

    assert np.array_equal(decode_image(data, SQUASH), decode_image(data, SQUASH))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04", b"BM" + b"\0" * 60, b"RIFF\x10\0\0\0WEBPVP8 ", b"<svg/>", b"%PDF-1.7"]
)
def test_other_files_are_not_images(data: bytes) -> None:
    assert kind_of(data) is ImageFault.NOT_AN_IMAGE


def test_a_kind_that_is_not_accepted_is_not_an_image() -> None:
    assert kind_of(make_file(make_pixels(), "TIFF"), kinds=EXAMPLE_KINDS) is ImageFault.NOT_AN_IMAGE


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "TIFF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_corrupt(image_format: str, part: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = make_file(pixels, image_format)

    assert kind_of(data[: int(part * len(data))]) is ImageFault.CORRUPT


def test_a_signature_alone_is_corrupt() -> None:
    assert kind_of(b"\xff\xd8\xff") is ImageFault.CORRUPT


def test_corrupt_files_have_the_error_message_of_the_api() -> None:
    with pytest.raises(ImageError, match=r"^Invalid/corrupted image data\. Supported: GIF, JPEG, PNG, TIFF, and ZIP\.$"):
        decode_image(b"\xff\xd8\xff", SQUASH)


@pytest.mark.parametrize(("height", "width"), [(9, 100), (100, 9), (1, 1)])
def test_a_side_under_10_pixels_is_too_small(height: int, width: int) -> None:
    data = make_file(make_pixels(height=height, width=width), "PNG")

    with pytest.raises(ImageError, match=r"^Image resolution is smaller than the minimum limit$") as caught:
        decode_image(data, SQUASH)

    assert caught.value.kind is ImageFault.TOO_SMALL


def test_10_pixels_are_enough() -> None:
    assert decode_image(make_file(make_pixels(height=10, width=10), "PNG"), SQUASH).shape == (48, 64, 3)


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (15_000, 15_000), (2**31 - 1, 2**31 - 1)])
def test_more_than_100_megapixels_are_refused_by_the_header(width: int, height: int) -> None:
    # The file contains only a few pixels, so decoding them would fail: only the header shows that it is too large.
    assert kind_of(png_header(width, height)) is ImageFault.TOO_MANY_PIXELS


def test_100_megapixels_are_not_too_many() -> None:
    assert kind_of(png_header(10_000, 10_000)) is ImageFault.CORRUPT


def test_a_frame_larger_than_the_gif_is_refused_too() -> None:
    data = bytearray(encode(Image.new("P", (40, 30), 0), "GIF"))
    descriptor = data.index(b",\0\0\0\0")
    data[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 60_000, 60_000)

    assert kind_of(bytes(data)) is ImageFault.TOO_MANY_PIXELS


def test_more_than_10_megabytes_are_refused_unread() -> None:
    assert kind_of(make_file(make_pixels(), "PNG") + b"\0" * 10 * 1024 * 1024) is ImageFault.TOO_LARGE


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with an additional chunk after its header."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    after_header = 8 + 25
    return png[:after_header] + chunk + png[after_header:]


@pytest.mark.parametrize("size_bytes", [2_000_000, 20_000_000])
@pytest.mark.parametrize(
    ("name", "head"),
    [
        (b"zTXt", b"Comment\0\0"),
        (b"iTXt", b"Comment\0\1\0\0\0"),
        (b"iCCP", b"sRGB\0\0"),
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ],
)
def test_png_with_large_compressed_texts_or_profile_is_decoded(name: bytes, head: bytes, size_bytes: int) -> None:
    data = make_file(make_pixels(), "PNG")

    decoded = decode_image(with_chunk(data, name, head + zlib.compress(b"0" * size_bytes)), SQUASH)

    assert np.array_equal(decoded, decode_image(data, SQUASH))


def test_many_texts_of_a_png_do_not_add_up() -> None:
    data = plain = make_file(make_pixels(), "PNG")
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 1_000_000)
    for _ in range(100):
        data = with_chunk(data, b"iTXt", text)

    assert np.array_equal(decode_image(data, SQUASH), decode_image(plain, SQUASH))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="3"/>')),
        (
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(
                b"\nexif\n      32\n" + (b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0").hex().encode()
            ),
        ),
    ],
)
def test_the_orientation_in_a_text_of_a_png_still_counts(name: bytes, body: bytes) -> None:
    pixels = make_pixels()

    turned = decode_image(with_chunk(make_file(pixels, "PNG"), name, body), SQUASH)

    assert np.array_equal(turned, decode_image(make_file(pixels[::-1, ::-1], "PNG"), SQUASH))


@pytest.mark.parametrize("cut_bytes", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_its_end_marker_is_decoded(mode: str, progressive: bool, cut_bytes: int) -> None:
    data = encode(Image.fromarray(make_pixels()).convert(mode), "JPEG", progressive=progressive)
    assert data.endswith(b"\xff\xd9")

    assert np.array_equal(decode_image(data[:-cut_bytes], SQUASH), decode_image(data, SQUASH))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_pixels_is_corrupt(mode: str, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)

    assert [kind_of(data[:-cut]) for cut in (10, 100, 1000)] == [ImageFault.CORRUPT] * 3


def test_a_progressive_jpeg_that_lacks_its_last_scans_is_corrupt() -> None:
    data = encode(Image.fromarray(make_pixels()), "JPEG", progressive=True)
    scans = [position for position in range(len(data)) if data[position : position + 2] == b"\xff\xda"]
    tables = data.rfind(b"\xff\xc4", 0, scans[-1])

    assert kind_of(data[: max(tables, scans[-2])]) is ImageFault.CORRUPT


@pytest.mark.parametrize(("image_format", "cut_bytes"), [("PNG", 16), ("GIF", 2)])
def test_file_with_all_pixels_is_decoded(image_format: str, cut_bytes: int) -> None:
    data = make_file(make_pixels(), image_format)

    assert np.array_equal(decode_image(data[:-cut_bytes], SQUASH), decode_image(data, SQUASH))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    image_format=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_damage_raises_only_image_errors(image_format: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(make_file(make_pixels(), image_format))
    for position, value in changes:
        data[position % len(data)] = value

    try:
        decoded = decode_image(bytes(data), SQUASH)
    except ImageError:
        return
    assert decoded.shape == (48, 64, 3)


def test_mirroring_swaps_left_and_right() -> None:
    images = np.stack([make_pixels(seed) for seed in range(2)])

    assert np.array_equal(mirrored(images)[:, :, 0], images[:, :, -1])


@pytest.mark.parametrize("description", [SQUASH, CROP, SQUASH_CROP])
def test_a_description_survives_storage(description: Preprocessing) -> None:
    assert parse_fields(Preprocessing, build_document(description)) == description


@pytest.mark.parametrize(("resize", "side"), [(ResizeMode.SQUASH, 64), (ResizeMode.SQUASH_CROP, None)])
def test_only_modes_that_crop_have_a_side(resize: ResizeMode, side: int | None) -> None:
    with pytest.raises(ValueError, match="short_side_pixels is for modes that crop"):
        Preprocessing(height=48, width=48, resize=resize, short_side_pixels=side)


def test_a_squashed_image_is_scaled_whole_and_its_centre_cut_out() -> None:
    pixels = make_pixels()
    expected = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BILINEAR).crop((6, 4, 42, 44))

    assert np.array_equal(decode_image(make_file(pixels, "PNG"), SQUASH_CROP), np.asarray(expected))


def test_a_crop_larger_than_the_scaled_image_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller crop"):
        Preprocessing(height=64, width=64, resize=ResizeMode.SHORT_SIDE_CROP, short_side_pixels=48)


def test_bicubic_and_bilinear_differ() -> None:
    data = make_file(make_pixels(), "PNG")
    bicubic = Preprocessing(height=48, width=64, interpolation=Interpolation.BICUBIC)

    assert not np.array_equal(decode_image(data, SQUASH), decode_image(data, bicubic))


def test_pillow_has_the_same_limit() -> None:
    assert Image.MAX_IMAGE_PIXELS == PIXELS_LIMIT


def test_mean_and_deviation_do_not_change_the_pixels() -> None:
    plain, scaled = Preprocessing(height=8, width=8), Preprocessing(height=8, width=8, mean=(0.5,) * 3)
    image = make_file(make_pixels(), "PNG")
    assert np.array_equal(decode_image(image, plain), decode_image(image, scaled))
    assert plain.gives_the_pixels_of(scaled)


@pytest.mark.parametrize("change", [{"height": 9}, {"interpolation": Interpolation.BICUBIC}], ids=str)
def test_other_sizes_and_interpolations_give_other_pixels(change: dict[str, Any]) -> None:
    assert not Preprocessing(**{"height": 8, "width": 8, **change}).gives_the_pixels_of(Preprocessing(height=8, width=8))
