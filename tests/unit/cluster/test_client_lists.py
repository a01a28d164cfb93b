"""Lists that the client reads page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from ocelli_cluster.client import ClusterClient, GoneError, Page
from ocelli_cluster.resources import CLASSIFIERS

pytestmark = pytest.mark.anyio

EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "The provided continue parameter is too old"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def answer(version: str, *names: str, continued: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": version, **({"continue": continued} if continued else {})}
    return {"metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


@asynccontextmanager
async def serving(respond: Callable[[dict[str, str]], dict[str, Any]]) -> AsyncIterator[ClusterClient]:
    """A client of a server that answers list requests by their query."""

    async def handle(request: web.Request) -> web.Response:
        body = respond(dict(request.query))
        return web.json_response(body, status=body.get("code", 200))

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with ClusterClient(configuration, lambda _: None) as client:
            yield client
    finally:
        await runner.cleanup()


async def collect(client: ClusterClient) -> list[Page]:
    return [page async for page in client.list_pages(CLASSIFIERS)]


def names(page: Page) -> list[str]:
    return [item["metadata"]["name"] for item in page.items]


async def test_pages_are_delivered_one_by_one() -> None:
    pages = {"": answer("7", "a", continued="next"), "next": answer("7", "b")}
    async with serving(lambda query: pages[query.get("continue", "")]) as client:
        found = await collect(client)
    assert [(names(page), page.first, page.resource_version) for page in found] == [(["a"], True, "7"), (["b"], False, "7")]


async def test_a_list_whose_version_is_compacted_restarts_as_one_page() -> None:
    def respond(query: dict[str, str]) -> dict[str, Any]:
        if "continue" in query:
            return EXPIRED
        return answer("7", "a", continued="next") if "limit" in query else answer("9", "b", "c")

    async with serving(respond) as client:
        found = await collect(client)
    assert [(names(page), page.first, page.resource_version) for page in found] == [(["a"], True, "7"), (["b", "c"], True, "9")]


async def test_a_restarted_list_contains_nothing_of_its_first_attempt() -> None:
    def respond(query: dict[str, str]) -> dict[str, Any]:
        if "continue" in query:
            return EXPIRED
        return answer("7", "a", continued="next") if "limit" in query else answer("9", "b")

    async with serving(respond) as client:
        listing = await client.list_objects(CLASSIFIERS)
    assert [item["metadata"]["name"] for item in listing.items] == ["b"]
    assert listing.resource_version == "9"


async def test_a_list_that_expires_immediately_fails() -> None:
    async with serving(lambda _: EXPIRED) as client:
        with pytest.raises(GoneError):
            await collect(client)
