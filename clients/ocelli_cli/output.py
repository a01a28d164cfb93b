"""What is printed, and where: the payload on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Output that no person sees is not wrapped.
_PIPE_WIDTH = 10_000


class OutputFormat(StrEnum):
    """`-o`."""

    HUMAN = "human"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, kw_only=True)
class Payload:
    """One result in all of its forms."""

    document: Any
    """For json and yaml."""
    names: Iterable[str]
    """For name: one a line."""
    human: RenderableType | None = None
    """None: the names."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Both streams of one run."""

    format: OutputFormat
    quiet: bool = False
    """Without warnings: completion runs while a person types, and must not print into the line."""

    def print(self, payload: Payload) -> None:
        """The result, on standard output."""
        match self.format:
            case OutputFormat.JSON:
                _write(json.dumps(payload.document, indent=2, ensure_ascii=False))
            case OutputFormat.YAML:
                _write(yaml.safe_dump(payload.document, sort_keys=False, allow_unicode=True).rstrip("\n"))
            case OutputFormat.HUMAN if payload.human is not None:
                build_console().print(payload.human, soft_wrap=isinstance(payload.human, Text))
            case _:
                for name in payload.names:
                    _write(name)

    def print_line(self, line: str) -> None:
        """One line of a result that goes on; readers of a pipe get it at once."""
        _write(printable(line) if self.format is OutputFormat.HUMAN else line)

    @staticmethod
    def text(message: str) -> Text:
        """A sentence as a result."""
        return Text(printable(message))

    def note(self, message: str) -> None:
        """A sentence for people, on standard error."""
        build_console(stderr=True).print(Text(printable(message)), soft_wrap=True)

    def warn(self, message: str) -> None:
        """A sentence for people that needs their attention, on standard error."""
        if self.quiet:
            return
        build_console(stderr=True).print(Text.assemble(("Warning: ", "yellow"), printable(message)), soft_wrap=True)

    def fail(self, message: str) -> None:
        """The error that ends the run, on standard error."""
        build_console(stderr=True).print(Text.assemble(("Error: ", "bold red"), printable(message)), soft_wrap=True)

    @contextmanager
    def progress(self, description: str) -> Iterator[ProgressBar]:
        """A bar on standard error, if that is a terminal."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=build_console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            yield ProgressBar(bar=bar, task=bar.add_task(description, total=None))


@dataclass(frozen=True, kw_only=True)
class ProgressBar:
    """One bar. It does nothing where standard error is not a terminal."""

    bar: Progress
    task: Any

    def update(self, done: float, total: float, description: str) -> None:
        """Show how far it is."""
        self.bar.update(self.task, completed=done, total=total, description=printable(description))


def build_console(*, stderr: bool = False) -> Console:
    """A console on the present stream. Colours follow the terminal and NO_COLOR."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def build_table(*columns: str) -> Table:
    """A table without lines, as kubectl prints them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">").upper(), justify="right" if right else "left", overflow="fold")
    return table


def cells(*values: object) -> list[Text]:
    """Values for a row: names of users never act on the terminal."""
    return [value if isinstance(value, Text) else Text(printable("" if value is None else str(value))) for value in values]


def _write(text: str) -> None:
    """A line of the result as it is; on a terminal without characters that act on it."""
    # Bytes of a file name that are not UTF-8 cannot be printed.
    text = text.encode(errors="replace").decode()
    print(printable(text) if sys.stdout.isatty() else text, flush=True)


def printable(text: str) -> str:
    """The text without characters that act on a terminal."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else character.encode("unicode_escape").decode()
        for character in text
    )
