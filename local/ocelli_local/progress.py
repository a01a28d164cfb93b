"""Reporting progress: lines for the caller, and one line that is rewritten on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

INTERVAL_SECONDS = 15.0
TERMINAL_INTERVAL_SECONDS = 0.5
BAR_WIDTH = 24

Report = Callable[[str], None]


class ProgressLine:
    """On a terminal, one rewritten line on standard error; elsewhere, a line for `report` every 15 seconds."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._shown < (TERMINAL_INTERVAL_SECONDS if self._terminal else INTERVAL_SECONDS):
            return
        self._shown = now
        text = f"{text}, {format_duration(now - self._started)}"
        if self._terminal:
            print(f"\r{text:<79}", end="", file=sys.stderr, flush=True)
        else:
            self._report(text)

    def finish(self) -> None:
        """Clear the rewritten line."""
        if self._terminal:
            print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)


def format_bar(done: int, total: int) -> str:
    """`[######------------------]  25 %`."""
    share = min(done / total, 1.0) if total else 0.0
    return f"[{'#' * int(share * BAR_WIDTH):-<{BAR_WIDTH}}] {int(share * 100):3d} %"


def format_duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
