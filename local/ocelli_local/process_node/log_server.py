"""The node's HTTPS server, where the API server reads container logs.

Owns the kubelet's paths and parameters that `kubectl logs` needs. Only the API server has access.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from aiohttp import web

from ocelli_local.process_node.container_log import LogQuery
from ocelli_local.process_node.pod_runner import PodRunner
from ocelli_local.process_node.services import NodeOptions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FindPod = Callable[[str, str], PodRunner | None]


class LogServer:
    def __init__(self, options: NodeOptions, port: int, find_pod: FindPod) -> None:
        self._options = options
        self._port = port
        self._find_pod = find_pod
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        options = self._options
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(options.api_address.authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(options.serving_certificate.certificate, options.serving_certificate.key)
        app = web.Application(middlewares=[self._require_api_server])
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._send_log)
        for operation in ("exec", "attach", "portForward"):
            app.router.add_route("*", f"/{operation}/{{rest:.*}}", self._refuse)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        address = options.loopback.infrastructure_address
        await web.TCPSite(self._runner, address, self._port, ssl_context=context).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _require_api_server(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
        if names != [self._options.allowed_client_name]:
            return web.Response(status=403, text="only the API server has access")
        return await handler(request)

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=501,
            text="containers are plain processes of this machine, which exec, attach and port-forward can't enter; "
            "use the machine's shell, and the Pod's address for its ports\n",
        )

    async def _send_log(self, request: web.Request) -> web.StreamResponse:
        pod_name, container = request.match_info["pod"], request.match_info["container"]
        runner = self._find_pod(request.match_info["namespace"], pod_name)
        if runner is None:
            return web.Response(status=404, text=f'pod "{pod_name}" is not on this node')
        try:
            query = parse_log_query(request.query, datetime.now(UTC))
        except ValueError as error:
            return web.Response(status=400, text=f"invalid query: {error}")
        previous = request.query.get("previous") == "true"
        log = runner.find_log(container, previous=previous)
        if log is None:
            state = f'previous terminated container "{container}"' if previous else f'container "{container}"'
            fact = "not found" if previous else "has not started yet"
            return web.Response(status=400, text=f'{state} in pod "{pod_name}" {fact}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        # A reader that follows a log ends by closing the connection.
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            async for piece in log.read(query):
                if piece:
                    await response.write(piece)
            await response.write_eof()
        return response


def parse_log_query(values: Mapping[str, str], now: datetime) -> LogQuery:
    """The kubelet's query parameters; raises ValueError for a value that is not a number or a time."""
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
