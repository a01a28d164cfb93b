"""A folder of downloaded images with a manifest: an interrupted import goes on where it was.

A file is complete when the manifest has its line. The manifest has keys and digests, and no addresses of a service: those may
contain signatures.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from ocelli_client.errors import OcelliError
from ocelli_client.image_files import IMAGE_BYTES_LIMIT, Progress, image_suffix
from ocelli_import.listing import RemoteImage

MANIFEST_NAME = "downloads.jsonl"
ATTEMPTS = 5
CONNECTIONS = 8
TIMEOUT_SECONDS = 30.0
"""Of silence; Ctrl-C waits for what is in flight."""
_LONGEST_PAUSE_SECONDS = 60.0
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
USER_AGENT = "ocelli-import"


class DownloadError(OcelliError):
    """An image cannot be downloaded, or the folder of downloads cannot be used."""


Fetch = Callable[[RemoteImage], bytes]
"""Gets the bytes of an image; raises DownloadError."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A downloaded image."""

    file: str
    sha256: str
    size_bytes: int


class DownloadFolder:
    """The images of one source."""

    def __init__(self, folder: Path, source: str) -> None:
        """Open or create it.

        Raises:
            DownloadError: it cannot be written, or has the images of another source.
        """
        self.folder = folder
        self._manifest = folder / MANIFEST_NAME
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._manifest.exists():
                self._append({"source": source})
            lines = self._manifest.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise DownloadError(f"{folder} cannot be used for downloads: {error.strerror}; choose another folder") from error
        # The last line is empty, or cut off where the program was killed.
        records = [record for line in lines[:-1] if (record := _parse(line)) is not None]
        found = records[0].get("source") if records else None
        if found != source:
            raise DownloadError(f"{folder} has downloads of {found}, not of {source}; choose another folder")
        self._entries = {
            record["key"]: Entry(file=record["file"], sha256=record["sha256"], size_bytes=record["bytes"])
            for record in records[1:]
            if record.keys() >= {"key", "file", "sha256", "bytes"}
        }
        if lines[-1]:
            self._repair(records)

    def find(self, image: RemoteImage) -> Path | None:
        """The file of an image, or None if it is not complete."""
        entry = self._entries.get(image.key)
        if entry is None:
            return None
        path = self.folder / entry.file
        return path if path.exists() and path.stat().st_size == entry.size_bytes else None

    def path_of(self, image: RemoteImage) -> Path:
        """The file of an image that is complete."""
        return self.folder / self._entries[image.key].file

    def save(self, image: RemoteImage, data: bytes) -> None:
        """Keep an image: first its file, then the line of the manifest."""
        name = hashlib.sha256(image.key.encode()).hexdigest()[:32] + image_suffix(data)
        temporary = self.folder / f"{name}.part"
        temporary.write_bytes(data)
        temporary.replace(self.folder / name)
        entry = Entry(file=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        with self._lock:
            self._append({"key": image.key, "file": name, "sha256": entry.sha256, "bytes": entry.size_bytes})
            self._entries[image.key] = entry

    def _append(self, record: dict[str, Any]) -> None:
        with self._manifest.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _repair(self, records: Sequence[dict[str, Any]]) -> None:
        temporary = self._manifest.with_suffix(".part")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        temporary.replace(self._manifest)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An image that was not received."""

    image: RemoteImage
    reason: str


def download_all(
    images: Sequence[RemoteImage], folder: DownloadFolder, fetch: Fetch, on_progress: Progress | None = None
) -> list[Failure]:
    """Download what is not in the folder yet, several at the same time; returns what was not received."""
    missing = {image.key: image for image in images if folder.find(image) is None}
    total = len({image.key for image in images})
    done = total - len(missing)
    failures: list[Failure] = []

    def download(image: RemoteImage) -> None:
        folder.save(image, fetch(image))

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="downloads") as pool:
        futures = {pool.submit(download, image): image for image in missing.values()}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except DownloadError as error:
                    failures.append(Failure(image=futures[future], reason=str(error)))
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        finally:
            # Ctrl-C, or a full disk: what is queued is not begun.
            pool.shutdown(wait=True, cancel_futures=True)
    return sorted(failures, key=lambda failure: failure.image.name)


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Gets images by their addresses; what may work later is tried again."""

    client: httpx.Client
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, image: RemoteImage) -> bytes:
        """The bytes of an image.

        Raises:
            DownloadError: there is no answer, it is an error, or the file is larger than an example may be.
        """
        return self.get(image.url)

    def get(self, url: str) -> bytes:
        """See `fetch`."""
        for attempt in range(ATTEMPTS):
            try:
                with self.client.stream("GET", url) as response:
                    if response.status_code == httpx.codes.OK:
                        return _read(response, url)
                    reason = f"{shown_address(url)} answered {response.status_code}"
                    if response.status_code not in _TRY_AGAIN:
                        raise DownloadError(reason)
                    pause = pause_seconds(response, attempt)
            except httpx.HTTPError as error:
                reason = f"{shown_address(url)} is not reachable ({error or type(error).__name__})"
                pause = pause_seconds(None, attempt)
            except httpx.InvalidURL as error:
                raise DownloadError(f"{shown_address(url)} is not an address ({error})") from error
            if attempt + 1 < ATTEMPTS:
                self.sleep(pause)
        raise DownloadError(reason)


def _read(response: httpx.Response, url: str) -> bytes:
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > IMAGE_BYTES_LIMIT:
            raise DownloadError(f"{shown_address(url)} has more than {IMAGE_BYTES_LIMIT // 2**20} MB")
    return bytes(data)


def pause_seconds(response: httpx.Response | None, attempt: int) -> float:
    """How long to wait before the next attempt: what the server asks for, or 1, 2, 4 … seconds."""
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return min(float(asked) if asked.isdecimal() else 2.0**attempt, _LONGEST_PAUSE_SECONDS)


def shown_address(url: str) -> str:
    """An address without its query, which may be a signature, and without credentials."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{'' if parts.port is None else f':{parts.port}'}{parts.path}"
    except ValueError:
        return "an address"


def open_client() -> httpx.Client:
    """A client for addresses of images: without credentials, and with a limit for each silence."""
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True, headers={"User-Agent": USER_AGENT})
