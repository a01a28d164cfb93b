"""What one run of a container wrote: stored with a time for each line, read back whole, in part, or as it grows.

Owns the file format (`TIME F|P TEXT`: F ends a line, P is a part of one) and its size limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ocelli_local.manifests import format_time

LIMIT_BYTES = 10 * 1024 * 1024
LONGEST_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class LogQuery:
    """What of a log is asked for, as `kubectl logs` asks."""

    follow: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


class ContainerLog:
    """The log of one run. Beyond the limit the older half goes, as with a kubelet's rotation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._older = path.with_name(f"{path.name}.1")
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (open for as long as the container runs)
        self._size = self._file.tell()
        self._partial = b""
        self._closed = False
        self._grown = asyncio.Event()

    @classmethod
    def stored(cls, path: Path) -> ContainerLog:
        """The log of a run that is over, for reading."""
        log = cls(path)
        log.close()
        return log

    def write(self, chunk: bytes) -> None:
        stamp = format_time(datetime.now(UTC), timespec="microseconds").encode()
        *lines, rest = (self._partial + chunk).split(b"\n")
        entries = [b"%s F %s\n" % (stamp, line) for line in lines]
        while len(rest) > LONGEST_LINE_BYTES:
            entries.append(b"%s P %s\n" % (stamp, rest[:LONGEST_LINE_BYTES]))
            rest = rest[LONGEST_LINE_BYTES:]
        self._partial = rest
        self._append(b"".join(entries))

    def close(self) -> None:
        if self._closed:
            return
        if self._partial:
            stamp = format_time(datetime.now(UTC), timespec="microseconds").encode()
            self._append(b"%s P %s\n" % (stamp, self._partial))
            self._partial = b""
        self._closed = True
        self._file.close()
        self._wake_followers()

    def delete(self) -> None:
        """Close it and remove its files, the rotated one too."""
        self.close()
        for path in (self.path, self._older):
            path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        if not data:
            return
        if self._size + len(data) > LIMIT_BYTES:
            self._file.close()
            self.path.replace(self._older)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            self._size = 0
        self._file.write(data)
        self._size += len(data)
        self._wake_followers()

    def _wake_followers(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def read(self, query: LogQuery) -> AsyncIterator[bytes]:
        """What was asked for, in pieces; with `follow` until the run ends."""
        left = query.limit_bytes
        async for piece in self._read_pieces(query):
            if left is not None and len(piece) >= left:
                yield piece[:left]
                return
            left = None if left is None else left - len(piece)
            yield piece

    async def _read_pieces(self, query: LogQuery) -> AsyncIterator[bytes]:
        grown = self._grown
        selected = [entry for path in (self._older, self.path) for entry in read_entries(path)]
        position = (self.path.stat().st_ino, self.path.stat().st_size) if self.path.exists() else (0, 0)
        yield render_entries(select_entries(selected, query), query)
        while query.follow:
            if self._closed and position == self._position():
                return
            if position == self._position():
                await grown.wait()
            grown = self._grown
            new, position = self._read_after(position)
            yield render_entries(select_entries(new, LogQuery(since=query.since)), query)

    def _position(self) -> tuple[int, int]:
        stat = self.path.stat()
        return stat.st_ino, stat.st_size

    def _read_after(self, position: tuple[int, int]) -> tuple[list[bytes], tuple[int, int]]:
        inode, offset = position
        entries: list[bytes] = []
        current = self._position()
        if current[0] != inode:
            # Rotated in between: finish the older file first.
            entries += read_entries(self._older, offset=offset)
            offset = 0
        entries += read_entries(self.path, offset=offset, end=current[1])
        return entries, current


def read_entries(path: Path, *, offset: int = 0, end: int | None = None) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read() if end is None else file.read(max(0, end - offset))
    except FileNotFoundError:
        return []
    # Not `splitlines`: progress bars are full of carriage returns.
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def select_entries(entries: list[bytes], query: LogQuery) -> Iterator[bytes]:
    if query.since is not None:
        # Times of one format and zone sort like text.
        since = format_time(query.since, timespec="microseconds").encode()
        entries = [entry for entry in entries if entry[:27] >= since]
    if query.tail_lines is not None:
        entries = list(deque(entries, maxlen=query.tail_lines))
    return iter(entries)


def render_entries(entries: Iterator[bytes], query: LogQuery) -> bytes:
    rendered = bytearray()
    continues = False
    for entry in entries:
        stamp, flag, text = entry[:27], entry[28:29], entry[30:-1]
        if query.timestamps and not continues:
            rendered += stamp + b" "
        rendered += text
        continues = flag == b"P"
        if not continues:
            rendered += b"\n"
    return bytes(rendered)


def read_last_text(path: Path, *, limit_bytes: int, limit_lines: int) -> str:
    """The end of a log as plain text, for a termination message."""
    text = render_entries(iter(read_entries(path)), LogQuery())
    lines = text.decode(errors="replace").splitlines(keepends=True)[-limit_lines:]
    return "".join(lines).encode()[-limit_bytes:].decode(errors="replace")
