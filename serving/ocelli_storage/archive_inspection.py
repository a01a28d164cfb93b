"""Looking into zips in processes of their own: `python -m ocelli_storage.archive_inspection`, a line of JSON for every turn.

One zip may take seconds of pure Python and of inflating. A process can be bounded and ended, takes no turns from the event loop
of the server that asks, and gives its memory back. Starting one takes longer than most zips do, so it stays for many; what one
turn does not finish goes on in a later one, here or in another process. It must not know who asks.
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
"""Of the processor. After it a turn ends with the entry that is being read."""
_MEMORY_BYTES = 1024 * MEGABYTE
_NICENESS = 10
_SHOWN_SKIPPED = 3


@dataclass(frozen=True, kw_only=True)
class ZipReport:
    """What one zip of examples is, as far as it was read."""

    complete: bool = False
    usable: int = 0
    skipped: tuple[SkippedEntry, ...] = ()
    """The first of those that are skipped."""
    skipped_count: int = 0
    inflating_work: int = 0
    refusal: ArchiveError | None = None
    """Why the zip as a whole cannot be used."""

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
        """Type what `to_json` gives. Raises KeyError or ValueError where it is something else."""
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
    """A part of the work: zips, and what an earlier turn has found in the first of them."""

    paths: tuple[str, ...]
    begun: ZipReport = ZipReport()

    def to_json(self) -> dict[str, Any]:
        return {"paths": list(self.paths), "begun": self.begun.to_json()}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Turn:
        """Type what `to_json` gives. Raises KeyError or ValueError where it is something else."""
        return cls(paths=tuple(document["paths"]), begun=ZipReport.parse(document["begun"]))


@dataclass(frozen=True, kw_only=True)
class TurnResult:
    """What came of a turn."""

    reports: tuple[ZipReport, ...]
    """Of the first zips; the last may be incomplete."""
    seconds: float
    """Of the processor."""

    def to_json(self) -> dict[str, Any]:
        return {"reports": [report.to_json() for report in self.reports], "seconds": self.seconds}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> TurnResult:
        """Type what `to_json` gives. Raises KeyError or ValueError where it is something else."""
        return cls(reports=tuple(ZipReport.parse(item) for item in document["reports"]), seconds=document["seconds"])


def take_turn(turn: Turn, *, seconds: float = TURN_SECONDS) -> TurnResult:
    """Look into the zips for so long. Raises OSError where one cannot be read."""
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
            # At least as long as it took to open: else a zip with a large directory would come to no end.
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
    """Answer every line with a line, until there are no more: with null where a zip is not there any more."""
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
