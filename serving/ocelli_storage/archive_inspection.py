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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_storage.archives import (
    EXAMPLE_KINDS,
    MEGABYTE,
    ArchiveError,
    ArchiveFault,
    EntryFault,
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
class ZipReport:
    """The contents of one zip of examples, as far as it was read."""

    complete: bool = False
    usable: int = 0
    skipped: tuple[SkippedEntry, ...] = ()
    """The first of the skipped entries."""
    skipped_count: int = 0
    inflating_work: int = 0
    refusal: ArchiveError | None = None
    """Why the whole zip cannot be used."""

    def to_json(self) -> dict[str, Any]:
        if self.refusal is not None:
            return {"refusal": {"fault": self.refusal.fault, "message": str(self.refusal)}}
        return {
            "complete": self.complete,
            "usable": self.usable,
            "skippedCount": self.skipped_count,
            "skipped": [{"name": shown_name(item.name), "fault": item.fault, "method": item.method} for item in self.skipped],
            "inflatingWork": self.inflating_work,
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> ZipReport:
        """Type what `to_json` returns. Raises KeyError or ValueError if it is something else."""
        refusal = document.get("refusal")
        if refusal is not None:
            return cls(complete=True, refusal=ArchiveError(ArchiveFault(refusal["fault"]), refusal["message"]))
        return cls(
            complete=document["complete"],
            usable=document["usable"],
            skipped_count=document["skippedCount"],
            skipped=tuple(
                SkippedEntry(name=item["name"], fault=EntryFault(item["fault"]), method=item["method"])
                for item in document["skipped"]
            ),
            inflating_work=document["inflatingWork"],
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A part of the work: zips, and the result of an earlier turn for the first of them."""

    paths: tuple[str, ...]
    begun: ZipReport = ZipReport()

    def to_json(self) -> dict[str, Any]:
        return {"paths": list(self.paths), "begun": self.begun.to_json()}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Turn:
        """Type what `to_json` returns. Raises KeyError or ValueError if it is something else."""
        return cls(paths=tuple(document["paths"]), begun=ZipReport.parse(document["begun"]))


@dataclass(frozen=True, kw_only=True)
class TurnResult:
    """The result of a turn."""

    reports: tuple[ZipReport, ...]
    """One for each inspected zip, in order; the last may be incomplete."""
    seconds: float
    """Processor time."""

    def to_json(self) -> dict[str, Any]:
        return {"reports": [report.to_json() for report in self.reports], "seconds": self.seconds}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> TurnResult:
        """Type what `to_json` returns. Raises KeyError or ValueError if it is something else."""
        return cls(reports=tuple(ZipReport.parse(item) for item in document["reports"]), seconds=document["seconds"])


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
                    skipped += [item] if len(skipped) < _SHOWN_SKIPPED else []
                else:
                    usable += 1
                if time.process_time() >= deadline:
                    break
            complete = usable + skipped_count == archive.candidates
            work = archive.inflating_work
    except ArchiveError as error:
        return ZipReport(complete=True, refusal=error)
    return ZipReport(complete=complete, usable=usable, skipped_count=skipped_count, skipped=tuple(skipped), inflating_work=work)


def main() -> None:
    """Answer each line of input with a line: null if a zip no longer exists."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for line in sys.stdin:
        turn = Turn.parse(json.loads(line))
        try:
            answer = take_turn(turn).to_json()
        except OSError:
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
