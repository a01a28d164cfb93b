"""The files of the web console: read once, with the headers that confine what a page of this origin may do.

Nothing here asks who the caller is: the files are the same for everybody, and all data comes from the API. It must not know
what the pages show.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

CONSOLE_PATH = "/console"
FOLDER = Path(__file__).with_name("console")
_INDEX = "index.html"
_DIGEST_CHARACTERS = 16
_ASSETS = "{assets}"
_FIRST_MODULE = "app.js"
_IMPORT = re.compile(r"""^(?:import|\}) [^;(]*?from "(\.[^"]+)";""", re.MULTILINE)
_PRELOADS = "<!-- preloads -->"
_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Only files of these types are served, not the licences next to them, for example."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Thumbnails come as text of an answer, and images that a person drops never leave the browser as an address.
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_AGAIN = "no-cache"
"""The page names the digest of all other files, so that browsers ask for it each time."""
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file as it is sent."""

    content: bytes
    compressed: bytes
    media_type: str
    cache_control: str

    @property
    def entity_tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:_DIGEST_CHARACTERS]}"'


class ConsoleFiles:
    """All files below `/console`, in memory: less than half a megabyte."""

    def __init__(self, folder: Path = FOLDER) -> None:
        contents = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in _TYPES
        }
        # One digest for all: modules import each other by relative addresses, which then lead to files of the same release.
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        self.assets = digest.hexdigest()[:_DIGEST_CHARACTERS]
        index = _build_index(contents.pop(_INDEX).decode(), self.assets, contents)
        self._files = {"": _build_file(index.encode(), ".html", _AGAIN)}
        for name, content in contents.items():
            self._files[f"{self.assets}/{name}"] = _build_file(content, PurePosixPath(name).suffix, _FOR_EVER)

    def answer(self, request: Request, path: str) -> Response | None:
        """The answer for an address below `/console`; None where there is no such file."""
        name = path.removeprefix(CONSOLE_PATH).strip("/")
        file = self._files.get(name)
        if file is None:
            return None
        if not name and not request.url.path.endswith("/"):
            # The page's addresses are relative, so that it also works behind a proxy that adds a prefix.
            return Response(status_code=307, headers={**HEADERS, "Location": f"{path.rpartition('/')[2]}/"})
        headers = {
            **HEADERS,
            "Cache-Control": file.cache_control,
            "ETag": file.entity_tag,
            "Vary": "Accept-Encoding",
        }
        if file.entity_tag in _list_values(request, "if-none-match"):
            return Response(status_code=304, headers=headers)
        if "gzip" in _list_values(request, "accept-encoding"):
            headers["Content-Encoding"] = "gzip"
            return Response(file.compressed, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


def _list_values(request: Request, header: str) -> set[str]:
    """The members of a list in a header, without weights and marks of weak tags."""
    text = ",".join(request.headers.getlist(header))
    return {item.partition(";")[0].strip().removeprefix("W/") for item in text.split(",")}


def _build_index(index: str, assets: str, contents: Mapping[str, bytes]) -> str:
    """The page, with the addresses of this release. The modules of the first paint are preloaded: each names the next only once
    it is read."""
    preloads = "\n".join(f'    <link rel="modulepreload" href="{assets}/{name}">' for name in _find_first_modules(contents))
    return index.replace(_PRELOADS, preloads.strip()).replace(_ASSETS, assets)


def _find_first_modules(contents: Mapping[str, bytes]) -> list[str]:
    """The first module and all that are imported from it, except those that it imports later."""
    found, waiting = [_FIRST_MODULE], [_FIRST_MODULE]
    while waiting:
        module = waiting.pop()
        for address in _IMPORT.findall(contents[module].decode()):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(module), address))
            if name not in found:
                found.append(name)
                waiting.append(name)
    return found


def _build_file(content: bytes, suffix: str, cache_control: str) -> _File:
    return _File(
        content=content,
        # The time of the compression is not part of it: replicas send the same bytes.
        compressed=gzip.compress(content, 9, mtime=0),
        media_type=_TYPES[suffix],
        cache_control=cache_control,
    )
