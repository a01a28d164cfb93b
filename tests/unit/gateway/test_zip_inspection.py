"""Zips that are inspected by other processes."""

from __future__ import annotations

import asyncio
import bz2
import os
import sys
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocelli_gateway import zip_inspection
from ocelli_gateway.refusals import InputError, UnavailableError
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_storage.archives import ArchiveFault, EntryFault
from tests.gateway_harness.images import build_zip, png

TIMEOUT_SECONDS = 30

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def zips() -> AsyncIterator[ZipInspector]:
    inspector = ZipInspector(timeout_seconds=TIMEOUT_SECONDS)
    yield inspector
    await inspector.close()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_slow_zip(path: Path, *, entries: int = 300) -> Path:
    """A zip of small size whose entries take milliseconds each to inspect."""
    data = bytes(range(256)) * 1000
    # Compressed once: compressing each entry takes ten times as long as inspecting it.
    compressed = bz2.compress(data)
    with zipfile.ZipFile(path, "w") as archive:
        assert archive.fp is not None
        for index in range(entries):
            entry = zipfile.ZipInfo(f"{index}.png")
            entry.compress_type, entry.CRC = zipfile.ZIP_BZIP2, zlib.crc32(data)
            entry.file_size, entry.compress_size = len(data), len(compressed)
            entry.header_offset = archive.fp.tell()
            archive.fp.write(entry.FileHeader() + compressed)
            archive.filelist.append(entry)
        archive.start_dir = archive.fp.tell()
        archive._didModify = True  # type: ignore[attr-defined]
    return path


async def test_reports_come_in_the_order_of_the_files(zips: ZipInspector, tmp_path: Path) -> None:
    good = write(tmp_path / "good", build_zip({"a.png": png(), "b.txt": b"text"}))
    bad = write(tmp_path / "bad", b"no zip")

    first, second = await zips.inspect([good, bad], "anna")

    assert (first.usable, first.skipped_count, [item.fault for item in first.skipped]) == (1, 1, [EntryFault.NOT_AN_IMAGE])
    assert second.refusal is not None
    assert second.refusal.fault is ArchiveFault.NOT_A_ZIP


@pytest.mark.slow
async def test_the_event_loop_is_not_blocked_meanwhile(zips: ZipInspector, tmp_path: Path) -> None:
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


