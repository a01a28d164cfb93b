"""The zip rules, tested with generated zips."""

from __future__ import annotations

import io
import stat
import struct
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocelli_storage.archives import (
    CLASSIFY_KINDS,
    EXAMPLE_KINDS,
    IMAGE_BYTES_LIMIT,
    ArchiveError,
    ArchiveFault,
    ArchiveImage,
    ArchiveLimits,
    EntryFault,
    ImageArchive,
    ImageKind,
    SkippedEntry,
    image_kind,
    is_zip_file,
    shown_name,
)
from ocelli_storage.zip_directory import is_hidden
from tests.hostile.zips import overlapping_zip

JPEG = b"\xff\xd8\xff\xe0" + bytes(40)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class Inspection(NamedTuple):
    usable: int
    skipped: tuple[SkippedEntry, ...]


def inspect(archive: ImageArchive) -> Inspection:
    """All that a zip yields."""
    usable = 0
    skipped: list[SkippedEntry] = []
    for item in archive:
        if isinstance(item, SkippedEntry):
            skipped.append(item)
        else:
            usable += 1
    return Inspection(usable=usable, skipped=tuple(skipped))


def make_zip(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def read(file: io.BytesIO, limits: ArchiveLimits | None = None) -> list[ArchiveImage | SkippedEntry]:
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=limits) as archive:
        return list(archive)


def names(file: io.BytesIO) -> list[str]:
    return [item.name for item in read(file) if isinstance(item, ArchiveImage)]


def faults(file: io.BytesIO, limits: ArchiveLimits | None = None) -> dict[str, EntryFault]:
    return {item.name: item.fault for item in read(file, limits) if isinstance(item, SkippedEntry)}


def refusal(file: io.BytesIO, limits: ArchiveLimits | None = None) -> ArchiveFault:
    with pytest.raises(ArchiveError) as caught:
        read(file, limits)
    return caught.value.fault


def patch(file: io.BytesIO, old: bytes, new: bytes) -> io.BytesIO:
    data = file.getvalue()
    assert old in data
    return io.BytesIO(data.replace(old, new))


def test_images_come_in_the_order_of_the_zip_with_their_bytes() -> None:
    file = make_zip({"b.jpg": JPEG, "a.png": PNG})
    assert read(file) == [
        ArchiveImage(name="b.jpg", kind=ImageKind.JPEG, data=JPEG),
        ArchiveImage(name="a.png", kind=ImageKind.PNG, data=PNG),
    ]


def test_images_are_recognised_by_content_and_not_by_name() -> None:
    assert names(make_zip({"x.txt": JPEG, "y": PNG})) == ["x.txt", "y"]


@pytest.mark.parametrize(
    "name",
    [
        "folder/",
        "__MACOSX/cars/._0.jpg",
        "sub/__MACOSX/x.jpg",
        ".hidden.jpg",
        "cars/._0.jpg",
        "Thumbs.db",
        "cars/thumbs.db",
        "desktop.ini",
        "cars\\Desktop.ini",
    ],
)
def test_files_of_file_managers_are_skipped_silently(name: str) -> None:
    assert is_hidden(name)
    assert [item.name for item in read(make_zip({name: JPEG, "a.jpg": JPEG}))] == ["a.jpg"]


def test_empty_files_are_skipped_silently() -> None:
    assert [item.name for item in read(make_zip({"empty.jpg": b"", "a.jpg": JPEG}))] == ["a.jpg"]


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:\\x.jpg", "..\\x.jpg", "käfer/größe.jpg", "鳥.jpg"]
)
def test_entry_names_are_not_interpreted(name: str) -> None:
    assert names(make_zip({name: JPEG})) == [name]


def test_two_files_of_one_base_name_are_two_images() -> None:
    assert names(make_zip({"a/1.jpg": JPEG, "b/1.jpg": JPEG})) == ["a/1.jpg", "b/1.jpg"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_two_images() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", JPEG)
        archive.writestr("a.jpg", PNG)
    assert [item.kind for item in read(file) if isinstance(item, ArchiveImage)] == [ImageKind.JPEG, ImageKind.PNG]


def test_utf8_names_without_the_utf8_flag_are_read_as_utf8() -> None:
    data = make_zip({"xyz.jpg": JPEG}).getvalue().replace(b"xyz.jpg", "ü1.jpg".encode())
    assert names(io.BytesIO(data)) == ["ü1.jpg"]


def test_zip64_entries_are_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as entry:
        entry.write(JPEG)
    assert names(file) == ["a.jpg"]


@pytest.mark.parametrize("prefix", [b"", b"MZ" + bytes(100)])
def test_a_directory_with_a_zip64_end_record_is_read(prefix: bytes) -> None:
    data = make_zip({"a.jpg": JPEG}).getvalue()
    end = data.index(b"PK\x05\x06")
    size, offset = struct.unpack_from("<LL", data, end + 12)
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1)
    saturated = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)

    assert names(io.BytesIO(prefix + data[:end] + record + locator + saturated)) == ["a.jpg"]


