"""Credentials of sources: what a mounted Secret contains, and to which hosts it may be sent.

Users who can create Classifiers must not thereby read Secrets, or send them to a server of their own. So a Secret lists its
hosts, and endpoints of buckets come from the Secret, never from the Classifier.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ocelli_api.source_secrets import HOSTS_KEY, SOURCE_SECRET_KEYS, SOURCE_SECRET_TYPE
from ocelli_storage.archives import shown_name
from ocelli_training.sources import SourceError

_DEFAULT_PORTS = {"https": 443, "http": 80}
_VALUE_BYTES_LIMIT = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class SourceSecret:
    """The contents of one Secret."""

    name: str
    hosts: frozenset[str]
    """Origins such as `https://data.example.com` and `s3://training`."""
    values: Mapping[str, str] = field(repr=False)

    def covers(self, url: str) -> bool:
        """Whether its credentials may be sent to the host, or to the bucket, of a URL."""
        try:
            return find_origin(url) in self.hosts
        except ValueError:
            # Its port is not one. Connecting to it fails, with a message.
            return False


def find_origin(url: str) -> str:
    """Scheme and host of a URL, with the port if it is not the default one; or scheme and bucket. Raises ValueError."""
    parts = urlsplit(url)
    scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower().rstrip("."), parts.port
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port in (None, _DEFAULT_PORTS.get(scheme)) else f":{port}")


def load_source_secret(folder: Path | None, namespace: str, name: str) -> SourceSecret:
    """Read a mounted Secret; `folder` has a folder for each.

    Raises:
        SourceError: it does not exist, or is not a Secret for sources.
    """
    shown = f'Secret "{shown_name(name)}"'
    values = {} if folder is None else _read_values(folder / name)
    if not values:
        raise SourceError(
            f"{shown} does not exist in namespace {namespace}, or has none of the keys for sources; create it there with type "
            f"{SOURCE_SECRET_TYPE}, or correct secretRef"
        )
    if not values.get(HOSTS_KEY, "").strip():
        raise SourceError(f"{shown} has no key {HOSTS_KEY}; list in it the hosts and buckets that its credentials are for")
    return SourceSecret(name=name, hosts=_parse_hosts(shown, values[HOSTS_KEY]), values=values)


def build_authorization(secret: SourceSecret) -> str:
    """The `Authorization` header for an HTTP server. Raises SourceError if the Secret has no credentials for one."""
    values = secret.values
    if values.get("token"):
        header = f"Bearer {values['token']}"
    elif values.get("username") and "password" in values:
        header = "Basic " + base64.b64encode(f"{values['username']}:{values['password']}".encode()).decode()
    else:
        raise SourceError(
            f'Secret "{secret.name}" has no credentials for http; set the key token, or the keys username and password'
        )
    if not header.isascii() or not header.isprintable():
        raise SourceError(f'Secret "{secret.name}": token contains characters that no header may have; correct it')
    return header


def _read_values(folder: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for key in SOURCE_SECRET_KEYS:
        try:
            with (folder / key).open("rb") as file:
                text = file.read(_VALUE_BYTES_LIMIT).decode()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            fact = f'key {key} of Secret "{shown_name(folder.name)}" cannot be read'
            raise SourceError(f"{fact}; store it as a text in UTF-8") from error
        # Files made with an editor end with a line break, which no credential has.
        values[key] = text.strip()
    return values


def _parse_hosts(shown: str, text: str) -> frozenset[str]:
    origins = set()
    for item in text.replace(",", " ").split():
        # Without a scheme it means https: a password must not travel in the clear by accident.
        url = item if "://" in item else f"https://{item}"
        try:
            origin = find_origin(url)
            valid = bool(urlsplit(url).hostname) and urlsplit(url).path in ("", "/")
        except ValueError:
            valid = False
        if not valid:
            raise SourceError(
                f"{shown}: {HOSTS_KEY} contains {shown_name(item)!r}, which is neither a host nor a bucket; write it as "
                "data.example.com or s3://BUCKET"
            )
        origins.add(origin)
    return frozenset(origins)
