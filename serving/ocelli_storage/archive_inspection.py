"""Inspects zips in a separate process: `python -m ocelli_storage.archive_inspection`, with a line of JSON for each turn.

One zip can take seconds of Python code and inflating. A process can be limited and killed, does not block the event loop of its
server, and returns its memory. Starting one takes longer than most zips, so it handles many. Work that one turn does not finish
continues in a later one, in this or another process. It must not know its caller.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ocelli_api.documents import build_document, parse_fields
from ocelli_storage.archives import (
    EXAMPLE_KINDS,
    MEGABYTE,
    ArchiveError,
    ArchiveFault,
    ImageArchive,
    SkippedEntry,
    shown_name,
)

TURN_SECONDS = 0.25
"""Processor time. A turn ends after the entry during which it is exceeded."""
_MEMORY_BYTES = 1024 * MEGABYTE
_NICENESS = 10
_SHOWN_SKIPPED = 3


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a whole zip cannot be used."""

    fault: ArchiveFault
    message: str


@dataclass(frozen=True, kw_only=True)
class ZipReport:
    """The contents of one zip of examples, as far as it was read."""

    complete: bool = False
    usable: int = 0
    skipped: tuple[SkippedEntry, ...] = ()
    """The first of the skipped entries, with their names as messages show them."""
    skipped_count: int = 0
    inflating_work: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A part of the work: zips, and the result of an earlier turn for the first of them."""

    paths: tuple[str, ...]
    begun: ZipReport = ZipReport()


@dataclass(frozen=True, kw_only=True)
class TurnResult:
    """The result of a turn."""

    reports: tuple[ZipReport, ...]
    """One for each inspected zip, in order; the last may be incomplete."""
    seconds: float
    """Processor time."""


def take_turn(turn: Turn, *, seconds: float = TURN_SECONDS) -> TurnResult:
    """Inspect the zips for this much processor time. Raises OSError if one cannot be read."""
    started = time.process_time()
    begun, reports = turn.begun, list[ZipReport]()
    for path in turn.paths:
        report = _inspect(Path(path), begun, seconds)
        reports.append(report)
        begun = ZipReport()
        if not report.complete or time.process_time() - started >= seconds:
            break
    return TurnResult(reports=tuple(reports), seconds=time.process_time() - started)


def _inspect(path: Path, begun: ZipReport, seconds: float) -> ZipReport:
    opening = time.process_time()
    usable, skipped_count, skipped = begun.usable, begun.skipped_count, list(begun.skipped)
    try:
        with ImageArchive(path, kinds=EXAMPLE_KINDS) as archive:
            opened = time.process_time()
            # At least as long as opening took: otherwise a zip with a large directory would never be finished.
            deadline = opened + max(seconds, opened - opening)
            for item in archive.read_from(usable + skipped_count, images=usable, inflating_work=begun.inflating_work):
                if isinstance(item, SkippedEntry):
                    skipped_count += 1
                    if len(skipped) < _SHOWN_SKIPPED:
                        skipped.append(replace(item, name=shown_name(item.name)))
                else:
                    usable += 1
                if time.process_time() >= deadline:
                    break
            complete = usable + skipped_count == archive.candidates
            work = archive.inflating_work
    except ArchiveError as error:
        return ZipReport(complete=True, refusal=Refusal(fault=error.fault, message=str(error)))
    return ZipReport(complete=complete, usable=usable, skipped_count=skipped_count, skipped=tuple(skipped), inflating_work=work)


def main() -> None:
    """Answer each line of input with a line: null if a zip no longer exists."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for line in sys.stdin:
        turn = parse_fields(Turn, json.loads(line))
        try:
            answer = build_document(take_turn(turn))
        except OSError:
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
