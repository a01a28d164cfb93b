"""Reading back what the operator told a Pod: what trainer and inference server both need of `ocelli_api.pods.Environment`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ocelli_api.classifier import Accelerator
from ocelli_api.log_lines import parse_log_level
from ocelli_api.pods import Environment

DEFAULT_TERMINATION_MESSAGE_PATH = Path("/dev/termination-log")


class SettingsError(Exception):
    """The environment does not say what the program needs. The message names the variable."""


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
    """`Auto` where nothing is said.

    Raises:
        SettingsError: there is no such accelerator.
    """
    text = environment.get(Environment.ACCELERATOR) or Accelerator.AUTO
    try:
        return Accelerator(text)
    except ValueError:
        choices = ", ".join(Accelerator)
        raise SettingsError(f"environment variable {Environment.ACCELERATOR} is {text!r}; give one of {choices}") from None


def log_level(environment: Mapping[str, str]) -> str:
    """The least level of log lines; `INFO` where nothing is said.

    Raises:
        SettingsError: there is no such level.
    """
    try:
        return parse_log_level(environment.get(Environment.LOG_LEVEL) or "INFO")
    except ValueError as error:
        raise SettingsError(f"environment variable {Environment.LOG_LEVEL} is {error}") from None


def termination_message_path(environment: Mapping[str, str]) -> Path:
    """Where the termination message goes. Apart from the settings: it is needed when those are wrong, too."""
    return Path(environment.get(Environment.TERMINATION_MESSAGE_PATH) or DEFAULT_TERMINATION_MESSAGE_PATH)
