"""The answer that carries an object, from the file that was open when its size was sent.

Starlette would open the path again after the headers are sent, when the object may have been replaced or deleted. This module
must not know keys or callers.
"""

from __future__ import annotations

import os
from io import FileIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class ObjectResponse(FileResponse):
    """Sends an open file, or the requested ranges of it, and closes it."""

    def __init__(self, file: FileIO, status: os.stat_result) -> None:
        # This path refers to the open file, even after the file was deleted.
        super().__init__(f"/dev/fd/{file.fileno()}", media_type="application/octet-stream", stat_result=status)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)
