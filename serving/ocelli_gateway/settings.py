"""Settings of the gateway: environment variables, each with its meaning, its default and its bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """A setting is missing or has a value that it may not have. The message names the variable and the remedy."""


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _about(variable: str, meaning: str, *, least: float = 1, most: float = 10_000) -> dict[str, Any]:
    """What a field says of its variable; the bounds are those of numbers."""
    return {"variable": variable, "meaning": meaning, "least": least, "most": most}


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """All settings; `environment_variables()` lists them with their meanings."""

    store_url: str = field(metadata=_about("OCELLI_STORE_URL", "The object store, `file:///folder`. Required."))
    credentials_folder: Path = field(
        metadata=_about(
            "OCELLI_CREDENTIALS_FOLDER",
            "Folder of credential sets, one JSON file each (a mounted Secret); re-read when it changes. Required.",
        )
    )
    host: str = field(default="0.0.0.0", metadata=_about("OCELLI_GATEWAY_HOST", "Address that the gateway listens on."))
    port: int = field(default=8080, metadata=_about("OCELLI_GATEWAY_PORT", "Port that the gateway listens on.", most=65_535))
    upload_folder: Path = field(
        default=Path(tempfile.gettempdir()),
        metadata=_about(
            "OCELLI_UPLOAD_FOLDER",
            "Folder for uploads while they are checked: as large as the requests that are read at the same time.",
        ),
    )
    uploads_at_once: int = field(
        default=16,
        metadata=_about(
            "OCELLI_GATEWAY_UPLOADS_AT_ONCE",
            "Create and retrain requests (256 MB at most) that are read at the same time; further ones wait.",
        ),
    )
    classify_at_once: int = field(
        default=64,
        metadata=_about(
            "OCELLI_GATEWAY_CLASSIFY_AT_ONCE",
            "Classify requests (110 MB at most) that are worked on at the same time; further ones wait.",
        ),
    )
    images_at_once: int = field(
        default=32,
        metadata=_about(
            "OCELLI_GATEWAY_IMAGES_AT_ONCE",
            "Images (10 MB at most) held in memory at the same time; further ones wait.",
        ),
    )
    body_timeout_seconds: float = field(
        default=60.0,
        metadata=_about(
            "OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS",
            "A request whose body brings no byte for so long is answered with 400.",
            least=0.1,
        ),
    )
    prediction_timeout_seconds: float = field(
        default=30.0,
        metadata=_about(
            "OCELLI_GATEWAY_PREDICTION_TIMEOUT_SECONDS",
            "How long one image may take, inference servers that fail and are replaced included.",
            least=0.1,
        ),
    )
    replica_delay_seconds: float = field(
        default=1.0,
        metadata=_about(
            "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS",
            "How far the watch of another replica may lag: a delete and the first `ready` are answered so much later. "
            "0 where there is one replica.",
            least=0,
            most=60,
        ),
    )
    credentials_poll_seconds: float = field(
        default=2.0,
        metadata=_about("OCELLI_CREDENTIALS_POLL_SECONDS", "How often the credentials folder is looked at.", least=0.1),
    )
    log_level: str = field(default="INFO", metadata=_about("OCELLI_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR."))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> GatewaySettings:
        """Read the settings.

        Raises:
            SettingsError: one is missing or has a value that it may not have.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            variable = item.metadata["variable"]
            text = environment.get(variable, "")
            if text:
                values[item.name] = _parse(text, str(item.type), item.metadata)
            elif item.default is MISSING:
                raise SettingsError(f"Setting {variable} is missing; set it. {item.metadata['meaning']}")
        return cls(**values)


def environment_variables() -> dict[str, str]:
    """Every variable with its meaning."""
    return {item.metadata["variable"]: item.metadata["meaning"] for item in fields(GatewaySettings)}


def _parse(text: str, type_name: str, about: Mapping[str, Any]) -> Any:
    variable, least, most = about["variable"], about["least"], about["most"]
    if type_name == "Path":
        return Path(text)
    if type_name == "str":
        if variable == "OCELLI_LOG_LEVEL" and text not in _LEVELS:
            raise SettingsError(f"Setting {variable} is {text!r}; set one of {', '.join(_LEVELS)}")
        return text
    try:
        number = int(text) if type_name == "int" else float(text)
    except ValueError as error:
        raise SettingsError(f"Setting {variable} is {text!r}; set a number") from error
    if not least <= number <= most:
        raise SettingsError(f"Setting {variable} is {text!r}; set a number from {least:g} to {most:g}")
    return number
