"""Bytes over a connection of their own, and what comes back before it is closed."""

from __future__ import annotations

import asyncio
import re

WHOLE_SECONDS = 2.0
"""How long a request that seems to be whole, and is not, waits for the rest of it."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\s*(?:\r|$)", re.IGNORECASE)
_FINAL = re.compile(rb"HTTP/1\.1 [2-5]")


def is_whole(request: bytes) -> bool:
    """Whether nothing is missing of a request, as far as its own word goes."""
    head, separator, body = request.partition(b"\r\n\r\n")
    declared = _LENGTH.search(head)
    return bool(separator) and len(body) >= (int(declared[1]) if declared else 0)


async def exchange(port: int, request: bytes, *, finish: bool = True, timeout_seconds: float = 60.0) -> bytes:
    """What comes back until the gateway closes the connection.

    `finish` closes the sending half: at once where the request is not whole, else when there is an answer. Whoever closes it
    earlier has left, and nothing more is done for it.

    Raises:
        TimeoutError, OSError: there is no end of it, or the connection broke with nothing sent back.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def write() -> None:
        try:
            writer.write(request)
            await writer.drain()
            if finish:
                await asyncio.sleep(WHOLE_SECONDS if is_whole(request) else 0)
                writer.write_eof()
        except OSError:
            # It was answered before all of it was sent.
            pass

    writing = asyncio.create_task(write())
    try:
        async with asyncio.timeout(timeout_seconds):
            while chunk := await reader.read(65536):
                answer += chunk
                if finish and _FINAL.search(answer):
                    writer.write_eof()
    except OSError as error:
        if not answer or isinstance(error, TimeoutError):
            raise
    finally:
        writing.cancel()
        writer.close()
    return bytes(answer)
