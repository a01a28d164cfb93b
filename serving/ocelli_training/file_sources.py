"""Files and folders of `file://` addresses, which are below the folder of file sources of the installation."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ocelli_storage.archives import MEGABYTE
from ocelli_training.sources import SourceError


async def read_file(folder: Path | None, url: str) -> AsyncGenerator[bytes]:
    """The bytes of a file that a list of addresses names. Raises SourceError."""
    with readable_file_errors(folder, is_folder=False):
        path = await asyncio.to_thread(_find_plain_file, folder, url)
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, MEGABYTE):
                yield chunk


def _find_plain_file(folder: Path | None, url: str) -> Path:
    """The path of a file that a list of addresses names. Raises SourceError, OSError."""
    path, _ = resolve_inside(folder, url)
    # Opening a pipe would wait forever for a writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise SourceError("it is not a file; correct the address")
    return path


@contextmanager
def readable_file_errors(folder: Path | None, *, is_folder: bool) -> Iterator[None]:
    """Raise SourceError where a file or a folder is missing, or cannot be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "folder" if is_folder else "file"
        raise SourceError(
            f"there is no such {what}; paths are relative to {folder}, as the trainer sees it: correct the address, or put the "
            f"{what} there"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        cause = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise SourceError(f"it cannot be read{cause}; check the path, and allow the trainer to read it") from error


def resolve_inside(folder: Path | None, url: str) -> tuple[Path, Path]:
    """The real paths of a `file://` address and of the folder that it is resolved in. Raises SourceError, OSError."""
    if folder is None:
        raise SourceError("file sources are not enabled; set a folder for them in the installation, or use https")
    parts = urlsplit(url)
    segments = [segment for segment in unquote(parts.path).split("/") if segment]
    jail = folder.resolve(strict=True)
    if parts.netloc in ("", "localhost") and ".." not in segments:
        path = jail.joinpath(*segments).resolve(strict=True)
        if path.is_relative_to(jail):
            return path, jail
    raise SourceError("it leads out of the folder of file sources; give a path inside it")
