"""The node's own HTTPS server, where the API server fetches container logs.

Owns the paths and parameters of the kubelet that `kubectl logs` needs, and that only the API server is let in.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from ocelli_local.certificates import KeyPair
from ocelli_local.process_node.container_log import LogQuery
from ocelli_local.process_node.pod_runner import PodRunner

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FindPod = Callable[[str, str], PodRunner | None]


@dataclass(frozen=True, kw_only=True)
class LogServerOptions:
    address: str
    port: int
    certificate: KeyPair
    client_authority: Path
    allowed_client_name: str


class LogServer:
    def __init__(self, options: LogServerOptions, find_pod: FindPod) -> None:
        self._options = options
        self._find_pod = find_pod
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._options.client_authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._options.certificate.certificate, self._options.certificate.key)
        app = web.Application(middlewares=[self._let_in_api_server])
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._send_log)
        for operation in ("exec", "attach", "portForward"):
            app.router.add_route("*", f"/{operation}/{{rest:.*}}", self._refuse)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._options.address, self._options.port, ssl_context=context).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _let_in_api_server(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
        if names != [self._options.allowed_client_name]:
            return web.Response(status=403, text="only the API server may ask")
        return await handler(request)

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=501,
            text="the process node runs containers as plain processes of this machine: there is nothing to enter; "
            "use the machine's own shell, and the Pod's address for its ports\n",
        )

    async def _send_log(self, request: web.Request) -> web.StreamResponse:
        pod_name, container = request.match_info["pod"], request.match_info["container"]
        runner = self._find_pod(request.match_info["namespace"], pod_name)
        if runner is None:
            return web.Response(status=404, text=f'pod "{pod_name}" is not on this node')
        try:
            query = parse_log_query(request.query, datetime.now(UTC))
        except ValueError as error:
            return web.Response(status=400, text=f"bad query: {error}")
        previous = request.query.get("previous") == "true"
        log = runner.find_log(container, previous=previous)
        if log is None:
            state = f'previous terminated container "{container}"' if previous else f'container "{container}"'
            remedy = "not found" if previous else "has not started yet"
            return web.Response(status=400, text=f'{state} in pod "{pod_name}" {remedy}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        # Whoever follows a log ends by hanging up: nothing that anybody has to be told.
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            async for piece in log.read(query):
                if piece:
                    await response.write(piece)
            await response.write_eof()
        return response


def parse_log_query(values: Mapping[str, str], now: datetime) -> LogQuery:
    """The kubelet's query parameters; raises ValueError for what is no number or time."""
    since = None
    if "sinceSeconds" in values:
        since = now - timedelta(seconds=int(values["sinceSeconds"]))
    elif "sinceTime" in values:
        since = datetime.fromisoformat(values["sinceTime"].replace("Z", "+00:00"))
    return LogQuery(
        follow=values.get("follow") == "true",
        tail_lines=int(values["tailLines"]) if "tailLines" in values else None,
        since=since,
        timestamps=values.get("timestamps") == "true",
        limit_bytes=int(values["limitBytes"]) if "limitBytes" in values else None,
    )
