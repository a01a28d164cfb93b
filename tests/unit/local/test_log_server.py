"""The kubelet's query parameters for logs, and the end of a followed log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web

from ocelli_local.process_node.container_log import LogQuery
from ocelli_local.process_node.log_server import LogServer, parse_log_query

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "query"),
    [
        ({}, LogQuery()),
        ({"follow": "true", "timestamps": "true"}, LogQuery(follow=True, timestamps=True)),
        ({"tailLines": "3", "limitBytes": "10"}, LogQuery(tail_lines=3, limit_bytes=10)),
        ({"sinceSeconds": "5"}, LogQuery(since=datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC))),
        ({"sinceTime": "2026-01-01T00:00:00Z"}, LogQuery(since=datetime(2026, 1, 1, tzinfo=UTC))),
    ],
)
def test_parameters_become_a_query(values: dict[str, str], query: LogQuery) -> None:
    assert parse_log_query(values, NOW) == query


def test_value_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_log_query({"tailLines": "many"}, NOW)


def test_reader_that_closes_a_followed_log_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        ended = asyncio.Event()

        async def read(query: LogQuery) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"line\n"
                    await asyncio.sleep(0)
            finally:
                ended.set()

        pod: Any = Mock(find_log=Mock(return_value=Mock(read=read)))
        server = LogServer(Mock(), 0, lambda namespace, name: pod)
        app = web.Application()
        app.router.add_get("/{namespace}/{pod}/{container}", server._send_log)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            response = await session.get(f"http://{host}:{port}/default/a/b?follow=true")
            await response.content.readline()
            response.close()
        async with asyncio.timeout(10):
            await ended.wait()
        await runner.cleanup()

    asyncio.run(follow())
    assert caplog.records == []
