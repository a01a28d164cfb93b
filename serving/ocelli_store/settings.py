"""Settings of the embedded store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.quantities import parse_quantity
from ocelli_api.settings import ADDRESS, FOLDER, LOG_LEVEL, PORT, SettingType, optional, setting

_USER_NAME = re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+")


def _parse_administrators(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(","))
    for name in names:
        if _USER_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is not a ServiceAccount")
    return names


def _parse_bytes(text: str) -> int:
    size_bytes = int(parse_quantity(text))
    if size_bytes < 1:
        raise ValueError
    return size_bytes


_ADMINISTRATORS = SettingType("system:serviceaccount:NAMESPACE:NAME, separated by commas", _parse_administrators)
_BYTES = SettingType("bytes, or a quantity such as 5Gi", _parse_bytes)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """All settings."""

    folder: Path = setting("OCELLI_STORE_FOLDER", FOLDER)
    """Folder of the store: the mount of its volume."""
    administrators: frozenset[str] = setting("OCELLI_STORE_ADMINISTRATORS", _ADMINISTRATORS)
    """Users that can read and write everything: the ServiceAccounts of operator and gateway."""
    namespace_quota_bytes: int | None = setting("OCELLI_STORE_NAMESPACE_QUOTA", optional(_BYTES), "")
    """How much each namespace can store, with uploads in progress. Each segment of a key counts as 16 KiB. Empty: no quota."""
    host: str = setting("OCELLI_STORE_HOST", ADDRESS, "*")
    """Address that the store listens on. `*`: all IPv4 and IPv6 addresses."""
    port: int = setting("OCELLI_STORE_PORT", PORT, "8082")
    """Port that the store listens on."""
    internal_port: int = setting("OCELLI_STORE_INTERNAL_PORT", PORT, "9090")
    """Port of `/livez`, `/readyz` and `/metrics`, which need no token."""
    log_level: str = setting("OCELLI_LOG_LEVEL", LOG_LEVEL, "INFO")
    """Lowest level of the log lines that are written."""
