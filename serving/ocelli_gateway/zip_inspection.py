"""Zips of examples, inspected by a few other processes, with turns for tenants. It must not know what the reports decide."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from ocelli_api.documents import build_document, parse_fields
from ocelli_gateway.fair_slots import RETRY_AFTER_SECONDS, FairSlots
from ocelli_gateway.refusals import InputError, UnavailableError
from ocelli_storage import archive_inspection
from ocelli_storage.archive_inspection import Turn, TurnResult, ZipReport
from ocelli_storage.archives import MEGABYTE

PROCESSES = 2
"""One tenant may hold one of them, for one turn."""
CPU_SECONDS = 60
"""For all zips of one request. A hundred megabytes of photographs take about one second."""
_WALL_SECONDS = 3 * CPU_SECONDS
"""For the same, including the time that it waits for its turns."""
_TURN_WALL_SECONDS = 60
"""A turn takes about one second of CPU time: a process that does not answer for so long hangs."""
_TURNS_OF_A_PROCESS = 500
"""Then a new process replaces it, which frees its memory."""
_LINE_BYTES = 16 * MEGABYTE


class ZipInspector:
    """Belongs to one event loop. Processes are kept: starting one takes longer than inspecting most zips."""

    def __init__(self, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long a request waits for one of its turns."""
        self._slots = FairSlots("zips are being opened", total=PROCESSES, share=1, timeout_seconds=timeout_seconds)
        self._idle: list[_Worker] = []
        self._turns: set[asyncio.Task[TurnResult]] = set()
        self._closed = False

    async def inspect(self, paths: Sequence[Path], tenant: str, *, left: asyncio.Event | None = None) -> list[ZipReport]:
        """A report for each zip. `left` is set when the client has left.

        Raises:
            InputError: the zips take too much work, or the client has left.
            UnavailableError: it takes too long now, or no process can be started.
        """
        try:
            async with asyncio.timeout(_WALL_SECONDS):
                return await self._inspect([str(path) for path in paths], tenant, left)
        except TimeoutError as error:
            message = "Reading the zips of the request timed out; try again."
            raise UnavailableError(message, retry_after_seconds=RETRY_AFTER_SECONDS) from error

    async def close(self) -> None:
        """End the processes, and start no more."""
        self._closed = True
        for turn in self._turns:
            turn.cancel()
        await asyncio.gather(*self._turns, return_exceptions=True)
        while self._idle:
            await self._idle.pop().end()

    async def _inspect(self, paths: Sequence[str], tenant: str, left: asyncio.Event | None) -> list[ZipReport]:
        reports: list[ZipReport] = []
        begun, seconds = ZipReport(), 0.0
        while len(reports) < len(paths):
            await self._slots.acquire(tenant, left=left)
            turn = asyncio.create_task(self._take_turn(Turn(paths=tuple(paths[len(reports) :]), begun=begun)))
            self._turns.add(turn)
            turn.add_done_callback(lambda turn: self._end_turn(turn, tenant))
            # A turn is short: it is finished even if the client leaves, so that the process can be kept.
            result = await asyncio.shield(turn)
            *_, last = result.reports
            reports += [report for report in result.reports if report.complete]
            begun = ZipReport() if last.complete else last
            seconds += result.seconds
            if seconds > CPU_SECONDS:
                raise _too_much_work()
        return reports

    def _end_turn(self, turn: asyncio.Task[TurnResult], tenant: str) -> None:
        self._turns.discard(turn)
        self._slots.release(tenant)

    async def _take_turn(self, turn: Turn) -> TurnResult:
        worker = await self._find_worker()
        try:
            async with asyncio.timeout(_TURN_WALL_SECONDS):
                result = await worker.take_turn(turn)
        except BaseException as error:
            await worker.end()
            if isinstance(error, TimeoutError):
                raise _too_much_work() from error
            if isinstance(error, (OSError, ValueError, TypeError)):
                raise _unreadable() from error
            raise
        if worker.turns < _TURNS_OF_A_PROCESS and not self._closed:
            self._idle.append(worker)
        else:
            await worker.end()
        if result is None:
            raise _unreadable()
        return result

    async def _find_worker(self) -> _Worker:
        if self._closed:
            raise UnavailableError("The server is shutting down; try again.")
        while self._idle:
            worker = self._idle.pop()
            if worker.lives:
                return worker
        # The other process must find the same modules.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", archive_inspection.__name__),
                stdin=PIPE,
                stdout=PIPE,
                env=environment,
                limit=_LINE_BYTES,
            )
        except OSError as error:
            raise UnavailableError("The process that reads the zips of the request cannot be started; try again.") from error
        return _Worker(process)


class _Worker:
    """A process that inspects zips, one turn after the other."""

    def __init__(self, process: Process) -> None:
        self.turns = 0
        self._process = process

    @property
    def lives(self) -> bool:
        return self._process.returncode is None

    async def take_turn(self, turn: Turn) -> TurnResult | None:
        """None if a zip was deleted. Raises OSError, ValueError or TypeError if the process fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.turns += 1
        self._process.stdin.write(json.dumps(build_document(turn)).encode() + b"\n")
        await self._process.stdin.drain()
        answer = json.loads(await self._process.stdout.readline())
        return None if answer is None else parse_fields(TurnResult, answer)

    async def end(self) -> None:
        if self.lives:
            self._process.kill()
        await self._process.wait()


def _unreadable() -> UnavailableError:
    return UnavailableError("The zips of the request cannot be read at the moment; try again.")


def _too_much_work() -> InputError:
    return InputError(f"Reading the zips of the request takes more than {CPU_SECONDS} seconds; send fewer or smaller images.")
