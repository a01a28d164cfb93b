"""Probes and lifecycle hooks: HTTP requests, TCP connections and commands, once or periodically.

Owns thresholds and periods. It must not know what follows from a result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from ocelli_local.manifest import Manifest

OUTPUT_LIMIT_BYTES = 10 * 1024
EAGER_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    success: bool
    message: str = ""


RunCommand = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]


@dataclass(frozen=True, kw_only=True)
class ProbeTarget:
    """How to reach a container: its address, its named ports, and how to run a command in its environment."""

    address: str
    ports: dict[str, int]
    run_command: RunCommand

    def port(self, value: int | str) -> int:
        return self.ports[value] if isinstance(value, str) and value in self.ports else int(value)


class Thresholds:
    """Turns single results into a verdict: True or False after enough equal results in a row, None before."""

    def __init__(self, probe: Manifest) -> None:
        self._success, self._failure = probe.get("successThreshold", 1), probe.get("failureThreshold", 3)
        self._last: bool | None = None
        self._in_a_row = 0

    def take(self, success: bool) -> bool | None:
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        return success if self._in_a_row >= (self._success if success else self._failure) else None


async def run_action(action: Manifest, target: ProbeTarget, *, timeout_seconds: float) -> ProbeResult:
    """One `httpGet`, `tcpSocket`, `exec` or `sleep`, as probes and hooks have them. Raises nothing."""
    try:
        async with asyncio.timeout(timeout_seconds):
            if "httpGet" in action:
                return await request_http(action["httpGet"], target)
            if "tcpSocket" in action:
                return await connect_tcp(action["tcpSocket"], target)
            if "exec" in action:
                code, output = await target.run_command(action["exec"]["command"])
                return ProbeResult(success=code == 0, message=output or f"exit code {code}")
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return ProbeResult(success=True)
    except TimeoutError:
        return ProbeResult(success=False, message=f"no answer within {timeout_seconds:g} s")
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return ProbeResult(success=False, message=str(error) or type(error).__name__)
    return ProbeResult(success=False, message=f"the process node does not support {sorted(action)}")


async def request_http(action: Manifest, target: ProbeTarget) -> ProbeResult:
    scheme = action.get("scheme", "HTTP").lower()
    host = action.get("host") or target.address
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{target.port(action['port'])}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.37", "Accept": "*/*"}
    headers.update({header["name"]: header["value"] for header in action.get("httpHeaders", [])})
    # Each probe opens a connection: one that is kept open would hide that no new ones are accepted.
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        body = (await response.content.read(OUTPUT_LIMIT_BYTES)).decode(errors="replace")
        success = 200 <= response.status < 400
        return ProbeResult(
            success=success, message="" if success else f"HTTP probe failed with statuscode: {response.status} {body[:200]}"
        )


async def connect_tcp(action: Manifest, target: ProbeTarget) -> ProbeResult:
    host = action.get("host") or target.address
    _, writer = await asyncio.open_connection(host, target.port(action["port"]))
    writer.close()
    return ProbeResult(success=True)


async def watch_probe(
    probe: Manifest, target: ProbeTarget, *, eager: bool = False
) -> AsyncIterator[tuple[bool | None, ProbeResult]]:
    """The verdict and the single result of each period, without end. `eager`: a success ends the period early."""
    thresholds = Thresholds(probe)
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    while True:
        result = await run_action(probe, target, timeout_seconds=probe.get("timeoutSeconds", 1))
        yield thresholds.take(result.success), result
        period = probe.get("periodSeconds", 10)
        # A command costs more than a connection that is refused.
        if eager and "exec" not in probe:
            await _wait_for_success(probe, target, period)
        else:
            await asyncio.sleep(period)


async def _wait_for_success(probe: Manifest, target: ProbeTarget, limit_seconds: float) -> None:
    """Failures are not counted: only those at the end of a period are."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_seconds):
            while True:
                await asyncio.sleep(EAGER_PAUSE_SECONDS)
                if (await run_action(probe, target, timeout_seconds=probe.get("timeoutSeconds", 1))).success:
                    return
