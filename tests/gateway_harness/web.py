"""A web server for the gateway's fetches: images and faults."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.gateway_harness.images import build_zip, png

MEGABYTE = 1024 * 1024


@dataclass(kw_only=True)
class Web:
    """Remembers the headers of each request."""

    requests: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.requests.append(request)
        name = request.path_params["name"]
        match name:
            case "good":
                return Response(png(), media_type="text/plain")
            case "page":
                return Response("<html></html>", media_type="image/png")
            case "zip":
                return Response(build_zip({"a.png": png()}))
            case "large":
                return Response(png() + bytes(10 * MEGABYTE))
            case "endless":
                return StreamingResponse(_endless())
            case "gzip":
                return Response(gzip.compress(png()), headers={"Content-Encoding": "gzip"})
            case "bomb":
                return Response(gzip.compress(png() + bytes(60 * MEGABYTE)), headers={"Content-Encoding": "gzip"})
            case "slow":
                await asyncio.sleep(30)
                return Response(png())
            case "cut":
                return Response(png(), headers={"Content-Length": str(len(png()) + 100)})
            case "empty":
                return Response(b"")
            case "loop":
                return RedirectResponse("/loop")
            case "to":
                return RedirectResponse(
                    request.query_params["where"], status_code=int(request.query_params.get("status", "302"))
                )
            case _ if name.startswith("hop"):
                left = int(name[3:])
                return RedirectResponse("/good" if left == 1 else f"/hop{left - 1}")
            case _:
                return Response("nothing here", status_code=404)

    def build(self) -> Starlette:
        return Starlette(routes=[Route("/{name:path}", self.answer)])


async def _endless() -> AsyncIterator[bytes]:
    yield png()
    # Far more than the gateway reads, but little enough for a test.
    for _ in range(100):
        yield bytes(MEGABYTE)
        await asyncio.sleep(0)
