"""Probes and lifecycle hooks: asking a container by HTTP, TCP or a command, once or again and again.

Owns thresholds and periods. It must not know what follows from a result: that is the container's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from ocelli_local.manifests import Manifest

OUTPUT_LIMIT_BYTES = 10 * 1024


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    success: bool
    message: str = ""


RunCommand = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]


@dataclass(frozen=True, kw_only=True)
class ProbeTarget:
    """How to reach a container: its address, its named ports, and how to run a command beside it."""

    address: str
    ports: dict[str, int]
    run_command: RunCommand

    def port(self, value: int | str) -> int:
        return self.ports[value] if isinstance(value, str) and value in self.ports else int(value)


@dataclass(frozen=True, kw_only=True)
class ProbeTimes:
    initial_delay_seconds: float
    period_seconds: float
    timeout_seconds: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def from_probe(cls, probe: Manifest) -> ProbeTimes:
        return cls(
            initial_delay_seconds=probe.get("initialDelaySeconds", 0),
            period_seconds=probe.get("periodSeconds", 10),
            timeout_seconds=probe.get("timeoutSeconds", 1),
            success_threshold=probe.get("successThreshold", 1),
            failure_threshold=probe.get("failureThreshold", 3),
        )


class Thresholds:
    """Turns single results into a verdict: True or False once enough in a row agree, None until then."""

    def __init__(self, times: ProbeTimes) -> None:
        self._times = times
        self._last: bool | None = None
        self._in_a_row = 0

    def take(self, success: bool) -> bool | None:
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        needed = self._times.success_threshold if success else self._times.failure_threshold
        return success if self._in_a_row >= needed else None


async def run_action(action: Manifest, target: ProbeTarget, *, timeout_seconds: float) -> ProbeResult:
    """One `httpGet`, `tcpSocket`, `exec` or `sleep`, as probes and hooks have them. Raises nothing."""
    try:
        async with asyncio.timeout(timeout_seconds):
            if "httpGet" in action:
                return await request_http(action["httpGet"], target)
            if "tcpSocket" in action:
                return await connect_tcp(action["tcpSocket"], target)
            if "exec" in action:
                code, output = await target.run_command(action["exec"]["command"], timeout_seconds)
                return ProbeResult(success=code == 0, message=output or f"exit code {code}")
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return ProbeResult(success=True)
    except TimeoutError:
        return ProbeResult(success=False, message=f"no answer within {timeout_seconds:g} s")
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return ProbeResult(success=False, message=str(error) or type(error).__name__)
    return ProbeResult(success=False, message=f"the process node can't do {sorted(action)}")


async def request_http(action: Manifest, target: ProbeTarget) -> ProbeResult:
    scheme = action.get("scheme", "HTTP").lower()
    host = action.get("host") or target.address
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{target.port(action['port'])}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.37", "Accept": "*/*"}
    headers.update({header["name"]: header["value"] for header in action.get("httpHeaders", [])})
    # Each probe has a connection of its own: one kept open would hide that nobody accepts new ones.
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
    probe: Manifest, target: ProbeTarget, on_result: Callable[[bool | None, ProbeResult], Awaitable[bool]]
) -> None:
    """Probe until `on_result` (verdict, single result) answers False."""
    times = ProbeTimes.from_probe(probe)
    thresholds = Thresholds(times)
    await asyncio.sleep(times.initial_delay_seconds)
    while True:
        result = await run_action(probe, target, timeout_seconds=times.timeout_seconds)
        if not await on_result(thresholds.take(result.success), result):
            return
        await asyncio.sleep(times.period_seconds)
