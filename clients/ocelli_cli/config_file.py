"""The configuration file: gateways with their credentials, by name. Only its owner may read it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ocelli_client.connection import check_address
from ocelli_client.errors import OcelliError


class ConfigFileError(OcelliError):
    """The configuration file cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A gateway and how to log in to it."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    certificate_authority: str | None = None

    @property
    def has_credentials(self) -> bool:
        """Whether anything here proves who asks."""
        return bool(self.user or self.api_key or self.token)

    def to_yaml(self) -> dict[str, str]:
        """What is written: no empty fields."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """The content of the file."""

    path: Path
    current: str | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def save(self) -> None:
        """Write it as a whole, with mode 0600."""
        document = {
            "current_context": self.current,
            "contexts": {name: context.to_yaml() for name, context in self.contexts.items()},
        }
        write_private(self.path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def find_config_path(environment: Mapping[str, str]) -> Path:
    """OCELLI_CONFIG, or `ocelli/config.yaml` in the folder for configuration files."""
    if given := environment.get("OCELLI_CONFIG"):
        return Path(given)
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "ocelli" / "config.yaml"


def load_config_file(path: Path) -> ConfigFile:
    """The file, or an empty one where there is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return ConfigFile(path=path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigFileError(
            f"{path} cannot be read ({_first_line(error)}); correct it, or delete it and log in again"
        ) from error
    try:
        contexts = {name: Context(**values) for name, values in (document.get("contexts") or {}).items()}
        for name, context in contexts.items():
            _check_context(name, context)
    except (AttributeError, TypeError, OcelliError) as error:
        raise ConfigFileError(
            f"{path} is not a configuration of ocelli ({_first_line(error)}); correct or delete it"
        ) from error
    return ConfigFile(path=path, current=document.get("current_context"), contexts=contexts)


def _check_context(name: str, context: Context) -> None:
    for field_name, value in context.to_yaml().items():
        if not isinstance(value, str):
            raise ConfigFileError(f"context {name}: {field_name} is not a text; put it into quotes")
    try:
        check_address(context.url)
    except OcelliError as error:
        raise ConfigFileError(f"context {name}: {error}") from error


def is_readable_by_others(path: Path) -> bool:
    """Whether others than its owner can read the file."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step. Only its owner can ever read it."""
    with _writing_temporary(path, text) as temporary:
        temporary.replace(path)


def create_private(path: Path, text: str) -> bool:
    """Write a file that does not exist yet. False if it exists, also if another program has just written it."""
    with _writing_temporary(path, text) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:
            # This file system has no hard links. Two programs that write at the same moment both believe that they were first.
            if path.exists():
                return False
            temporary.replace(path)
        return True


@contextmanager
def _writing_temporary(path: Path, text: str) -> Iterator[Path]:
    """A temporary file with the text, in the folder of `path`. Raises ConfigFileError, also for what is done with it."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp makes files of mode 0600.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        temporary = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield temporary
    except OSError as error:
        raise ConfigFileError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _first_line(error: Any) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
