"""Bytes over a connection of their own, and what comes back before it is closed."""

from __future__ import annotations

import asyncio


async def exchange(port: int, request: bytes, *, finish: bool = True, timeout_seconds: float = 60.0) -> bytes:
    """What comes back until the gateway closes the connection. `finish` closes the sending half behind the request.

    Raises:
        TimeoutError, OSError: the answer has no end, or the connection broke before an answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def write() -> None:
        try:
            writer.write(request)
            await writer.drain()
            if finish:
                writer.write_eof()
        except OSError:
            # It was answered before all of it was sent.
            pass

    writing = asyncio.create_task(write())
    try:
        async with asyncio.timeout(timeout_seconds):
            while chunk := await reader.read(65536):
                answer += chunk
    except OSError as error:
        if not answer or isinstance(error, TimeoutError):
            raise
    finally:
        writing.cancel()
        writer.close()
    return bytes(answer)
