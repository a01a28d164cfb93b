"""Zips of examples looked into by other processes, few at a time, tenants in turns. It must not know what is judged by it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ocelli_gateway.errors import InputError, UnavailableError
from ocelli_gateway.fair_slots import FairSlots
from ocelli_storage import archive_inspection
from ocelli_storage.archive_inspection import CPU_SECONDS, ZipReport

PROCESSES = 2
"""One tenant may hold one of them."""
_WALL_SECONDS = 3 * CPU_SECONDS


class ZipInspector:
    """Belongs to one event loop."""

    def __init__(self, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long a request waits for its turn."""
        self._slots = FairSlots("zips are opened", total=PROCESSES, share=1, timeout_seconds=timeout_seconds)

    async def inspect(self, paths: Sequence[Path], tenant: str) -> list[ZipReport]:
        """A report for each zip.

        Raises:
            InputError: it takes too long.
            UnavailableError: too many are looked into already, or no process can be started.
        """
        if not paths:
            return []
        async with self._slots.slot(tenant):
            lines = (await _run(paths)).splitlines()
        return [ZipReport.parse(json.loads(line)) for line in lines]


async def _run(paths: Sequence[Path]) -> bytes:
    """What the process writes. It is ended when nobody waits for it any more."""
    # What this process can import that one must find, too.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        archive_inspection.__name__,
        *(str(path) for path in paths),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        async with asyncio.timeout(_WALL_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise _too_slow() from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode is not None and process.returncode < 0:
        raise _too_slow()
    if process.returncode != 0:
        raise UnavailableError("The zips of the request cannot be looked into now; try again.")
    return output


def _too_slow() -> InputError:
    return InputError(f"Reading the zips of the request takes more than {CPU_SECONDS} seconds; send fewer or smaller images.")
