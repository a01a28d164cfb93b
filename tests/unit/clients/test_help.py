"""The help texts of all commands, as users read them; `make golden` rewrites the file."""

from __future__ import annotations

import os
from pathlib import Path

from typer.main import get_command

from ocelli_cli.app import app
from tests.unit.clients.command_line import CommandLine

GOLDEN = Path(__file__).parent / "golden" / "help.txt"


def list_commands() -> list[tuple[str, ...]]:
    """The words of every command and sub command."""
    found: list[tuple[str, ...]] = [()]
    pending = [((), get_command(app))]
    while pending:
        words, group = pending.pop(0)
        for name, one in getattr(group, "commands", {}).items():
            found.append((*words, name))
            pending.append(((*words, name), one))
    return found


def test_help_reads_as_reviewed(stranger: CommandLine) -> None:
    parts = []
    for words in list_commands():
        run = stranger.succeed(*words, "--help", COLUMNS="100", TERMINAL_WIDTH="100")
        assert run.err == ""
        lines = [line.rstrip() for line in run.out.strip().splitlines()]
        parts.append(f"$ {' '.join(('ocelli', *words))} --help\n\n" + "\n".join(lines))
    text = "\n\n\n".join(parts) + "\n"
    if os.environ.get("OCELLI_REWRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_every_summary_is_one_short_sentence() -> None:
    for words in list_commands()[1:]:
        one = get_command(app)
        for word in words:
            one = one.commands[word]  # type: ignore[attr-defined]
        summary = (one.help or "").partition("\n")[0]
        assert summary.endswith("."), words
        assert len(summary) <= 110, words
