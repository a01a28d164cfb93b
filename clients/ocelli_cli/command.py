"""How a function becomes a command: options that every command has become a session, and errors become exit codes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from ocelli_cli.exit_codes import ExitCode, find_exit_code
from ocelli_cli.output import Output, OutputFormat
from ocelli_cli.session import Session
from ocelli_client import ConflictError, LoginError, NotReachableError, OcelliError

P = ParamSpec("P")
PANEL = "Options of every command"


def _complete_contexts(incomplete: str) -> list[str]:
    try:
        contexts = Session(output=Output(format=OutputFormat.NAME)).load_config_file().contexts
    except OcelliError:
        return []
    return [name for name in contexts if name.startswith(incomplete)]


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "output": (
        Annotated[
            OutputFormat,
            typer.Option("--output", "-o", help="The format of the result on standard output.", rich_help_panel=PANEL),
        ],
        OutputFormat.HUMAN,
    ),
    "context": (
        Annotated[
            str | None,
            typer.Option(
                help="The gateway to use, one of `ocelli contexts`; by default OCELLI_CONTEXT, or the current one.",
                rich_help_panel=PANEL,
                autocompletion=_complete_contexts,
                metavar="NAME",
            ),
        ],
        None,
    ),
    "timeout": (
        Annotated[
            float | None,
            typer.Option(
                help="Give up after this many seconds; by default never.", rich_help_panel=PANEL, min=0.1, metavar="SECONDS"
            ),
        ],
        None,
    ),
    "yes": (
        Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.", rich_help_panel=PANEL)],
        False,
    ),
    "no_input": (
        Annotated[bool, typer.Option("--no-input", help="Never ask; fail where an answer is needed.", rich_help_panel=PANEL)],
        False,
    ),
}


def command(
    app: typer.Typer, name: str, *, panel: str | None = None
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Add a function to an app. Its first parameter is the session; the others are arguments and options.

    A parameter of a dataclass stands for the fields of it: options that several commands share.
    """

    def register(function: Callable[Concatenate[Session, P], None]) -> Callable[Concatenate[Session, P], None]:
        app.command(name, rich_help_panel=panel)(_build_callback(function))
        return function

    return register


def _build_callback(function: Callable[..., None]) -> Callable[..., None]:
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind) and kind is not Session
    }
    given: list[inspect.Parameter] = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.name in groups:
            given += _list_fields(groups[parameter.name])
        else:
            given.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        output = Output(format=values.pop("output"))
        session = Session(
            output=output,
            context_name=values.pop("context"),
            timeout_seconds=values.pop("timeout"),
            yes=values.pop("yes"),
            no_input=values.pop("no_input"),
        )
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
        try:
            function(session, **values)
        except OcelliError as error:
            output.fail(describe(error))
            # The gateway was given no more time than was left.
            late = isinstance(error, NotReachableError) and session.find_remaining_seconds() == 0
            raise typer.Exit(ExitCode.TIMED_OUT if late else find_exit_code(error)) from error
        except BrokenPipeError:
            # The reader of a pipe has enough, as in `ocelli list | head -1`; click ends the program.
            raise
        except OSError as error:
            output.fail(f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}")
            raise typer.Exit(ExitCode.FAILED) from error
        except KeyboardInterrupt as error:
            output.fail("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from error

    parameters = [*given, *common]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Paragraphs fit any width of a terminal.
    run.__doc__ = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(function.__doc__ or "").split("\n\n"))
    del run.__wrapped__
    return run


def _list_fields(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(kind)
    ]


def describe(error: OcelliError) -> str:
    """The message, with what to do in this program."""
    if isinstance(error, LoginError) and error.body:
        return f"{error}: the gateway does not accept the credentials, or they have expired; run `ocelli login`"
    if isinstance(error, ConflictError) and error.manifest:
        return f"{error}\nCommit this instead:\n\n{error.manifest}"
    return str(error)
