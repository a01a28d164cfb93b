"""Secrets with the credentials of sources: their type, their keys, and where trainers find them.

The operator mounts them and never reads them, so it must not know what the keys mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocelli_api.classifier import GROUP, Source

SOURCE_SECRET_TYPE = f"{GROUP}/source"
HOSTS_KEY = "hosts"
"""The key that lists where the credentials may be sent. A Secret without it is not used, whatever its type is."""
SOURCE_SECRET_KEYS = (
    HOSTS_KEY,
    "username",
    "password",
    "token",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_ENDPOINT_URL",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_ENDPOINT",
)
"""The keys that are mounted. A Secret of another purpose has none of them, so naming it in a Classifier reveals nothing."""
SOURCE_SECRETS_FOLDER = "/var/run/secrets/ocelli-sources"
"""The folder in the trainer's Pod with one folder for each Secret and one file for each key in it."""


def find_secret_names(sources: Iterable[Source]) -> tuple[str, ...]:
    """The Secrets that these sources need, each once, in alphabetical order."""
    return tuple(sorted({item.secret_ref.name for item in sources if item.secret_ref is not None and not item.erased}))
