"""Lists of images as CSV and JSON lines: a path or an address, and a class, in each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ocelli_client.texts import count, shorten
from ocelli_import.listed_classes import build_listing
from ocelli_import.listing import Listing, ListingError, Place, place_of

PATH_COLUMNS = (
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "url",
    "image_url",
    "uri",
)
CLASS_COLUMNS = ("class", "class_name", "classname", "category", "label", "tag")
_DELIMITERS = ",;\t|"
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read."""

    path_column: str | None = None
    """None: the one with a usual name."""
    class_column: str | None = None
    images: Path | None = None
    """The folder that paths are relative to; None: that of the table."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    values: dict[str, Any]


def read_csv(table: Path, options: TableOptions) -> Listing:
    """The images of a CSV file. Its first line has the names of the columns, unless its two columns are path and class.

    Raises:
        ListingError: it cannot be read, columns are not found, or a row is not complete.
    """
    return _read_rows(table, options, _csv_rows(table, options))


def read_json_lines(table: Path, options: TableOptions) -> Listing:
    """The images of a file with a JSON object in each line.

    Raises:
        ListingError: it cannot be read, keys are not found, or a line is not a JSON object.
    """
    return _read_rows(table, options, _json_rows(table))


def _read_rows(table: Path, options: TableOptions, rows: Iterator[_Row]) -> Listing:
    folder = options.images or table.parent
    pairs: list[tuple[Place, str]] = []
    without_class: list[str] = []
    columns: tuple[str, str] | None = None
    for row in rows:
        if columns is None:
            columns = _find_columns(table, list(row.values), options)
        place, class_name = (_text(table, row, column) for column in columns)
        if not place:
            raise ListingError(f'{table}, line {row.line}: there is nothing in "{columns[0]}"; name a file or an address')
        if class_name:
            pairs.append((_place(table, row, place, folder), class_name))
        else:
            without_class.append(place)
    if columns is None:
        raise ListingError(f"{table} has no rows; list a path and a class in each")
    notices = (
        [f"Left out: {count(len(without_class), 'row')} without a class: {shorten(without_class)}"] if without_class else []
    )
    return build_listing(pairs, notices)


def _place(table: Path, row: _Row, text: str, folder: Path) -> Place:
    try:
        return place_of(text, folder)
    except ListingError as error:
        raise ListingError(f"{table}, line {row.line}: {error}") from error


def _text(table: Path, row: _Row, column: str) -> str:
    value = row.values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ListingError(f'{table}, line {row.line}: "{column}" is not a text; give one path and one class in each line')
    return str(value).strip()


def _find_columns(table: Path, names: Sequence[str], options: TableOptions) -> tuple[str, str]:
    path = _find_column(table, names, options.path_column, PATH_COLUMNS, "--path-column")
    class_name = _find_column(table, names, options.class_column, CLASS_COLUMNS, "--class-column")
    return path, class_name


def _find_column(table: Path, names: Sequence[str], given: str | None, usual: Sequence[str], option: str) -> str:
    if given is not None:
        if given in names:
            return given
        raise ListingError(f'{table} has no column "{given}"; it has {shorten(names, 10)}')
    by_lower = {name.strip().lower(): name for name in names}
    found = next((by_lower[name] for name in usual if name in by_lower), None)
    if found is None:
        raise ListingError(
            f"{table} has none of the columns {', '.join(usual)}; name one of {shorten(names, 10)} with {option}"
        )
    return found


def _csv_rows(table: Path, options: TableOptions) -> Iterator[_Row]:
    text = _read_text(table)
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        header = next(reader, [])
        if _is_row(header) and options.path_column is None and options.class_column is None:
            yield _Row(line=1, values=dict(zip(("path", "class"), header, strict=True)))
            header = ["path", "class"]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                fact = f"has {len(cells)} cells, and the first line {len(header)}"
                raise ListingError(f"{table}, line {reader.line_num} {fact}; put names with a comma into quotation marks")
            yield _Row(line=reader.line_num, values=dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise ListingError(f"{table}, line {reader.line_num}: {error}; correct the line") from error


def _is_row(cells: Sequence[str]) -> bool:
    """Whether a first line is a path and a class, and not the names of columns."""
    return len(cells) == 2 and PurePosixPath(urlsplit(cells[0].strip()).path).suffix.lower() in _IMAGE_SUFFIXES


def _json_rows(table: Path) -> Iterator[_Row]:
    for number, line in enumerate(_read_text(table).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ListingError(f"{table}, line {number} is not JSON ({error}); write one object in each line") from error
        if not isinstance(values, dict):
            raise ListingError(
                f'{table}, line {number} is not an object; write lines such as {{"path": "a.jpg", "class": "cat"}}'
            )
        yield _Row(line=number, values=values)


def _read_text(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ListingError(f"{table} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ListingError(f"{table} cannot be read: {error.strerror}") from error
