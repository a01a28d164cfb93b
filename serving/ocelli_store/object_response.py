"""The answer that carries an object: the file that was open when its size was said, to the end.

By its path the file would be opened again after its headers are out, when another may have taken its place, or none be there.
It knows nothing of keys, nor of who asks.
"""

from __future__ import annotations

import os
from io import FileIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class ObjectResponse(FileResponse):
    """Sends an open file, or the ranges of it that are asked for, and closes it."""

    def __init__(self, file: FileIO, status: os.stat_result) -> None:
        # The name of an open file stays its own, also when the file has none in its folder any more.
        super().__init__(f"/dev/fd/{file.fileno()}", media_type="application/octet-stream", stat_result=status)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)
