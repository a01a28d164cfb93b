"""Storing and reading the output of a container."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocelli_local.process_node import container_log
from ocelli_local.process_node.container_log import ContainerLog, LogQuery, read_last_text


def read(log: ContainerLog, query: LogQuery | None = None) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in log.read(query or LogQuery())])

    return asyncio.run(collect())


def make_log(folder: Path, *chunks: bytes) -> ContainerLog:
    log = ContainerLog(folder / "0.log")
    for chunk in chunks:
        log.write(chunk)
    log.close()
    return log


@pytest.mark.parametrize(
    "chunks",
    [
        (b"one\ntwo\n",),
        (b"o", b"ne\ntw", b"o\n"),
        (b"one\r\ntwo\n\n",),
        (b"no end of line",),
        (b"x" * 40_000 + b"\n",),
        (b"\xff\xfe\n",),
    ],
    ids=["lines", "pieces", "carriage return", "partial", "long", "bytes"],
)
def test_log_returns_what_was_written(tmp_path: Path, chunks: tuple[bytes, ...]) -> None:
    assert read(make_log(tmp_path, *chunks)) == b"".join(chunks)


def test_tail_returns_the_last_lines(tmp_path: Path) -> None:
    assert read(make_log(tmp_path, b"1\n2\n3\n"), LogQuery(tail_lines=2)) == b"2\n3\n"


def test_limit_cuts_bytes(tmp_path: Path) -> None:
    assert read(make_log(tmp_path, b"12345\n"), LogQuery(limit_bytes=3)) == b"123"


def test_timestamps_begin_each_line(tmp_path: Path) -> None:
    text = read(make_log(tmp_path, b"1\n2\n"), LogQuery(timestamps=True)).decode()
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \d\n){2}", text)


@pytest.mark.parametrize(("ago", "expected"), [(60, b"1\n"), (-60, b"")])
def test_since_excludes_older_lines(tmp_path: Path, ago: int, expected: bytes) -> None:
    since = datetime.now(UTC) - timedelta(seconds=ago)
    assert read(make_log(tmp_path, b"1\n"), LogQuery(since=since)) == expected


def test_follower_gets_new_lines_and_ends_with_the_run(tmp_path: Path) -> None:
    async def scenario() -> list[bytes]:
        log = ContainerLog(tmp_path / "0.log")
        log.write(b"before\n")
        pieces: list[bytes] = []
        async with asyncio.timeout(5):
            async for piece in log.read(LogQuery(follow=True)):
                pieces.append(piece)
                if pieces == [b"before\n"]:
                    log.write(b"during\n")
                    log.close()
        return pieces

    assert b"".join(asyncio.run(scenario())) == b"before\nduring\n"


def test_log_above_its_limit_loses_the_oldest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_log, "LIMIT_BYTES", 1000)
    log = make_log(tmp_path, *[b"line %d\n" % index for index in range(100)])
    text = read(log)
    assert text.endswith(b"line 98\nline 99\n")
    assert len(text) < 1000


def test_deleted_log_leaves_no_rotated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_log, "LIMIT_BYTES", 20)
    log = make_log(tmp_path, b"line one\n", b"line two\n")
    assert len(list(tmp_path.iterdir())) == 2
    log.delete()
    assert list(tmp_path.iterdir()) == []


def test_stored_log_of_an_earlier_run_can_be_read(tmp_path: Path) -> None:
    make_log(tmp_path, b"old\n")
    assert read(ContainerLog.stored(tmp_path / "0.log"), LogQuery(follow=True)) == b"old\n"


def test_last_text_stays_within_its_limits(tmp_path: Path) -> None:
    log = make_log(tmp_path, b"".join(b"line %d\n" % index for index in range(100)))
    assert read_last_text(log.path, limit_bytes=2048, limit_lines=2) == "line 98\nline 99\n"
    assert read_last_text(log.path, limit_bytes=4, limit_lines=80) == " 99\n"
