"""Starting a process with its output in a pipe, and reading the pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ocelli_local.child_process import ChildProcess

DRAIN_SECONDS = 0.5


class OutputReader(asyncio.Protocol):
    """Passes the content of a pipe to `take`, until the last writer has closed it or `close` is called."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._connecting: asyncio.Task[object] | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._ended = asyncio.get_running_loop().create_future()

    def start_process(self, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> ChildProcess:
        """Start a process that writes to the pipe; raises OSError where it can't be started."""
        reading, writing = os.pipe()
        try:
            process = ChildProcess.start(argv, env=env, folder=folder, output=writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        connect = asyncio.get_running_loop().connect_read_pipe(lambda: self, os.fdopen(reading, "rb"))
        self._connecting = asyncio.create_task(connect)
        return process

    async def drain(self) -> None:
        """Returns when all output was read, but after half a second at most: a grandchild may keep the pipe open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), DRAIN_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._ended.done():
            transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._ended.done():
            self._take(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def close(self) -> None:
        self.connection_lost(None)
        if self._transport is not None:
            self._transport.close()
