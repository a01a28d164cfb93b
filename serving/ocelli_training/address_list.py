"""Lists of addresses: sources whose file names one image a line, as CSV or as JSON lines. Pure.

A CSV begins with the header `url` or `url,sha256`. A line of JSON is `{"url": …}`, with `sha256` where it is pinned.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ocelli_api.digests import is_digest
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import MEGABYTE, shown_name
from ocelli_training.sources import SourceError

LIST_BYTES_LIMIT = 32 * MEGABYTE
_ADDRESS_LIMIT = 2048
_CSV, _JSON_LINES = (".csv",), (".jsonl", ".ndjson")
_COLUMNS = ("url", "sha256")
_SCHEMES = ("https", "http", "s3", "gs", "az", "file")


@dataclass(frozen=True, kw_only=True)
class ListedAddress:
    """One line of a list."""

    url: str
    sha256: str | None
    line: int


def is_address_list(url: str) -> bool:
    """Whether a URL names a list, by the end of its path."""
    return urlsplit(url).path.lower().endswith((*_CSV, *_JSON_LINES))


def parse_address_list(url: str, data: bytes, *, images_limit: int, all_pinned: bool) -> tuple[ListedAddress, ...]:
    """The addresses in the list at `url`, made absolute. With `all_pinned`, each must have a digest.

    Raises:
        SourceError: it is not such a list. The message is fact and remedy, without the address of the list.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault("it is not a text in UTF-8; save the list as UTF-8") from error
    is_csv = urlsplit(url).path.lower().endswith(_CSV)
    found: list[ListedAddress] = []
    for line, fields in _read_csv(text) if is_csv else _read_json_lines(text):
        if len(found) == images_limit:
            raise _fault(f"it has more than {images_limit} addresses; split it into several lists")
        found.append(_parse_line(url, line, fields, all_pinned=all_pinned))
    if not found:
        raise _fault("it has no addresses; add one line for each image")
    return tuple(found)


def _read_csv(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    rows = csv.reader(text.splitlines(), strict=True)
    try:
        header = next(rows, [])
        if "url" not in header or not set(header) <= set(_COLUMNS) or len(set(header)) < len(header):
            shown = shown_name(",".join(header))
            # A column with class names would be ignored: every class would get every image.
            raise _fault(
                f"its first line is {shown!r} instead of the header url, or url,sha256; add the header, without others"
            )
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                fact = f"line {rows.line_num} has {len(row)} columns instead of {len(header)}"
                raise _fault(f"{fact}; put addresses with commas in quotes")
            yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _fault(f"line {rows.line_num} is not CSV; correct it") from error


def _read_json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise _fault(f'line {number} is not a JSON object; write it as {{"url": "https://…"}}')
        unknown = _first(name for name in document if name not in _COLUMNS)
        if unknown is not None:
            raise _fault(f"line {number} has the key {shown_name(unknown)!r}; only url and sha256 are allowed: remove it")
        yield number, document


def _parse_line(base: str, line: int, fields: Mapping[str, object], *, all_pinned: bool) -> ListedAddress:
    url, digest = fields.get("url"), fields.get("sha256") or None
    if not isinstance(url, str) or not url.strip() or len(url) > _ADDRESS_LIMIT:
        raise _fault(f"line {line} has no address of 1 to {_ADDRESS_LIMIT} characters; correct it")
    if digest is not None and not is_digest(digest):
        raise _fault(f"line {line}: its sha256 is not 64 lower-case hex digits; correct it")
    if digest is None and all_pinned:
        raise _fault(f"line {line} has no sha256, although the list is pinned by one; pin every image, or remove sha256")
    return ListedAddress(url=_make_absolute(base, url.strip(), line), sha256=digest, line=line)


def _make_absolute(base: str, url: str, line: int) -> str:
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise _fault(f"line {line} is not a valid address; correct it") from error
    if "://" not in url:
        # A path next to the list. What leads elsewhere needs a whole address.
        if url.startswith("/") or ".." in url.split("/"):
            raise _fault(f"line {line} is a path that leads out of the folder of the list; give the whole address")
        folder = base.split("?")[0].rpartition("/")[0]
        return f"{folder}/{url}"
    if scheme not in _SCHEMES:
        raise _fault(f"line {line} has an address of the kind {shown_name(scheme)}://, which is not supported; use https or s3")
    # The author of a list on a server is not the author of the Classifier, who may read the installation's files.
    if scheme == "file" and not base.lower().startswith("file:"):
        raise _fault(f"line {line} is a file address, which only lists that are files themselves may contain; use https or s3")
    if url.endswith("/"):
        raise _fault(f"line {line} is the address of a folder; a list names single images")
    return url


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)


def _fault(message: str) -> SourceError:
    return SourceError(message, reason=OutcomeReason.INVALID_DATA)
