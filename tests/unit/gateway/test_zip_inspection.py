"""Zips looked into by other processes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from ocelli_gateway import zip_inspection
from ocelli_gateway.errors import InputError
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_storage.archives import ArchiveFault, EntryFault
from tests.unit.gateway.harness import build_zip, png

TIMEOUT_SECONDS = 30

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def zips() -> ZipInspector:
    return ZipInspector(timeout_seconds=TIMEOUT_SECONDS)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def test_reports_come_in_the_order_of_the_files(zips: ZipInspector, tmp_path: Path) -> None:
    good = write(tmp_path / "good", build_zip({"a.png": png(), "b.txt": b"text"}))
    bad = write(tmp_path / "bad", b"no zip")

    first, second = await zips.inspect([good, bad], "anna")

    assert (first.usable, first.skipped_count, [item.fault for item in first.skipped]) == (1, 1, [EntryFault.NOT_AN_IMAGE])
    assert second.refusal is not None
    assert second.refusal.fault is ArchiveFault.NOT_A_ZIP


async def test_the_event_loop_takes_its_turns_meanwhile(zips: ZipInspector, tmp_path: Path) -> None:
    path = write(tmp_path / "large", build_zip({f"{index}.png": b"x" for index in range(20_000)}))
    loop = asyncio.get_running_loop()
    longest, before = 0.0, loop.time()

    task = asyncio.create_task(zips.inspect([path], "anna"))
    while not task.done():
        await asyncio.sleep(0)
        now = loop.time()
        longest, before = max(longest, now - before), now

    assert (await task)[0].skipped_count == 20_000
    assert longest < 0.5


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Have another program run instead."""
    (tmp_path / "stand_in_program.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(zip_inspection.archive_inspection, "__name__", "stand_in_program")


async def test_a_process_that_reached_its_limit_is_told_as_too_much_work(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")

    with pytest.raises(InputError, match="takes more than 60 seconds; send fewer or smaller images"):
        await zips.inspect([tmp_path], "anna")


async def test_the_process_ends_with_who_waits_for_it(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(
        monkeypatch, tmp_path, f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    pid = tmp_path / "pid"
    task = asyncio.create_task(zips.inspect([tmp_path], "anna"))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not read(pid):  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(0.01)
    number = read(pid)

    task.cancel()
    await asyncio.wait([task])

    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


async def test_one_tenant_holds_one_process(zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, go = tmp_path / "slow", tmp_path / "go"
    stand_in(
        monkeypatch,
        tmp_path,
        "import os, sys, time\n"
        f"while sys.argv[1] == {str(slow)!r} and not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        'print(\'{"usable": 1, "skippedCount": 0, "skipped": []}\')',
    )
    first, second = (asyncio.create_task(zips.inspect([path], "anna")) for path in (slow, tmp_path / "quick"))
    await asyncio.sleep(0)

    async with asyncio.timeout(TIMEOUT_SECONDS):
        assert (await zips.inspect([tmp_path / "quick"], "bert"))[0].usable == 1
    waiting = not second.done()
    go.touch()

    assert waiting
    assert [(await task)[0].usable for task in (first, second)] == [1, 1]
