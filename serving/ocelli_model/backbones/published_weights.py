"""Finds the file of a model's published weights: in torch hub's cache, in a folder, or at a URL. It does not need PyTorch."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ocelli_model.backbone import BackboneUnavailableError, Weights

FETCH_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1024 * 1024
_SUFFIXES = (".safetensors", ".pth", ".pt")
# torchvision ends a file's name with the first digits of its SHA-256.
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_REMEDY = (
    "give its weights (folder, file or URL) with --weights, put them into torch hub's cache, "
    "or choose EfficientNetLite0, whose weights come as a package"
)


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file of weights on this machine."""

    path: Path
    name: str
    """Its original name."""
    weights: Weights
    shown: str
    """What messages call it."""


def hub_folder() -> Path:
    """The folder in which torch hub keeps downloads, found as PyTorch finds it."""
    cache = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(cache).expanduser() / "hub" / "checkpoints"


def digest_prefix(file_name: str) -> str | None:
    """The first digits of the SHA-256 (hex) of a file, if its name contains them as torchvision's names do."""
    found = _DIGEST_IN_NAME.search(file_name)
    return found[1] if found else None


@contextmanager
def find_weights(
    name: str, where: str | None, *, sha256: str | None, published_names: Callable[[], Sequence[str]]
) -> Iterator[WeightsFile]:
    """Find the weights of a model. The file may be temporary: it exists as long as the context.

    `where` is a folder, a file, an http, https or file URL of either, or None for torch hub's cache. `published_names` returns
    torchvision's names for the file, its default first. It is called only if the model's own name is not enough.

    Raises:
        BackboneUnavailableError: there are none, or their digest is not the one that `sha256` (64 hex digits) pins.
    """
    scheme = "" if where is None else urlsplit(where).scheme
    if where is not None and scheme in ("http", "https"):
        with tempfile.TemporaryDirectory(prefix="ocelli-weights-") as folder:
            yield _pinned(name, _fetch(name, where, Path(folder)), sha256)
        return
    path = hub_folder() if where is None else Path(unquote(urlsplit(where).path) if scheme == "file" else where)
    if scheme not in ("", "file"):
        raise BackboneUnavailableError(
            f"backbone {name}: weights from {where!r}: Ocelli cannot read {scheme} URLs; give a folder, a file, or an https URL"
        )
    if path.is_dir():
        path = _find_in_folder(name, path, published_names)
    if not path.is_file():
        place = f"torch hub's cache {path}" if where is None else path
        raise BackboneUnavailableError(f"backbone {name}: {place} does not exist; {_REMEDY}")
    yield _pinned(name, describe_weights(path, name=path.name, origin=path.name), sha256)


def _find_in_folder(name: str, folder: Path, published_names: Callable[[], Sequence[str]]) -> Path:
    files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.is_file()}
    for suffix in _SUFFIXES:
        if name + suffix in files:
            return files[name + suffix]
    own = [file for file in files if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]+\.[a-z]+", file)]
    if len(own) == 1:
        return files[own[0]]
    # There are none, several versions, or one under a name that only torchvision knows: torchvision's order decides.
    for published in published_names():
        if published in files:
            return files[published]
    found = f", only {', '.join(own)}" if own else ""
    raise BackboneUnavailableError(f"backbone {name}: no published weights of it in {folder}{found}; {_REMEDY}")


def _describe_cause(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f" (the server answered {error.code})"
        case urllib.error.URLError(reason=OSError(strerror=str(cause))) | OSError(strerror=str(cause)):
            return f" ({cause})"
        case _:
            return ""


def _fetch(name: str, url: str, folder: Path) -> WeightsFile:
    parts = urlsplit(url)
    # User, password and query may be secrets.
    shown = urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
    path = folder / (Path(unquote(parts.path)).name or "weights.pth")
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_SECONDS) as response, path.open("wb") as file:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
    except (OSError, ValueError) as error:
        fact = f"backbone {name}: weights could not be fetched from {shown}{_describe_cause(error)}"
        raise BackboneUnavailableError(f"{fact}; {_REMEDY}") from error
    if expected is not None and path.stat().st_size != int(expected):
        raise BackboneUnavailableError(f"backbone {name}: weights from {shown} were cut off during the download; try again")
    described = describe_weights(path, name=path.name, origin=shown)
    prefix = digest_prefix(path.name)
    if prefix is not None and not described.weights.sha256.startswith(prefix):
        raise BackboneUnavailableError(
            f"backbone {name}: weights from {shown} have SHA-256 {described.weights.sha256}, "
            f"not the {prefix}… of their name; the file is damaged or another one: fetch it again"
        )
    return described


def describe_weights(path: Path, *, name: str, origin: str, shown: str | None = None) -> WeightsFile:
    """A file of weights with its digest; messages show its origin unless `shown` is given. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightsFile(path=path, name=name, weights=Weights(origin=origin, sha256=digest), shown=shown or origin)


def _pinned(name: str, file: WeightsFile, sha256: str | None) -> WeightsFile:
    if sha256 is not None and file.weights.sha256 != sha256:
        raise BackboneUnavailableError(
            f"backbone {name}: {file.weights.origin} has SHA-256 {file.weights.sha256}, pinned is {sha256}; "
            "correct the pin or fetch the right file"
        )
    return file
