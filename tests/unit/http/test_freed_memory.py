"""A server returns freed memory to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Each thread frees 16 MB below a small block that it keeps, like requests that leave an entry in a cache.
PROGRAM = """
import asyncio, sys, threading
from pathlib import Path
from ocelli_http.freed_memory import trimmed_regularly, limit_kept_memory

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def work():
    blocks = [bytearray(64_000) for _ in range(256)]
    kept.append(bytearray(1000))
    ready.wait()
    blocks.clear()

async def main():
    async with trimmed_regularly(0.05):
        await asyncio.sleep(0.5)

if sys.argv[1] == "little":
    limit_kept_memory()
kept, ready = [], threading.Barrier(8)
threads = [threading.Thread(target=work) for _ in range(8)]
before = resident_megabytes()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if sys.argv[1] == "little":
    asyncio.run(main())
print(resident_megabytes() - before)
"""


def left_megabytes(kept: str) -> int:
    return int(subprocess.run([sys.executable, "-c", PROGRAM, kept], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_freed_by_threads_is_returned_to_the_system() -> None:
    assert left_megabytes("all") > 60
    assert left_megabytes("little") < 30
