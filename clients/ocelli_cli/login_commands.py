"""`ocelli login`, `contexts` and `completion`: the set-up of this program."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer
from typer import completion

from ocelli_cli.command import command
from ocelli_cli.config_file import ConfigFile, Context
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_client import NotFoundError, Ocelli
from ocelli_client.connection import check_address

PANEL = "Set up"


class Shell(StrEnum):
    """Shells whose completion is written."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "login", panel=PANEL)(log_in)
    command(app, "contexts", panel=PANEL)(show_contexts)
    command(app, "completion", panel=PANEL)(print_completion)


def log_in(
    session: Session,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The gateway, such as https://vision.example.org.", show_default=False)
    ],
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", metavar="NAME", help="Log in with user and password; by default with an API key."),
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    api_key_stdin: Annotated[bool, typer.Option("--api-key-stdin", help="Read the API key from standard input.")] = False,
    ca: Annotated[
        str | None,
        typer.Option("--ca", help="The certificate authority to trust; by default those of the system.", metavar="FILE"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The name of the context.", show_default="the host")
    ] = None,
) -> None:
    """Log in to a gateway.

    Asks for an API key, or with --user for a password, and keeps it in a file that only you can read.
    Where OCELLI_API_KEY, or OCELLI_USER and OCELLI_PASSWORD, are set, it takes them instead.

    Example: ocelli login https://vision.example.org --user anna
    """
    if password_stdin and (api_key_stdin or user is None):
        raise UsageError("--password-stdin needs --user, and excludes --api-key-stdin")
    check_address(url)
    session.warn_of_clear_text(url)
    context = _ask(session, Context(url=url, user=user, certificate_authority=ca), password_stdin, api_key_stdin)
    with Ocelli(**session.build_options(context)) as ocelli:
        found = ocelli.session()
    config = session.load_config_file()
    chosen = name or _build_name(url)
    replace(config, current=chosen, contexts={**config.contexts, chosen: context}).save()
    who = found.get("user") or "the owner of the key"
    document = {"context": chosen, "url": url, "user": found.get("user"), "namespace": found.get("namespace")}
    message = f"Logged in to {url} as {who} (namespace {found.get('namespace')}); context {chosen} is kept in {config.path}"
    session.output.print(Payload(document=document, names=[chosen], human=session.output.text(message)))


def _ask(session: Session, context: Context, password_stdin: bool, api_key_stdin: bool) -> Context:
    given = session.environment.get
    if password_stdin:
        return replace(context, password=_read_line("password"))
    if api_key_stdin:
        return replace(context, api_key=_read_line("API key"))
    if context.user is None and given("OCELLI_API_KEY"):
        return replace(context, api_key=given("OCELLI_API_KEY"))
    user = context.user or given("OCELLI_USER")
    if user and given("OCELLI_PASSWORD"):
        return replace(context, user=user, password=given("OCELLI_PASSWORD"))
    if not session.can_ask():
        raise UsageError(
            "There is no terminal to ask for the credentials; use --api-key-stdin, or --user with --password-stdin"
        )
    if user:
        return replace(context, user=user, password=typer.prompt(f"Password of {user}", hide_input=True, err=True))
    return replace(context, api_key=typer.prompt("API key", hide_input=True, err=True))


def _read_line(what: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UsageError(f"There is no {what} on standard input")
    return line


def _build_name(url: str) -> str:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", host) or "default"


def show_contexts(
    session: Session,
    use: Annotated[str | None, typer.Option("--use", help="Make this context the current one.", metavar="NAME")] = None,
    forget: Annotated[
        str | None, typer.Option("--forget", help="Delete this context with its credentials.", metavar="NAME")
    ] = None,
) -> None:
    """List, choose or forget gateways that you have logged in to."""
    config = session.load_config_file()
    for name in (use, forget):
        if name is not None and name not in config.contexts:
            raise NotFoundError(404, f'There is no context "{name}"; known: {", ".join(config.contexts) or "none"}')
    if use or forget:
        contexts = {name: context for name, context in config.contexts.items() if name != forget}
        current = use or config.current
        config = replace(config, contexts=contexts, current=current if current in contexts else None)
        config.save()
    _print_contexts(session, config)


def _print_contexts(session: Session, config: ConfigFile) -> None:
    table = build_table("name", "address", "user", "current")
    rows = []
    for name, context in config.contexts.items():
        kind = context.user or ("(API key)" if context.api_key else "(token)")
        table.add_row(*cells(name, context.url, kind, "yes" if name == config.current else ""))
        rows.append({"name": name, "url": context.url, "current": name == config.current})
    if not rows:
        session.output.note("There are no contexts; run `ocelli login URL`")
    names = [str(row["name"]) for row in rows]
    session.output.print(Payload(document={"contexts": rows}, names=names, human=table if rows else None))


def print_completion(
    session: Session,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.", show_default=False)],
) -> None:
    """Print the completion script of a shell.

    It completes commands, options, and the names of classifiers.

    For bash, add to ~/.bashrc: source <(ocelli completion bash)
    """
    # Not exported by name, but what `--show-completion` prints.
    script = completion.get_completion_script(  # type: ignore[attr-defined]
        prog_name="ocelli", complete_var="_OCELLI_COMPLETE", shell=shell.value
    )
    session.output.print(Payload(document={"shell": shell.value, "script": script}, names=[script]))
