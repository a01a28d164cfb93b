"""The API server can parse request bodies with any characters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import CLASSIFIERS, EVENTS
from tests.unit.cluster.kubeconfig import write_kubeconfig

PLANES = "".join(chr(plane * 0x10000 + offset) for plane in range(17) for offset in (0x00E9, 0x4E00, 0xFFFD))
CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1FFFF, 0x10FFFF]))
TEXTS = {
    "every plane": PLANES,
    "an emoji": "class \U0001f436\u200d\U0001f9ba",
    "control characters": CONTROLS,
    "text that looks like an escape": "\\ud83d\\udc36 \\\\u007f \\N \" ' # : - {}",
    "right to left": "\u202eabc\u2066\u0627",
}


class Recorder:
    """Records the body of every request, and answers with an object."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []

    @asynccontextmanager
    async def client(self, folder: Path) -> AsyncIterator[ClusterClient]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        environment = write_kubeconfig(folder, port)
        try:
            async with await ClusterClient.connect(environment) as client:
                yield client
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.bodies.append((request.headers["Content-Type"], await request.read()))
        return web.json_response({"metadata": {}})


def send_status(folder: Path, message: str) -> tuple[str, bytes]:
    """Content type and body of a status write."""

    async def scenario() -> tuple[str, bytes]:
        recorder = Recorder()
        body: dict[str, Any] = {"status": {"conditions": [{"message": message}]}}
        async with recorder.client(folder) as client:
            await client.apply(CLASSIFIERS, "team-a", "dogs", body, field_manager="test", subresource="status")
        return recorder.bodies[0]

    return asyncio.run(scenario())


@pytest.mark.parametrize("name", TEXTS)
def test_a_status_write_is_yaml_with_the_same_text(name: str, tmp_path: Path) -> None:
    content_type, body = send_status(tmp_path, TEXTS[name])
    assert content_type.partition(";")[0] == "application/apply-patch+yaml"
    # As strict as the API server: it rejects characters that YAML 1.1 does not allow, and surrogate pairs.
    assert yaml.safe_load(body)["status"]["conditions"][0]["message"] == TEXTS[name]
    assert "\\ud8" not in body.decode().lower().replace("\\\\ud8", "")


def test_a_lone_surrogate_is_replaced_in_a_status_write(tmp_path: Path) -> None:
    _, body = send_status(tmp_path, "a\ud83d.jpg \udcff")
    assert yaml.safe_load(body)["status"]["conditions"][0]["message"] == "a\ufffd.jpg \ufffd"


@pytest.mark.parametrize("name", TEXTS)
def test_a_create_is_json_with_the_same_text(name: str, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        recorder = Recorder()
        async with recorder.client(tmp_path) as client:
            await client.create(EVENTS, "team-a", {"note": TEXTS[name]})
        return recorder.bodies[0][1]

    assert json.loads(asyncio.run(scenario()))["note"] == TEXTS[name]
