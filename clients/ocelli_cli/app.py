"""The programs `ocelli` and `kubectl ocelli`: all commands in one app."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from ocelli_cli import (
    classify_commands,
    correction_commands,
    creation_commands,
    deletion_commands,
    doctor_command,
    download_commands,
    import_commands,
    listing_commands,
    log_commands,
    login_commands,
    manifest_command,
    revision_commands,
)

# Each module adds its commands to the one app, in the order of the help text.
COMMANDS = (
    creation_commands,
    import_commands,
    manifest_command,
    correction_commands,
    listing_commands,
    doctor_command,
    download_commands,
    log_commands,
    classify_commands,
    revision_commands,
    deletion_commands,
    login_commands,
)

HELP = """Create, train, evaluate and use the image classifiers of an Ocelli gateway.

The result is on standard output. Questions, warnings and errors are on standard error.

Exit codes: 0 done, 1 refused or failed, 2 wrong arguments, 3 not found, 4 gateway not reachable, 5 not logged in, \
6 timed out, 7 the classifier belongs to a manifest, 130 Ctrl-C.
"""
app = typer.Typer(
    no_args_is_help=True,
    # Keys and passwords are local variables.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("ocelli-client"))
        raise typer.Exit


@app.callback(help=HELP)
def ocelli(
    shown_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The options of the program itself."""


for module in COMMANDS:
    module.add_to(app)


def main() -> None:
    """The entry point of both programs."""
    program = "kubectl ocelli" if sys.argv[0].endswith("kubectl-ocelli") else "ocelli"
    app(prog_name=program)
