"""Looking into zips in a process of its own: `python -m ocelli_storage.archive_inspection FILE...` writes a report for each.

One zip may take seconds of pure Python and of inflating. A process can be bounded and ended, takes no turns from the event loop
of the server that asks, and gives its memory back. It must not know who asks.
"""

from __future__ import annotations

import json
import os
import resource
import sys
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

CPU_SECONDS = 60
"""For all the zips of one call. A hundred megabytes of photographs take about one."""
_MEMORY_BYTES = 1024 * MEGABYTE
_NICENESS = 10
_SHOWN_SKIPPED = 3


@dataclass(frozen=True, kw_only=True)
class ZipReport:
    """What one zip of examples is."""

    usable: int = 0
    skipped: tuple[SkippedEntry, ...] = ()
    """The first of those that are skipped."""
    skipped_count: int = 0
    refusal: ArchiveError | None = None
    """Why the zip as a whole cannot be used."""

    def to_json(self) -> dict[str, Any]:
        if self.refusal is not None:
            return {"refusal": {"fault": self.refusal.fault, "message": str(self.refusal)}}
        skipped = [{"name": shown_name(item.name), "fault": item.fault, "method": item.method} for item in self.skipped]
        return {"usable": self.usable, "skippedCount": self.skipped_count, "skipped": skipped}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> ZipReport:
        """Type what `to_json` gives. Raises KeyError or ValueError where it is something else."""
        refusal = document.get("refusal")
        if refusal is not None:
            return cls(refusal=ArchiveError(ArchiveFault(refusal["fault"]), refusal["message"]))
        return cls(
            usable=document["usable"],
            skipped_count=document["skippedCount"],
            skipped=tuple(
                SkippedEntry(name=item["name"], fault=EntryFault(item["fault"]), method=item["method"])
                for item in document["skipped"]
            ),
        )


def inspect_zip(path: Path) -> ZipReport:
    """Look into a zip of examples."""
    try:
        with ImageArchive(path, kinds=EXAMPLE_KINDS) as archive:
            inspection = archive.inspect()
    except ArchiveError as error:
        return ZipReport(refusal=error)
    skipped = inspection.skipped
    return ZipReport(usable=inspection.usable, skipped=skipped[:_SHOWN_SKIPPED], skipped_count=len(skipped))


def main(paths: list[str]) -> None:
    """Write a report for each zip, a line of JSON each."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for path in paths:
        print(json.dumps(inspect_zip(Path(path)).to_json()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