def test_streamed_zips_are_read() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation

    file = Stream()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", JPEG)
    assert names(io.BytesIO(file.getvalue())) == ["a.jpg"]


@pytest.mark.parametrize(
    "data", [b"just text, and a little more of it", b"BM" + bytes(60), b"RIFF0000WEBPVP8 ", b"\xff\xd8", b"x"]
)
def test_other_bytes_are_skipped_as_not_an_image(data: bytes) -> None:
    assert faults(make_zip({"notes.txt": data, "a.jpg": JPEG})) == {"notes.txt": EntryFault.NOT_AN_IMAGE}


def test_zips_in_zips_are_not_opened() -> None:
    assert faults(make_zip({"inner.zip": make_zip({"a.jpg": JPEG}).getvalue()})) == {"inner.zip": EntryFault.NOT_AN_IMAGE}


def test_gifs_are_not_examples_but_can_be_classified() -> None:
    file = make_zip({"a.gif": b"GIF89a" + bytes(20)})
    assert faults(file) == {"a.gif": EntryFault.NOT_AN_IMAGE}
    with ImageArchive(file, kinds=CLASSIFY_KINDS) as archive:
        assert inspect(archive).usable == 1


def test_symbolic_links_are_skipped() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert faults(file) == {"link.jpg": EntryFault.SYMBOLIC_LINK}


@pytest.mark.slow
def test_bzip2_is_read() -> None:
    data = JPEG + np.random.default_rng(0).bytes(2_000_000)

    assert [item.data for item in read(make_zip({"a.jpg": data}, zipfile.ZIP_BZIP2)) if isinstance(item, ArchiveImage)] == [
        data
    ]


@pytest.mark.slow
def test_a_bomb_of_bzip2_is_stopped_at_the_limit_of_an_image() -> None:
    file = make_zip({"a.jpg": JPEG + bytes(64 * 1024 * 1024)}, zipfile.ZIP_BZIP2)
    real_bytes = struct.pack("<L", 64 * 1024 * 1024 + len(JPEG))

    assert faults(patch(file, real_bytes, struct.pack("<L", 1000))) == {"a.jpg": EntryFault.TOO_LARGE}


@pytest.mark.parametrize(("method", "name"), [(14, "LZMA"), (9, "Deflate64"), (93, "Zstandard"), (77, "method 77")])
def test_other_compressions_are_skipped_and_named(method: int, name: str) -> None:
    data = make_zip({"a.jpg": JPEG}).getvalue()
    file = io.BytesIO(data.replace(struct.pack("<HHH", 20, 0, 8), struct.pack("<HHH", 20, 0, method)))

    assert read(file) == [SkippedEntry(name="a.jpg", fault=EntryFault.UNSUPPORTED_COMPRESSION, method=name)]


def test_an_image_of_exactly_the_limit_is_usable() -> None:
    data = JPEG + bytes(IMAGE_BYTES_LIMIT - len(JPEG))
    assert [len(item.data) for item in read(make_zip({"a.jpg": data})) if isinstance(item, ArchiveImage)] == [IMAGE_BYTES_LIMIT]


def test_an_image_one_byte_above_the_limit_is_skipped() -> None:
    assert faults(make_zip({"a.jpg": JPEG + bytes(IMAGE_BYTES_LIMIT - len(JPEG) + 1)})) == {"a.jpg": EntryFault.TOO_LARGE}


def make_bomb(claimed_bytes: int) -> io.BytesIO:
    """A zip of one JPEG of 64 MB, all zeros, that declares another size and a wrong checksum."""
    real_bytes = 64 * 1024 * 1024
    file = make_zip({"a.jpg": JPEG + bytes(real_bytes - len(JPEG))})
    return patch(file, struct.pack("<L", real_bytes), struct.pack("<L", claimed_bytes))


def test_a_bomb_is_one_skipped_entry() -> None:
    file = make_zip({"bomb.jpg": JPEG + bytes(64 * 1024 * 1024), "a.jpg": JPEG})
    assert len(file.getvalue()) < 100_000
    assert faults(file) == {"bomb.jpg": EntryFault.TOO_LARGE}
    assert names(file) == ["a.jpg"]


