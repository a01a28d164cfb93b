"""One run of the program: which gateway, how the result is printed, how long it may take, and whether a person can be asked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import typer

from ocelli_cli.config_file import ConfigFile, Context, find_config_path, is_readable_by_others, load_config_file
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Output, printable
from ocelli_client import LoginError, NotFoundError, Ocelli, OcelliError, WaitTimeoutError
from ocelli_client.connection import check_address, sends_clear_text

_CALL_SECONDS = 60.0


class DeclinedError(OcelliError):
    """A person has answered no."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Made from the options that every command has."""

    output: Output
    context_name: str | None = None
    timeout_seconds: float | None = None
    yes: bool = False
    no_input: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    started: float = field(default_factory=time.monotonic)

    def load_config_file(self) -> ConfigFile:
        """The configuration file."""
        return load_config_file(find_config_path(self.environment))

    def find_context(self) -> Context:
        """The gateway of this run: the environment's, or that of the context.

        Raises:
            LoginError: no gateway or no credentials are known.
        """
        config = self.load_config_file()
        name = self.context_name or self.environment.get("OCELLI_CONTEXT") or config.current
        stored = None if name is None else config.contexts.get(name)
        if stored is None and name is not None and name != config.current:
            known = ", ".join(config.contexts) or "none"
            raise NotFoundError(404, f'There is no context "{name}" in {config.path} (known: {known}); run `ocelli login`')
        if stored is not None and is_readable_by_others(config.path):
            self.output.warn(f"{config.path} can be read by others; run: chmod 600 {config.path}")
        context = self._override(stored)
        if context is None:
            raise LoginError(401, "No gateway is known; run `ocelli login URL`, or set OCELLI_URL and OCELLI_API_KEY")
        if not context.has_credentials:
            raise LoginError(
                401,
                f"There are no credentials for {context.url}; run `ocelli login {context.url}`, or set OCELLI_API_KEY, "
                "or OCELLI_USER and OCELLI_PASSWORD",
            )
        return context

    def _override(self, stored: Context | None) -> Context | None:
        given = self.environment.get
        url = given("OCELLI_URL")
        if url:
            _check_variable("OCELLI_URL", url)
            # Credentials are for one gateway: they never go to another one.
            stored = stored if stored is not None and stored.url.rstrip("/") == url.rstrip("/") else Context(url=url)
        if stored is None:
            return None
        if authority := given("OCELLI_CA"):
            stored = replace(stored, certificate_authority=authority)
        nothing: dict[str, Any] = {"user": None, "password": None, "api_key": None, "token": None}
        if token := given("OCELLI_TOKEN"):
            return replace(stored, **nothing | {"token": token})
        if api_key := given("OCELLI_API_KEY"):
            return replace(stored, **nothing | {"api_key": api_key})
        if user := given("OCELLI_USER"):
            return replace(stored, **nothing | {"user": user, "password": given("OCELLI_PASSWORD")})
        return stored

    def connect(self) -> Ocelli:
        """A client of the gateway."""
        context = self.find_context()
        self.warn_of_clear_text(context.url)
        return Ocelli(**self.build_options(context))

    def build_options(self, context: Context) -> dict[str, Any]:
        """The options of a client for a context."""
        limit = self.timeout_seconds
        options = {
            "url": context.url,
            "timeout_seconds": _CALL_SECONDS if limit is None else max(0.1, min(_CALL_SECONDS, limit)),
            "deadline": None if limit is None else self.started + limit,
            "verify": context.certificate_authority or True,
        }
        if context.token:
            return options | {"token": context.token}
        if context.api_key:
            return options | {"api_key": context.api_key}
        return options | {"user": context.user, "password": context.password}

    def warn_of_clear_text(self, url: str) -> None:
        """Warn before credentials are sent in clear text."""
        if sends_clear_text(url):
            self.output.warn(f"{url} is not encrypted: the credentials are sent in clear text; use an https address")

    def find_remaining_seconds(self) -> float | None:
        """What is left of `--timeout`; None without one."""
        if self.timeout_seconds is None:
            return None
        return max(0.0, self.started + self.timeout_seconds - time.monotonic())

    def check_time(self, what: str, *, pause_seconds: float = 0.0) -> None:
        """Raise WaitTimeoutError once `--timeout` has passed, or where it passes during a pause that begins now."""
        remaining = self.find_remaining_seconds()
        if remaining is not None and remaining <= pause_seconds:
            raise WaitTimeoutError(f"{what}: timed out after {self.timeout_seconds:g} s")

    def can_ask(self) -> bool:
        """Whether a person can answer a question."""
        return not self.no_input and sys.stdin.isatty()

    def check_confirmed(self, question: str) -> None:
        """Ask a person, unless `--yes` has answered.

        Raises:
            UsageError: there is no terminal, or `--no-input` is given.
            DeclinedError: the answer is no.
        """
        if self.yes:
            return
        if not self.can_ask():
            reason = "--no-input is given" if self.no_input else "There is no terminal to answer on"
            raise UsageError(f"{question} {reason}; repeat the command with --yes")
        if not typer.confirm(printable(question), err=True):
            raise DeclinedError("Nothing was changed")


def _check_variable(name: str, url: str) -> None:
    try:
        check_address(url)
    except OcelliError as error:
        raise OcelliError(f"{name}: {error}") from error
