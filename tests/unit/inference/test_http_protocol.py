"""Answers of the inference server without its application."""

from __future__ import annotations

import json
from contextlib import ExitStack

from ocelli_api.prediction import Refusal
from ocelli_inference.http_protocol import InferenceProtocol
from tests.unit.http.test_connection import CHUNKED, connect, read_to_end, running


def test_connection_above_the_limit_is_answered_as_a_full_queue() -> None:
    with running({"limit_concurrency": 3, "http": InferenceProtocol}) as address, ExitStack() as stack:
        for _ in range(3):
            busy = stack.enter_context(connect(address))
            busy.sendall(b"GET /halves HTTP/1.1\r\n\r\n")
            assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
        with connect(address) as connection:
            connection.sendall(CHUNKED % b"read" + b"1\r\nx\r\n0\r\n\r\n")
            head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head
    assert json.loads(body)["error"]["kind"] == Refusal.QUEUE_FULL
