"""Zips of examples: the same images give the same bytes, and no zip exceeds what the gateway takes."""

from __future__ import annotations

import os
import shutil
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from ocelli_client.folders import read_class
from ocelli_client.image_files import MEGABYTE, FileLocation, ImageFile
from ocelli_client.zips import ZIP_BYTES_LIMIT, ChangedImageError, ZipWriteError, build_zips, plan_zips, write_zip
from ocelli_gateway.operations import EXAMPLES_LIMITS
from ocelli_storage.archive_inspection import Turn, take_turn
from tests.unit.clients.photographs import image_bytes, write_images

FIXED_DIGEST = "e521734a9ea1a61ce1abe82b068acb2bc76a8a6cf8ceade488f689c4b47d675e"


def uncompressed_png() -> bytes:
    """A PNG whose bytes do not depend on the version of zlib or Pillow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(10)) for _ in range(10))
    header = struct.pack(">IIBBBBB", 10, 10, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def test_a_copy_of_a_folder_gives_the_same_digest(tmp_path: Path) -> None:
    original = write_images(tmp_path / "original", range(12))
    copy = Path(shutil.copytree(original, tmp_path / "elsewhere" / "copy"))
    for number, file in enumerate(copy.iterdir()):
        file.chmod(0o600)
        moment = time.time() - 1000 * number
        os.utime(file, (moment, moment))
    (tmp_path / "out").mkdir()
    digests = [next(build_zips(read_class("cat", [folder]).images, tmp_path / "out")).sha256 for folder in (original, copy)]
    assert digests[0] == digests[1]


def test_another_image_gives_another_digest(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "cat", range(12))
    before = write_zip(read_class("cat", [folder]).images, tmp_path / "before.zip")
    (folder / "000.jpg").write_bytes(image_bytes(99))
    assert write_zip(read_class("cat", [folder]).images, tmp_path / "after.zip").sha256 != before.sha256


def test_the_bytes_are_these_and_no_update_changes_them(tmp_path: Path) -> None:
    """Manifests have been committed with such digests."""
    (tmp_path / "größe").mkdir()
    (tmp_path / "größe" / "ä.png").write_bytes(uncompressed_png())
    written = write_zip(read_class("cat", [tmp_path]).images, tmp_path / "one.zip")
    assert written.sha256 == FIXED_DIGEST


def test_images_that_exceed_a_zip_go_into_the_next_one(tmp_path: Path) -> None:
    images = read_class("cat", [write_images(tmp_path / "cat", range(10))]).images
    needed = sum(image.size_bytes for image in images)
    parts = plan_zips(images, limit_bytes=needed // 2)
    assert [image for part in parts for image in part] == list(images)
    sizes = [write_zip(part, tmp_path / "part.zip").size_bytes for part in parts]
    assert len(parts) > 1
    assert max(sizes) <= needed // 2


@pytest.mark.parametrize(("images", "zips"), [(10, [10]), (28, [14, 14]), (41, [14, 14, 13])])
def test_zips_of_a_class_have_equal_numbers_of_images(tmp_path: Path, images: int, zips: list[int]) -> None:
    location = FileLocation(path=tmp_path, name="a.png")
    files = [ImageFile(location=location, size_bytes=5 * MEGABYTE, sha256=f"{number:064x}") for number in range(images)]
    assert [len(part) for part in plan_zips(files)] == zips


def test_the_limit_is_what_the_gateway_takes() -> None:
    assert EXAMPLES_LIMITS.file_bytes == ZIP_BYTES_LIMIT


def test_the_gateway_reads_the_zip_without_complaint(tmp_path: Path) -> None:
    images = read_class("cat", [write_images(tmp_path / "cat", range(10))]).images
    report = take_turn(Turn(paths=(str(write_zip(images, tmp_path / "cat.zip").path),))).reports[0]
    assert (report.refusal, report.usable, report.skipped) == (None, 10, ())


def test_images_from_a_zip_are_stored_with_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/a.jpg", image_bytes(1))
    images = read_class("cat", [tmp_path / "source.zip"]).images
    with zipfile.ZipFile(write_zip(images, tmp_path / "out.zip").path) as written:
        assert (written.namelist(), written.read("deep/a.jpg")) == (["deep/a.jpg"], image_bytes(1))


def test_an_image_that_changed_after_the_check_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "cat", range(2))
    images = read_class("cat", [folder]).images
    (folder / "001.jpg").write_bytes(image_bytes(50))
    with pytest.raises(ChangedImageError, match=r"001\.jpg has changed since it was checked; start again"):
        write_zip(images, tmp_path / "out.zip")


def test_a_full_disk_is_said_with_the_remedy(tmp_path: Path) -> None:
    write_images(tmp_path, range(2))
    with pytest.raises(ZipWriteError, match=r"No space left on device; free space, or name another folder in TMPDIR"):
        write_zip(read_class("any", [tmp_path]).images, Path("/dev/full"))