def test_a_bomb_that_claims_to_be_small_is_skipped() -> None:
    assert faults(make_bomb(claimed_bytes=1000)) == {"a.jpg": EntryFault.TOO_LARGE}


@pytest.mark.parametrize(
    ("compression", "claimed_bytes"),
    [
        *((compression, claimed) for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2) for claimed in (0, 1, 44, 6000)),
        (zipfile.ZIP_STORED, 44),
    ],
)
def test_an_entry_with_a_wrong_size_is_skipped(compression: int, claimed_bytes: int) -> None:
    data = JPEG + np.random.default_rng(0).bytes(5000)
    file = make_zip({"a.jpg": data, "b.jpg": JPEG}, compression)

    lying = patch(file, struct.pack("<L", len(data)), struct.pack("<L", claimed_bytes))

    assert faults(lying) == {"a.jpg": EntryFault.DAMAGED}
    with ImageArchive(lying, kinds=EXAMPLE_KINDS) as archive:
        assert (inspect(archive).usable, archive.candidates) == (1, 2)


def test_an_entry_whose_local_header_has_another_size_is_skipped() -> None:
    data = bytearray(make_zip({"a.jpg": JPEG, "b.jpg": JPEG}, zipfile.ZIP_STORED).getvalue())
    struct.pack_into("<L", data, 22, len(JPEG) - 1)

    assert faults(io.BytesIO(bytes(data))) == {"a.jpg": EntryFault.DAMAGED}


def test_an_entry_with_a_wrong_checksum_is_skipped() -> None:
    file = make_zip({"a.jpg": JPEG, "b.png": PNG}, zipfile.ZIP_STORED)
    damaged = patch(file, JPEG, JPEG[:-1] + b"!")
    assert faults(damaged) == {"a.jpg": EntryFault.DAMAGED}
    assert names(damaged) == ["b.png"]


def make_overlapping_bomb(copies: int, inflated_bytes: int) -> io.BytesIO:
    return io.BytesIO(overlapping_zip(JPEG + bytes(inflated_bytes - len(JPEG)), copies, b"a.jpg"))


def test_entries_that_name_the_same_bytes_are_refused() -> None:
    assert refusal(make_overlapping_bomb(copies=300, inflated_bytes=1024)) is ArchiveFault.OVERLAPPING


@pytest.mark.parametrize("hidden", ["a.jpg", ".a.jpg", "__MACOSX/a.jpg"])
def test_an_entry_that_reaches_into_the_next_one_is_refused(hidden: str) -> None:
    data = bytearray(make_zip({hidden: JPEG, "b.jpg": JPEG}, zipfile.ZIP_STORED).getvalue())
    directory = data.index(b"PK\x01\x02")
    for position in (18, 22, directory + 20, directory + 24):
        struct.pack_into("<L", data, position, len(JPEG) + 30)

    assert refusal(io.BytesIO(bytes(data))) is ArchiveFault.OVERLAPPING


def test_an_entry_whose_local_header_points_into_the_next_one_is_skipped() -> None:
    data = bytearray(make_zip({"a.jpg": JPEG, "b.jpg": JPEG}, zipfile.ZIP_STORED).getvalue())
    struct.pack_into("<H", data, 28, 49)

    assert faults(io.BytesIO(bytes(data))) == {"a.jpg": EntryFault.DAMAGED}


def test_an_entry_that_reaches_into_the_directory_is_refused() -> None:
    data = bytearray(make_zip({"a.jpg": JPEG}, zipfile.ZIP_STORED).getvalue())
    directory = data.index(b"PK\x01\x02")
    for position in (18, 22, directory + 20, directory + 24):
        struct.pack_into("<L", data, position, len(JPEG) + 10)

    assert refusal(io.BytesIO(bytes(data))) is ArchiveFault.DAMAGED


def renamed(raw: bytes, *, utf8: bool) -> io.BytesIO:
    """A zip of one image with exactly these bytes as its name, with or without the UTF-8 flag."""
    file = make_zip({"x" * len(raw): JPEG})
    data = bytearray(patch(file, b"x" * len(raw), raw).getvalue())
    for position in (6, data.index(b"PK\x01\x02") + 8):
        struct.pack_into("<H", data, position, 0x800 if utf8 else 0)
    return io.BytesIO(bytes(data))


def test_invalid_utf8_in_a_name_is_replaced_when_shown() -> None:
    assert names(renamed(b"ov\xffl.jpg", utf8=True)) == ["ov\N{REPLACEMENT CHARACTER}l.jpg"]


