"""Tars: which members are images, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import ArchiveError, ArchiveFault, ArchiveImage, ArchiveLimits, EntryFault, SkippedEntry
from ocelli_training.tar_images import ImageTar
from tests.unit.training.conftest import Reading

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def make_tar(files: Mapping[str, bytes], *, format_: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def read(folder: Path, data: bytes, limits: ArchiveLimits | None = None) -> list[ArchiveImage | SkippedEntry]:
    path = folder / "a.tar"
    path.write_bytes(data)
    with ImageTar(path, limits=limits or ArchiveLimits()) as images:
        return list(images)


def fault(folder: Path, data: bytes, limits: ArchiveLimits | None = None) -> ArchiveFault:
    with pytest.raises(ArchiveError) as caught:
        read(folder, data, limits)
    return caught.value.fault


def images_of(make_image: Any, count: int = 3) -> dict[str, bytes]:
    return {f"{seed}.png": make_image(seed) for seed in range(count)}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_a_tar_is_a_source_of_images(reading: Reading, web_server: Any, make_image: Any, compress: Any) -> None:
    files = images_of(make_image)
    url = web_server.answer("/a.tar", body=compress(make_tar(files)))
    found = reading.read(Source(url=url))
    assert {item.name: item.data for item in found if isinstance(item, ArchiveImage)} == files


def test_a_tar_in_the_folder_of_file_sources_is_a_source(reading: Reading, make_image: Any) -> None:
    (reading.jail / "a.tgz").write_bytes(gzip.compress(make_tar(images_of(make_image))))
    assert len(reading.read(Source(url="file:///a.tgz"))) == 3


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("length", [100, 240])
def test_names_are_read_in_each_format(tmp_path: Path, make_image: Any, format_: str, length: int) -> None:
    name = f"{'f' * (length - 90)}/{'x' * 80}.png"
    (image,) = read(tmp_path, make_tar({name: make_image()}, format_=FORMATS[format_]))
    assert image.name == name


def test_a_long_name_belongs_to_the_next_member_only(tmp_path: Path, make_image: Any) -> None:
    data = make_tar({"x" * 200 + ".png": make_image(1), "b.png": make_image(2)})
    assert [item.name for item in read(tmp_path, data)] == ["x" * 200 + ".png", "b.png"]


def test_folders_hidden_and_empty_files_are_left_out(tmp_path: Path, make_image: Any) -> None:
    data = make_tar({"./._a.png": b"x", "__MACOSX/a.png": b"x", "empty.png": b"", "./a.png": make_image()})
    assert [item.name for item in read(tmp_path, data)] == ["./a.png"]


def test_other_files_are_skipped_with_the_reason(tmp_path: Path, make_image: Any) -> None:
    data = make_tar({"a.txt": b"text", "large.png": make_image() + bytes(3000), "b.png": make_image()})
    limits = ArchiveLimits(image_bytes=2500)
    assert [getattr(item, "fault", None) for item in read(tmp_path, data, limits)] == [
        EntryFault.NOT_AN_IMAGE,
        EntryFault.TOO_LARGE,
        None,
    ]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_skipped(tmp_path: Path, make_image: Any, kind: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
        image = make_image()
        member = tarfile.TarInfo("a.png")
        member.size = len(image)
        archive.addfile(member, io.BytesIO(image))
    skipped, image_read = read(tmp_path, file.getvalue())
    assert isinstance(skipped, SkippedEntry)
    assert isinstance(image_read, ArchiveImage)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_a_tar_that_is_cut_off_is_damaged(tmp_path: Path, make_image: Any, compress: Any) -> None:
    whole = make_tar(images_of(make_image))
    cut = compress(whole)[: len(compress(whole)) // 2] if compress is not bytes else whole[:1000]
    assert fault(tmp_path, cut) is ArchiveFault.DAMAGED


def test_a_header_with_a_wrong_checksum_is_damaged(tmp_path: Path, make_image: Any) -> None:
    data = bytearray(make_tar(images_of(make_image)))
    data[100] ^= 1
    assert fault(tmp_path, bytes(data)) is ArchiveFault.DAMAGED


def test_a_tar_that_inflates_to_too_much_is_refused_early(tmp_path: Path) -> None:
    bomb = gzip.compress(make_tar({f"{number}.png": bytes(1 << 20) for number in range(8)}))
    assert fault(tmp_path, bomb, ArchiveLimits(inflated_bytes=2 << 20)) is ArchiveFault.TOO_MUCH_DATA


def test_a_size_of_petabytes_is_not_reserved(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.png")
    header.size = 1 << 50
    assert fault(tmp_path, header.tobuf(tarfile.GNU_FORMAT)) in (ArchiveFault.DAMAGED, ArchiveFault.TOO_MUCH_DATA)


def test_too_many_members_and_images_are_refused(tmp_path: Path, make_image: Any) -> None:
    data = make_tar(images_of(make_image, 4))
    assert fault(tmp_path, data, ArchiveLimits(images=3)) is ArchiveFault.TOO_MANY_IMAGES
    assert fault(tmp_path, data, ArchiveLimits(entries=3)) is ArchiveFault.TOO_MANY_ENTRIES


def test_a_tar_without_files_is_refused(tmp_path: Path) -> None:
    assert fault(tmp_path, make_tar({})) is ArchiveFault.EMPTY


def test_another_compression_is_named_with_the_remedy(reading: Reading, web_server: Any, make_image: Any) -> None:
    url = web_server.answer("/a.tar.xz", body=lzma.compress(make_tar(images_of(make_image))))
    error = reading.refusal(Source(url=url))
    assert error.reason is OutcomeReason.INVALID_DATA
    assert "compressed by xz, which is not supported; compress the tar with gzip" in str(error)
