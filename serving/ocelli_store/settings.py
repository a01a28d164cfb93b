"""Settings of the embedded store: environment variables, each with its meaning and its default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.log_lines import parse_log_level
from ocelli_api.quantities import parse_quantity

_USER_NAME = re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+")

SETTINGS: Mapping[str, tuple[str | None, str]] = {
    "OCELLI_STORE_FOLDER": (None, "Folder of the store: where its volume is mounted."),
    "OCELLI_STORE_ADMINISTRATORS": (
        None,
        "User names that may read and write everything, `a,b`: `system:serviceaccount:NAMESPACE:NAME` of operator and gateway.",
    ),
    "OCELLI_STORE_NAMESPACE_QUOTA": (
        "",
        "What each namespace may have in the store, uploads on their way included: bytes, or a quantity such as `5Gi`. Each "
        "segment of an object's key counts 16 KiB besides. Empty: no quota.",
    ),
    "OCELLI_STORE_HOST": ("*", "Address that the store listens on; `*`: all, of IPv4 and IPv6."),
    "OCELLI_STORE_PORT": ("8082", "Port that the store listens on."),
    "OCELLI_STORE_INTERNAL_PORT": ("9090", "Port of `/livez`, `/readyz` and `/metrics`, which ask for no token."),
    "OCELLI_LOG_LEVEL": ("INFO", "`DEBUG`, `INFO`, `WARNING` or `ERROR`."),
}
"""Default (None: it must be set) and meaning by variable."""


class SettingsError(Exception):
    """A setting is missing or has a value that it may not have. The message names the variable and the remedy."""


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """All settings."""

    folder: Path
    administrators: frozenset[str]
    namespace_quota_bytes: int | None
    host: str
    port: int
    internal_port: int
    log_level: str


def parse_settings(environment: Mapping[str, str]) -> StoreSettings:
    """Type the environment. Raises SettingsError."""
    administrators = frozenset(name.strip() for name in _text(environment, "OCELLI_STORE_ADMINISTRATORS").split(","))
    for name in administrators:
        if _USER_NAME.fullmatch(name) is None:
            raise SettingsError(
                f"OCELLI_STORE_ADMINISTRATORS names {name!r}; give system:serviceaccount:NAMESPACE:NAME, divided by commas"
            )
    try:
        log_level = parse_log_level(_text(environment, "OCELLI_LOG_LEVEL"))
    except ValueError as error:
        raise SettingsError(f"OCELLI_LOG_LEVEL is {error}") from None
    return StoreSettings(
        folder=Path(_text(environment, "OCELLI_STORE_FOLDER")),
        administrators=administrators,
        namespace_quota_bytes=_parse_quota(_text(environment, "OCELLI_STORE_NAMESPACE_QUOTA")),
        host=_text(environment, "OCELLI_STORE_HOST"),
        port=_parse_port(environment, "OCELLI_STORE_PORT"),
        internal_port=_parse_port(environment, "OCELLI_STORE_INTERNAL_PORT"),
        log_level=log_level,
    )


def _parse_port(environment: Mapping[str, str], variable: str) -> int:
    port = _text(environment, variable)
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise SettingsError(f"{variable} is {port!r}; give a port, 1 to 65535")
    return int(port)


def _parse_quota(text: str) -> int | None:
    """Whole bytes, at least one, of what `parse_quantity` takes: `5Gi`, `1.5G`, `5000000000`; None of an empty text.

    Raises:
        SettingsError: it is no quantity, or less than a byte.
    """
    if not text:
        return None
    try:
        quota_bytes = int(parse_quantity(text))
    except ValueError:
        quota_bytes = 0
    if quota_bytes < 1:
        raise SettingsError(f"OCELLI_STORE_NAMESPACE_QUOTA is {text!r}; give bytes, such as 5Gi, or leave it empty: no quota")
    return quota_bytes


def _text(environment: Mapping[str, str], variable: str) -> str:
    default, meaning = SETTINGS[variable]
    value = environment.get(variable) or default
    if value is None:
        raise SettingsError(f"{variable} is not set; set it: {meaning}")
    return value
