"""Settings: the environment variables of a program, as the fields of a frozen dataclass.

Each setting is one field: `setting` names the variable, its type and its default, and the string below the field says what it
means. `load_settings` reads the environment. `docs/reference/generate.py` writes the reference pages from the same fields.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from ocelli_api.log_lines import LOG_LEVELS
from ocelli_api.network_addresses import parse_networks
from ocelli_api.quantities import parse_quantity
from ocelli_api.signing_keys import parse_public_keys

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Number = TypeVar("Number", bound=float)
SettingsT = TypeVar("SettingsT", bound="DataclassInstance")
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
"""User and password of a URL, which no message repeats."""


class SettingsError(Exception):
    """Settings are missing or wrong. The message names each variable, its value and what it should be."""


@dataclass(frozen=True)
class SettingType(Generic[T]):
    """What the text of a setting may be."""

    expected: str
    """Completes "set it to …"."""
    parse: Callable[[str], T]
    """Raises ValueError or OSError if the text is something else. The message of the error, if any, is shown."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One variable."""

    name: str
    type: SettingType[Any]
    default: str | None
    """The text that an unset or empty variable stands for. None: it must be set."""

    def read(self, environment: Mapping[str, str]) -> Any:
        """The typed value. Raises SettingsError."""
        text = environment.get(self.name) or self.default
        if text is None:
            raise SettingsError(f"{self.name} is not set; set it to {self.type.expected}")
        try:
            return self.type.parse(text)
        except (ValueError, OSError) as error:
            detail = f" ({error})" if str(error) else ""
            shown = _CREDENTIALS.sub("//***@", text)
            raise SettingsError(f"{self.name} is {shown!r}{detail}; set it to {self.type.expected}") from error


def setting(name: str, type_: SettingType[T], default: str | None = None) -> T:
    """A dataclass field for one variable."""
    metadata = {"setting": Setting(name=name, type=type_, default=default)}
    if default is None:
        return field(metadata=metadata)  # type: ignore[no-any-return]
    return field(default_factory=lambda: type_.parse(default), metadata=metadata)


def group(settings: type[SettingsT]) -> SettingsT:
    """A dataclass field for settings that have a dataclass of their own."""
    return field(metadata={"group": settings})  # type: ignore[no-any-return]


def load_settings(settings: type[SettingsT], environment: Mapping[str, str]) -> SettingsT:
    """Read and type the environment.

    Raises:
        SettingsError: settings are missing or wrong. The message lists all of them.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for item in fields(settings):
        try:
            if "group" in item.metadata:
                values[item.name] = load_settings(item.metadata["group"], environment)
            else:
                values[item.name] = item.metadata["setting"].read(environment)
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError(". ".join(problems))
    return settings(**values)


def list_settings(settings: type[DataclassInstance]) -> Iterator[Setting]:
    """Every setting of a program, in the order of its fields."""
    for item in fields(settings):
        if "group" in item.metadata:
            yield from list_settings(item.metadata["group"])
        else:
            yield item.metadata["setting"]


def number(convert: Callable[[str], Number], least: float, most: float | None = None) -> SettingType[Number]:
    """A number within bounds: a whole one if `convert` is int."""

    def parse(text: str) -> Number:
        with contextlib.suppress(ValueError):
            value = convert(text)
            if least <= value and (most is None or value <= most):
                return value
        raise ValueError

    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    return SettingType(f"{'a whole number' if convert is int else 'a number'} {bounds}", parse)


def checked(expected: str, convert: Callable[[str], T], is_valid: Callable[[T], object]) -> SettingType[T]:
    """What `convert` returns, if `is_valid` returns something true."""

    def parse(text: str) -> T:
        value = convert(text)
        if not is_valid(value):
            raise ValueError
        return value

    return SettingType(expected, parse)


def one_of(values: Mapping[str, T]) -> SettingType[T]:
    """One of several words, each with the value that it stands for."""
    words = checked(f"one of {', '.join(values)}", str, values.__contains__)
    return SettingType(words.expected, lambda text: values[words.parse(text)])


def optional(type_: SettingType[T]) -> SettingType[T | None]:
    """May be empty, which means None."""
    return SettingType(f"{type_.expected}, or leave it empty", lambda text: type_.parse(text) if text else None)


_BUCKET_URL = re.compile(r"(s3|gs|az)://[a-z0-9][a-z0-9._-]{1,221}")


def _parse_buckets(text: str) -> frozenset[str]:
    names = frozenset(item.strip() for item in text.split(",") if item.strip())
    for item in names:
        if _BUCKET_URL.fullmatch(item) is None:
            raise ValueError(f"{item!r} is not of the form s3://BUCKET")
    return names


def _parse_proxy(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.port == 0):
        raise ValueError("only proxies at http:// are supported")
    return text


def _parse_certificates(text: str) -> str:
    if text:
        try:
            ssl.create_default_context(cadata=text)
        except ssl.SSLError as error:
            raise ValueError("not readable") from error
    return text


BUCKETS = SettingType("buckets such as s3://training,gs://images", _parse_buckets)
PROXY = SettingType("a URL such as http://proxy.example.com:3128, or leave it empty", _parse_proxy)
CERTIFICATES = SettingType("certificates in PEM, or leave it empty", _parse_certificates)
NAME = SettingType("a name", str)
ADDRESS = SettingType("an address", str)
NAMES = SettingType("names, separated by commas", lambda text: tuple(name.strip() for name in text.split(",") if name.strip()))
STORE_URL = SettingType("a URL such as file:///folder, s3://bucket/prefix or http://host", str)
FILE = SettingType("a file", Path)
FOLDER = SettingType("a folder", Path)
TEMPORARY_FOLDER = SettingType("a folder, or leave it empty", lambda text: Path(text or tempfile.gettempdir()))
PORT = number(int, 1, 65_535)
SWITCH = one_of({"true": True, "false": False})
LOG_LEVEL = checked(f"one of {', '.join(LOG_LEVELS)}", str.upper, LOG_LEVELS.__contains__)
QUANTITY = checked("a quantity above 0 such as 5Gi", str, lambda text: parse_quantity(text) > 0)
PUBLIC_KEYS = SettingType(
    "public keys of Ed25519, separated by commas, each as the line between BEGIN and END of its PEM file", parse_public_keys
)
NETWORKS = checked("networks such as 10.1.0.0/16,fd00::/8", str, lambda text: parse_networks(text) is not None)
