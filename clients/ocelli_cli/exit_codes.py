"""What the programs exit with, and which failure has which code."""

from __future__ import annotations

from enum import IntEnum

from ocelli_client.errors import (
    BusyError,
    ConflictError,
    LoginError,
    NotFoundError,
    NotReachableError,
    OcelliError,
    WaitTimeoutError,
)


class ExitCode(IntEnum):
    """The exit codes; docs/cli.md has the table."""

    OK = 0
    FAILED = 1
    """Refused by the gateway, for example because of a quota, or failed: a training, an image, a file."""
    USAGE = 2
    """Wrong arguments, or a question that could not be asked."""
    NOT_FOUND = 3
    NOT_REACHABLE = 4
    """No answer, or the gateway is not ready."""
    NOT_LOGGED_IN = 5
    """No credentials, or the gateway does not accept them."""
    TIMED_OUT = 6
    """`--timeout` has passed. What was started goes on."""
    READ_ONLY = 7
    """The classifier belongs to a manifest; the message has the YAML to commit."""
    INTERRUPTED = 130
    """Ctrl-C."""


class UsageError(OcelliError):
    """Arguments that contradict each other, or an answer that a person has to give."""


_CODES: tuple[tuple[type[OcelliError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (LoginError, ExitCode.NOT_LOGGED_IN),
    (ConflictError, ExitCode.READ_ONLY),
    (NotReachableError, ExitCode.NOT_REACHABLE),
    (BusyError, ExitCode.NOT_REACHABLE),
    (WaitTimeoutError, ExitCode.TIMED_OUT),
)


def find_exit_code(error: OcelliError) -> ExitCode:
    """The exit code of a failure."""
    if isinstance(error, ConflictError) and error.manifest is None:
        return ExitCode.FAILED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