@pytest.mark.parametrize(
    "raw",
    ["\u8868.jpg".encode("shift_jis"), "\u529f.jpg".encode("big5"), "\u30bd".encode("shift_jis"), b"a\0.jpg", b"\0.jpg"],
    ids=repr,
)
@pytest.mark.parametrize("utf8", [False, True])
def test_no_encoding_of_a_name_hides_an_image(raw: bytes, utf8: bool) -> None:
    assert len(names(renamed(raw, utf8=utf8))) == 1


@pytest.mark.parametrize("raw", [b"folder\\._a.jpg", b"__MACOSX\\a.jpg"])
def test_backslashes_separate_folders_in_readable_names(raw: bytes) -> None:
    assert refusal(renamed(raw, utf8=False)) is ArchiveFault.EMPTY


@pytest.mark.parametrize("prefix", [b"MZ" + bytes(5000), b"\n"])
def test_a_zip_with_a_prefix_is_read(prefix: bytes) -> None:
    file = io.BytesIO(prefix + make_zip({"a.jpg": JPEG, "b.png": PNG}).getvalue())

    assert is_zip_file(file)
    assert names(file) == ["a.jpg", "b.png"]


@pytest.mark.parametrize("data", [b"", b"text", PNG, PNG + make_zip({"a.jpg": JPEG}).getvalue()])
def test_other_files_are_not_zips(data: bytes) -> None:
    assert not is_zip_file(io.BytesIO(data))


@pytest.mark.slow
def test_a_directory_of_many_entries_is_read_quickly() -> None:
    file = make_zip({f"folder/{number}.jpg": b"x" for number in range(50_000)}, zipfile.ZIP_STORED)
    started = time.thread_time()

    with ImageArchive(file, kinds=EXAMPLE_KINDS) as archive:
        assert archive.candidates == 50_000

    assert time.thread_time() - started < 2


def test_inspecting_counts_no_image_that_is_damaged() -> None:
    file = make_zip({"a.jpg": JPEG, "b.png": PNG}, zipfile.ZIP_STORED)
    with ImageArchive(patch(file, JPEG, JPEG[:-1] + b"!"), kinds=EXAMPLE_KINDS) as archive:
        assert inspect(archive).usable == 1


def test_the_total_decompressed_size_of_a_zip_is_limited() -> None:
    file = make_zip({f"{number}.jpg": JPEG + bytes(1024 * 1024) for number in range(10)})

    assert refusal(file, ArchiveLimits(inflated_bytes=8 * 1024 * 1024)) is ArchiveFault.TOO_MUCH_DATA


def test_too_many_images_are_refused() -> None:
    file = make_zip({f"{number}.jpg": JPEG for number in range(4)})
    assert refusal(file, ArchiveLimits(images=3)) is ArchiveFault.TOO_MANY_IMAGES
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=ArchiveLimits(images=3)) as archive, pytest.raises(ArchiveError):
        inspect(archive)


def test_other_files_do_not_count_as_images() -> None:
    file = make_zip({"1.txt": b"text", "2.txt": b"text", "a.jpg": JPEG})
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=ArchiveLimits(images=1)) as archive:
        assert inspect(archive).usable == 1


def test_too_many_entries_are_refused() -> None:
    file = make_zip({f"__MACOSX/{number}.jpg": JPEG for number in range(4)} | {"a.jpg": JPEG})
    assert refusal(file, ArchiveLimits(entries=4)) is ArchiveFault.TOO_MANY_ENTRIES


def test_a_directory_of_excessive_size_is_refused_before_it_is_read() -> None:
    file = make_zip({f"{number}.jpg": JPEG for number in range(100)})
    assert refusal(file, ArchiveLimits(directory_bytes=1000)) is ArchiveFault.TOO_MANY_ENTRIES


def test_an_encrypted_zip_is_refused() -> None:
    file = make_zip({"a.jpg": JPEG}, zipfile.ZIP_STORED)
    data = bytearray(file.getvalue())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(io.BytesIO(bytes(data))) is ArchiveFault.ENCRYPTED


@pytest.mark.parametrize("data", [b"<html>not here</html>", PNG, b"P"])
def test_other_files_are_refused_as_not_a_zip(data: bytes) -> None:
    assert refusal(io.BytesIO(data)) is ArchiveFault.NOT_A_ZIP


