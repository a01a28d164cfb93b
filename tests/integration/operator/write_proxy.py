"""A proxy in front of the API server that records every write, and can have the operator killed at one of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

WRITING = {"POST", "PUT", "PATCH", "DELETE"}
HOP_BY_HOP = {"host", "transfer-encoding", "connection", "content-length", "content-encoding", "accept-encoding"}


class WriteProxy:
    """`kubeconfig` connects through it. `writes` lists the writes, such as `PATCH /apis/…`, without Leases and Events.

    `at_write` is called for each of them: with False before it is forwarded, and with True when the API server has answered and
    the operator has not received the answer yet. If it returns False, the connection ends there.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.writes: list[str] = []
        self._cut = False
        self.at_write: Callable[[bool], bool] = lambda done: True
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._tls = self._load_tls(cluster, kubeconfig.parent)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = self._run(self._start())
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        for user in document["users"]:
            token_file = user["user"].get("tokenFile")
            if token_file is not None:
                user["user"]["tokenFile"] = str((kubeconfig.parent / token_file).absolute())
        self.kubeconfig = folder / "proxied.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(document))

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """End open watches, and reject new requests."""
        self._cut = True
        self._run(self._close_connections())

    def end_connections(self) -> None:
        """End all open connections, such as watches, and accept new ones."""
        self._run(self._close_connections())

    def mend(self) -> None:
        self._cut = False

    def _run(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)  # type: ignore[arg-type]

    async def _start(self) -> int:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), auto_decompress=False)
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _close_connections(self) -> None:
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if self._cut:
            raise web.HTTPBadGateway
        counted = (
            request.method in WRITING
            and not request.path.rstrip("/").endswith(("/events", "/leases"))
            and ("/leases/" not in request.path)
        )
        if counted:
            self.writes.append(f"{request.method} {request.path}")
            if not self.at_write(False):
                raise web.HTTPBadGateway
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method, self._server + str(request.rel_url), headers=headers, data=await request.read() or None
        ) as answer:
            if counted:
                body = await answer.read()
                if not self.at_write(True):
                    raise web.HTTPBadGateway
                return web.Response(status=answer.status, body=body, content_type="application/json")
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers[name] = value
            await response.prepare(request)
            # A watch ends with the operator that reads it.
            with contextlib.suppress(ConnectionError):
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            return response

    def _load_tls(self, cluster: dict[str, str], folder: Path) -> ssl.SSLContext:
        if "certificate-authority-data" in cluster:
            return ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        return ssl.create_default_context(cafile=str(folder / cluster["certificate-authority"]))
