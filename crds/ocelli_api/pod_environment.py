"""The environment of a Pod: what trainer and inference server both read of `ocelli_api.pods.Environment`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ocelli_api.classifier import Accelerator
from ocelli_api.log_lines import parse_log_level
from ocelli_api.pods import Environment

DEFAULT_TERMINATION_MESSAGE_PATH = Path("/dev/termination-log")


class SettingsError(Exception):
    """A variable is missing or invalid. The message names it."""


def require(environment: Mapping[str, str], name: str) -> str:
    """The variable's value.

    Raises:
        SettingsError: it is missing or empty.
    """
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"environment variable {name} is missing; set it on the container")
    return value


def parse_accelerator(environment: Mapping[str, str]) -> Accelerator:
    """The accelerator; `Auto` if the variable is not set.

    Raises:
        SettingsError: the value is not an accelerator.
    """
    text = environment.get(Environment.ACCELERATOR) or Accelerator.AUTO
    try:
        return Accelerator(text)
    except ValueError:
        choices = ", ".join(Accelerator)
        raise SettingsError(f"environment variable {Environment.ACCELERATOR} is {text!r}; give one of {choices}") from None


def log_level(environment: Mapping[str, str]) -> str:
    """The lowest level of log lines; `INFO` if the variable is not set.

    Raises:
        SettingsError: the value is not a level.
    """
    try:
        return parse_log_level(environment.get(Environment.LOG_LEVEL) or "INFO")
    except ValueError as error:
        raise SettingsError(f"environment variable {Environment.LOG_LEVEL} is {error}") from None


def count_usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def termination_message_path(environment: Mapping[str, str]) -> Path:
    """The file of the termination message. Separate from the settings, because it is needed if they are invalid."""
    return Path(environment.get(Environment.TERMINATION_MESSAGE_PATH) or DEFAULT_TERMINATION_MESSAGE_PATH)
