"""Requests as bytes on a separate connection."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from typing import Any

from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance
from tests.gateway_harness.v3_client import basic


def exchange(instance: GatewayInstance, request: bytes, *, finish: bool = False, timeout_seconds: float = 10.0) -> bytes:
    """Send bytes over a connection of their own and read until the gateway closes it, or the answer is whole.

    `finish` closes the sending half afterwards, as a client that was cut off.
    """
    with socket.create_connection(("127.0.0.1", instance.port), timeout=timeout_seconds) as connection:
        connection.sendall(request)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    """One answer, or the part that arrived before the gateway closed the connection."""
    answer = b""
    while not _is_whole(answer):
        chunk = connection.recv(65536)
        if not chunk:
            break
        answer += chunk
    return answer


def _is_whole(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(separator) and length is not None and len(body) >= int(length[1])


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def head(method: str, target: str, *headers: str, user: str = USER, password: str = PASSWORD) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway", f"Authorization: {basic(user, password)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def multipart(parts: Iterable[tuple[str, bytes]], *, boundary: str = "BOUNDARY", closed: bool = True) -> bytes:
    """A body of parts, each with its raw headers and bytes."""
    body = b"".join(f"--{boundary}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n" for headers, data in parts)
    return body + (f"--{boundary}--\r\n".encode() if closed else b"")


MULTIPART_TYPE = "multipart/form-data; boundary=BOUNDARY"
