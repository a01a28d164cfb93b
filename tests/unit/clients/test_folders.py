"""Examples on disk: what is an image, what is left out and why, and what the gateway would refuse."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from ocelli_api.names import class_name_fault as gateway_fault
from ocelli_client.examples import allowed_class_name, class_name_fault
from ocelli_client.folders import FolderError, read_class, read_folder
from tests.unit.clients.photographs import image_bytes, write_images


def reasons(folder: Path) -> dict[str, str]:
    return {file.name: file.reason for file in read_class("any", [folder]).unusable}


def test_each_sub_folder_is_a_class_and_its_sub_folders_belong_to_it(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(3))
    write_images(tmp_path / "cat" / "indoors", range(3, 5), "PNG")
    write_images(tmp_path / "dog", range(10, 12))
    classes = read_folder(tmp_path).classes
    assert {name: [image.name for image in images] for name, images in classes.items()} == {
        "cat": ["000.jpg", "001.jpg", "002.jpg", "indoors/003.png", "indoors/004.png"],
        "dog": ["010.jpg", "011.jpg"],
    }


def test_a_zip_is_a_class_as_a_folder_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cat.zip", "w") as archive:
        archive.writestr("a.jpg", image_bytes(1))
        archive.writestr("__MACOSX/._a.jpg", b"resource fork")
    assert [image.name for image in read_folder(tmp_path).classes["cat"]] == ["a.jpg"]


def test_hidden_files_and_those_of_file_managers_are_left_out_without_a_word(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(2))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"x")
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    examples = read_folder(tmp_path)
    assert (list(examples.classes), examples.unusable, examples.notices) == (["cat"], (), ())


def test_files_that_are_in_no_class_are_named_in_a_notice(tmp_path: Path) -> None:
    write_images(tmp_path, range(5))
    write_images(tmp_path / "cat", range(10, 12))
    assert read_folder(tmp_path).notices == (
        "Not in the folder of a class, and left out: 000.jpg, 001.jpg, 002.jpg and 2 more",
    )


def test_negative_examples_may_be_a_folder_among_the_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(2))
    others = write_images(tmp_path / "others", range(10, 13))
    examples = read_folder(tmp_path, negatives=others)
    assert (list(examples.classes), len(examples.negatives)) == (["cat"], 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"name,class\n", "is not an image"),
        (image_bytes(1, "GIF"), "is a GIF image; examples are JPEG or PNG"),
        (image_bytes(1, "TIFF"), "is a TIFF image; examples are JPEG or PNG"),
        (image_bytes(1, "WEBP"), "is a WebP image; examples are JPEG or PNG"),
        (image_bytes(1, "PNG", (9, 50)), "has 9x50 pixels; the shorter side needs 10"),
        (image_bytes(1, "PNG")[:-40], "is damaged"),
        (image_bytes(1, "JPEG", (200, 200))[:700], "is damaged"),
        (image_bytes(1) + bytes(10 * 1024 * 1024), "has more than 10 MB"),
    ],
    ids=["empty", "text", "GIF", "TIFF", "WebP", "too small", "cut-off PNG", "cut-off JPEG", "too large"],
)
def test_a_file_that_cannot_be_an_example_has_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "file.jpg").write_bytes(content)
    assert reasons(tmp_path) == {"file.jpg": reason}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_rights_is_unusable(tmp_path: Path) -> None:
    write_images(tmp_path, range(1))
    (tmp_path / "000.jpg").chmod(0)
    assert reasons(tmp_path) == {"000.jpg": "cannot be read (Permission denied)"}


def test_a_link_to_nothing_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "moved.jpg")
    assert reasons(tmp_path) == {"lost.jpg": "cannot be read (No such file or directory)"}


def test_a_damaged_entry_of_a_zip_is_unusable_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cat.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad.jpg", image_bytes(1))
        archive.writestr("good.jpg", image_bytes(2))
    data = bytearray(path.read_bytes())
    data[80] ^= 0xFF
    path.write_bytes(data)
    examples = read_class("cat", [path])
    assert ([image.name for image in examples.images], [file.name for file in examples.unusable]) == (["good.jpg"], ["bad.jpg"])


def test_a_zip_that_is_cut_off_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "cat.zip").write_bytes(b"PK\x03\x04 and no directory")
    with pytest.raises(FolderError, match=r"cat\.zip is not a complete zip .*; create it again"):
        read_folder(tmp_path)


def test_the_same_image_twice_in_a_class_is_kept_once(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(2))
    (tmp_path / "cat" / "copy.jpg").write_bytes(image_bytes(0))
    examples = read_folder(tmp_path)
    assert [image.name for image in examples.classes["cat"]] == ["000.jpg", "001.jpg"]
    assert [image.name for image in examples.duplicates] == ["copy.jpg"]


def test_the_same_image_in_two_classes_is_a_conflict_that_names_both(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(2))
    write_images(tmp_path / "dog", range(1, 3))
    assert [str(conflict) for conflict in read_folder(tmp_path).conflicts] == [
        "001.jpg (cat) and 001.jpg (dog) are the same image"
    ]


def test_files_of_the_same_name_in_several_folders_keep_different_names(tmp_path: Path) -> None:
    first, second = write_images(tmp_path / "a", range(1)), write_images(tmp_path / "b", range(1))
    (second / "000.jpg").write_bytes(image_bytes(7))
    assert [image.name for image in read_class("cat", [first, second]).images] == ["000.jpg", "000~2.jpg"]


def test_too_few_images_are_a_problem_that_says_how_many_to_add(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(10))
    write_images(tmp_path / "dog", range(20, 27))
    (tmp_path / "dog" / "copy.jpg").write_bytes(image_bytes(20))
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"?")
    (tmp_path / "owl").mkdir()
    assert read_folder(tmp_path).problems() == (
        'Class "dog" has 7 images (and 1 duplicate and 1 unusable); at least 10 are needed: add 3',
        'Class "owl" has 0 images; at least 10 are needed: add 10',
    )


def test_a_single_class_needs_negative_examples(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(10))
    assert read_folder(tmp_path).problems() == (
        'There is only class "cat"; add another class, or negative examples: images of none of the classes',
    )
    others = write_images(tmp_path / "others", range(20, 30))
    assert read_folder(tmp_path, negatives=others).problems() == ()


def test_a_folder_without_classes_is_a_problem(tmp_path: Path) -> None:
    assert read_folder(tmp_path).problems() == ("There is no class; put the images of each class into a folder of its own",)


def test_a_class_name_that_is_not_allowed_is_a_problem_with_a_name_that_is(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(10))
    write_images(tmp_path / "german-shepherd", range(20, 30))
    assert read_folder(tmp_path).problems() == (
        "Class \"german-shepherd\" contains the character '-', which is not allowed; rename it, for example to"
        ' "german_shepherd"',
    )


@pytest.mark.parametrize(
    "name",
    ["cat", "größe 9", " ", "", "a-b", "a/b", "tab\tname", "x" * 128, "x" * 129, "del\x7f", "c1\x85", '"', "[a]", "日本"],
)
def test_client_and_gateway_allow_the_same_class_names(name: str) -> None:
    assert (class_name_fault(name) is None) == (gateway_fault(name) is None)
    assert gateway_fault(allowed_class_name(name)) is None


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="lost does not exist; give a folder that has a folder with images for each class"):
        read_folder(tmp_path / "lost")


def test_progress_reaches_the_number_of_files(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", range(4))
    seen: list[tuple[int, int]] = []
    read_folder(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