async def wait_for_text(path: Path) -> str:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not read(path):  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(0.01)
    return read(path)


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Run another program instead."""
    (tmp_path / "stand_in_program.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(zip_inspection.archive_inspection, "__name__", "stand_in_program")


def real_program(pids: Path) -> str:
    """The real program, which also writes a line for each of its processes."""
    return (
        f"import os\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "from ocelli_storage.archive_inspection import main\nmain()"
    )


async def test_one_process_inspects_the_zips_of_many_requests(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, real_program(tmp_path / "pids"))
    path = write(tmp_path / "good", build_zip({"a.png": png()}))

    for _ in range(20):
        assert (await zips.inspect([path], "anna"))[0].usable == 1

    assert len(read(tmp_path / "pids").splitlines()) == 1


async def test_a_process_is_replaced_after_many_turns(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, real_program(tmp_path / "pids"))
    monkeypatch.setattr(zip_inspection, "_TURNS_OF_A_PROCESS", 2)
    path = write(tmp_path / "good", build_zip({"a.png": png()}))

    for _ in range(4):
        await zips.inspect([path], "anna")

    assert len(read(tmp_path / "pids").splitlines()) == 2


async def test_a_deleted_zip_does_not_end_the_process(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, real_program(tmp_path / "pids"))

    with pytest.raises(UnavailableError, match=r"cannot be read at the moment; try again\."):
        await zips.inspect([tmp_path / "gone"], "anna")

    await zips.inspect([write(tmp_path / "good", build_zip({"a.png": png()}))], "anna")
    assert len(read(tmp_path / "pids").splitlines()) == 1


@pytest.mark.slow
async def test_unfinished_turn_continues_in_the_next_one(zips: ZipInspector, tmp_path: Path) -> None:
    slow = write_slow_zip(tmp_path / "slow")
    turns = []
    take_turn = zips._take_turn

    async def count_turns(turn: zip_inspection.Turn) -> zip_inspection.TurnResult:
        turns.append(turn)
        return await take_turn(turn)

    zips._take_turn = count_turns  # type: ignore[method-assign]

    first, second = await zips.inspect([slow, write(tmp_path / "good", build_zip({"a.png": png()}))], "anna")

    assert len(turns) > 1
    assert (first.skipped_count, len(first.skipped), second.usable) == (300, 3, 1)


@pytest.mark.slow
async def test_slow_zips_of_other_tenants_do_not_delay_a_small_one(zips: ZipInspector, tmp_path: Path) -> None:
    slow = write_slow_zip(tmp_path / "slow", entries=1000)
    others = [asyncio.create_task(zips.inspect([slow], name)) for name in ("bert", "carl", "dora")]
    await asyncio.sleep(0)

    async with asyncio.timeout(TIMEOUT_SECONDS):
        await zips.inspect([write(tmp_path / "good", build_zip({"a.png": png()}))], "anna")

    assert not any(task.done() for task in others)
    for task in others:
        task.cancel()
    await asyncio.wait(others)


@pytest.mark.slow
async def test_the_work_limit_applies_to_all_turns_together(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_inspection, "CPU_SECONDS", 0.2)

    with pytest.raises(InputError, match=r"takes more than 0\.2 seconds; send fewer or smaller images"):
        await zips.inspect([write_slow_zip(tmp_path / "slow")], "anna")


async def test_waiting_for_turns_counts_towards_the_time_limit(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, "import time; time.sleep(60)")
    held = asyncio.create_task(zips.inspect([tmp_path], "anna"))
    await asyncio.sleep(0)
    monkeypatch.setattr(zip_inspection, "_WALL_SECONDS", 0.1)

    with pytest.raises(UnavailableError, match="timed out; try again"):
        await zips.inspect([tmp_path], "anna")
    held.cancel()
    await asyncio.wait([held])


@pytest.mark.slow
async def test_a_hanging_process_is_killed_and_replaced(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    stand_in(monkeypatch, tmp_path, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr(zip_inspection, "_TURN_WALL_SECONDS", 2)

    with pytest.raises(InputError, match="takes more than 60 seconds"):
        await zips.inspect([tmp_path], "anna")

    with pytest.raises(ProcessLookupError):
        os.kill(int(await wait_for_text(pid)), 0)
    stand_in(monkeypatch, tmp_path, real_program(tmp_path / "pids"))
    assert (await zips.inspect([write(tmp_path / "good", build_zip({"a.png": png()}))], "anna"))[0].usable == 1


async def test_process_that_died_is_answered_as_a_temporary_failure(
    zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, "import os; os._exit(9)")

    with pytest.raises(UnavailableError, match=r"cannot be read at the moment; try again\."):
        await zips.inspect([tmp_path], "anna")


async def test_closing_ends_the_processes(zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    stand_in(monkeypatch, tmp_path, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    task = asyncio.create_task(zips.inspect([tmp_path], "anna"))
    number = await wait_for_text(pid)

    await zips.close()
    await asyncio.wait([task])

    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


async def test_a_cancelled_request_stops_waiting(zips: ZipInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path, "import time; time.sleep(60)")
    held = asyncio.create_task(zips.inspect([tmp_path], "anna"))
    await asyncio.sleep(0)
    left = asyncio.Event()
    waiting = asyncio.create_task(zips.inspect([tmp_path], "anna", left=left))
    await asyncio.sleep(0)

    left.set()

    async with asyncio.timeout(TIMEOUT_SECONDS):
        with pytest.raises(InputError, match="closed while the request waited"):
            await waiting
    held.cancel()
    await asyncio.wait([held])
