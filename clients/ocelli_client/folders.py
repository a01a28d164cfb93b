"""Reading examples from folders: a folder per class, or all images of one class."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocelli_client.errors import OcelliError
from ocelli_client.examples import Example, Examples, ExampleSet, build_examples, build_set
from ocelli_client.image_files import READING_ERRORS, FileLocation, Progress, ZipEntry, inspect_files
from ocelli_client.texts import shorten

# Written by file managers, never examples.
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class FolderError(OcelliError):
    """A folder, file or zip of examples cannot be read."""


def read_folder(folder: Path, *, negatives: Path | None = None, on_progress: Progress | None = None) -> Examples:
    """A classifier's examples from a folder: each sub folder, and each zip, has the images of one class and its name.

    Hidden files are left out; files of the folder itself have no class and are reported in the notices.

    Raises:
        FolderError: the folder, or a zip, cannot be read.
    """
    examples, notices = list_folder(folder, negatives=negatives)
    found = build_examples(examples, notices, on_progress)
    # An empty folder is a class that someone meant to fill.
    known = {one.class_name for one in found.sets}
    empty = [
        ExampleSet(class_name=path.name)
        for path in _class_folders(folder, negatives)
        if path.name not in known and path.is_dir()
    ]
    if negatives is not None and None not in known:
        empty.append(ExampleSet(class_name=None))
    return Examples((*found.sets, *empty), found.notices)


def list_folder(folder: Path, *, negatives: Path | None = None) -> tuple[list[Example], list[str]]:
    """The files of `read_folder`, which are not read yet, and the notices.

    Raises:
        FolderError: the folder, or a zip, cannot be read.
    """
    files: dict[str | None, list[FileLocation]] = {}
    for path in _class_folders(folder, negatives):
        files.setdefault(path.name if path.is_dir() else path.stem, []).extend(_find_files(path))
    if negatives is not None:
        files[None] = find_files([negatives])
    examples = [
        Example(class_name=name, location=location)
        for name, locations in files.items()
        for location in with_unique_names(locations)
    ]
    classless = [
        path.name
        for path in sorted(folder.iterdir())
        if not (_is_hidden(path.name) or path.is_dir() or _is_zip(path) or path == negatives)
    ]
    notices = [f"Not in the folder of a class, and left out: {shorten(classless)}"] if classless else []
    return examples, notices


def _class_folders(folder: Path, negatives: Path | None) -> list[Path]:
    """The folders and zips that are classes."""
    _check_folder(folder)
    skipped = None if negatives is None else negatives.resolve()
    return [
        path
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if not _is_hidden(path.name) and path.resolve() != skipped and (path.is_dir() or _is_zip(path))
    ]


def read_class(class_name: str | None, paths: Sequence[Path], on_progress: Progress | None = None) -> ExampleSet:
    """The examples of one class, or negative examples (None), from folders, image files and zips.

    Raises:
        FolderError: a path does not exist or cannot be read.
    """
    return build_set(class_name, inspect_files(find_files(paths), on_progress))


def find_files(paths: Sequence[Path]) -> list[FileLocation]:
    """All files in folders and zips, and the files themselves, with names that differ.

    Raises:
        FolderError: a path does not exist or cannot be read.
    """
    found: list[FileLocation] = []
    for path in paths:
        if path.is_dir() or _is_zip(path):
            found += _find_files(path)
        elif path.is_file():
            found.append(FileLocation(path=path, name=shown_name(path.name)))
        else:
            raise FolderError(f"{path} does not exist; give a folder, a zip or image files")
    return with_unique_names(found)


def with_unique_names(locations: Sequence[FileLocation]) -> list[FileLocation]:
    """The same files; one whose name another has already gets a number in its name."""
    seen: set[str] = set()
    unique: list[FileLocation] = []
    for location in locations:
        name, number = location.name, 1
        while name in seen:
            number += 1
            stem, dot, suffix = location.name.rpartition(".")
            name = f"{stem}~{number}{dot}{suffix}" if dot else f"{location.name}~{number}"
        seen.add(name)
        unique.append(FileLocation(path=location.path, entry=location.entry, name=name))
    return unique


def _find_files(path: Path) -> Iterator[FileLocation]:
    if not path.is_dir():
        yield from _find_entries(path)
        return
    _check_folder(path)
    # Links to folders are not followed: they may lead back here.
    for folder, folders, files in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(files):
            if not _is_hidden(name):
                file = Path(folder) / name
                yield FileLocation(path=file, name=shown_name(file.relative_to(path).as_posix()))


def _find_entries(path: Path) -> Iterator[FileLocation]:
    try:
        archive = zipfile.ZipFile(path)
    except READING_ERRORS as error:
        raise FolderError(f"{path} is not a complete zip ({error}); create it again") from error
    for entry in archive.infolist():
        if not entry.is_dir() and not any(_is_hidden(part) for part in entry.filename.split("/")):
            yield FileLocation(path=path, entry=ZipEntry(archive=archive, name=entry.filename), name=shown_name(entry.filename))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        fact = "is not a folder" if folder.exists() else "does not exist"
        raise FolderError(f"{folder} {fact}; give a folder that has a folder with images for each class")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FolderError(f"{folder} cannot be read; change its rights")


def _refuse(error: OSError) -> None:
    raise FolderError(f"{error.filename} cannot be read ({error.strerror}); change its rights") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def shown_name(name: str) -> str:
    """The name as text: file systems allow bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
