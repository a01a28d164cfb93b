"""Runs `ocelli` in this process, as a user with an empty home, and keeps exit code and both outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ocelli_cli.app import app


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as JSON: it holds nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A user's environment."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Run:
        variables: dict[str, str | None] = {"HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "100"}
        variables |= {"XDG_CONFIG_HOME": None, "XDG_STATE_HOME": None}
        variables |= {**self.environment, **environment}
        result = CliRunner().invoke(app, list(arguments), prog_name="ocelli", env=variables, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Run(code=result.exit_code, out=result.stdout, err=result.stderr)

    def succeed(self, *arguments: str, **options: Any) -> Run:
        """Run, and check that it succeeds."""
        run = self.run(*arguments, **options)
        assert run.code == 0, run
        return run