@pytest.mark.parametrize("kept_bytes", [10, 60, -1, -20])
def test_a_zip_that_is_cut_off_is_refused_as_damaged(kept_bytes: int) -> None:
    data = make_zip({"a.jpg": JPEG, "b.jpg": JPEG}).getvalue()
    assert refusal(io.BytesIO(data[:kept_bytes])) is ArchiveFault.DAMAGED


@pytest.mark.parametrize("file", [io.BytesIO(), make_zip({}), make_zip({"folder/": b"", ".DS_Store": b"x"})])
def test_a_zip_without_files_is_refused_as_empty(file: io.BytesIO) -> None:
    assert refusal(file) is ArchiveFault.EMPTY


def test_inspecting_counts_usable_entries_and_names_the_others() -> None:
    with ImageArchive(make_zip({"a.jpg": JPEG, "notes.txt": b"text"}), kinds=EXAMPLE_KINDS) as archive:
        inspection = inspect(archive)
    assert (inspection.usable, inspection.skipped) == (1, (SkippedEntry(name="notes.txt", fault=EntryFault.NOT_AN_IMAGE),))


def test_entries_are_read_only_when_their_turn_comes() -> None:
    file = make_zip({f"{number}.jpg": JPEG + bytes(1024 * 1024) for number in range(10)})
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=ArchiveLimits(inflated_bytes=2 * 1024 * 1024)) as archive:
        assert archive.candidates == 10
        assert isinstance(next(iter(archive)), ArchiveImage)


def test_a_zip_is_read_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(make_zip({"a.jpg": JPEG}).getvalue())
    with ImageArchive(path, kinds=EXAMPLE_KINDS) as archive:
        assert inspect(archive).usable == 1


def test_bigtiff_and_both_byte_orders_are_tiff() -> None:
    assert {image_kind(head + bytes(8)) for head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")} == {ImageKind.TIFF}


def test_shown_names_have_no_control_characters_and_are_short() -> None:
    shown = shown_name("a\x1b[31m\n" + "b" * 70_000)
    assert shown.isprintable()
    assert len(shown) <= 120


WHOLE = make_zip({"a.jpg": JPEG * 20, "ä.png": PNG, "notes.txt": b"text"}).getvalue()


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, len(WHOLE))
)
def test_no_damage_raises_anything_but_a_refusal(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position] = value
    for file in (io.BytesIO(bytes(data)), io.BytesIO(bytes(data[:length]))):
        with suppress(ArchiveError), ImageArchive(file, kinds=CLASSIFY_KINDS) as archive:
            inspect(archive)
            list(archive)


def build_bzip2_zip(data: bytes, count: int) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        for index in range(count):
            archive.writestr(f"{index}.jpg", data)
    return file


def test_a_bzip2_block_counts_even_if_its_first_bytes_are_not_an_image() -> None:
    # 40 bytes each; reading even the first byte decompresses a whole block.
    file = build_bzip2_zip(bytes(900_000), 20)

    limits = ArchiveLimits(inflated_bytes=100 * 1024 * 1024)
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=limits) as archive, pytest.raises(ArchiveError) as caught:
        inspect(archive)

    assert caught.value.fault is ArchiveFault.TOO_MUCH_DATA


def test_a_bzip2_entry_that_claims_to_be_small_counts_as_a_block() -> None:
    data = build_bzip2_zip(bytes(900_000), 20).getvalue()
    file = io.BytesIO(data.replace(struct.pack("<L", 900_000), struct.pack("<L", 9)))

    limits = ArchiveLimits(inflated_bytes=100 * 1024 * 1024)
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=limits) as archive, pytest.raises(ArchiveError) as caught:
        inspect(archive)

    assert caught.value.fault is ArchiveFault.TOO_MUCH_DATA


def test_small_texts_in_bzip2_count_with_their_own_size() -> None:
    file = build_bzip2_zip(b"an annotation" * 100, 1000)

    limits = ArchiveLimits(inflated_bytes=100 * 1024 * 1024)
    with ImageArchive(file, kinds=EXAMPLE_KINDS, limits=limits) as archive:
        assert len(inspect(archive).skipped) == 1000


@pytest.mark.parametrize("comment", [b"PK\x05\x06", b"PK\x05\x06 is the end of a zip " * 3, bytes(65535)])
def test_a_comment_can_look_like_the_end_of_a_zip(comment: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", JPEG)
        archive.comment = comment

    assert names(file) == ["a.jpg"]


def test_bytes_after_a_zip_are_ignored() -> None:
    assert names(io.BytesIO(make_zip({"a.jpg": JPEG}).getvalue() + bytes(200))) == ["a.jpg"]
