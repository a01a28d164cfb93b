"""Kubeconfig files: building and writing them.

Owns their shape and their file mode. Credentials are referred to by path, except a bearer token that has no file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_local.certificates import KeyPair


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who a kubeconfig speaks for: a client certificate, a token, or a file that holds the current token."""

    certificate: KeyPair | None = None
    token: str | None = None
    token_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ApiAddress:
    """Where the API server answers, and the authority that vouches for it."""

    url: str
    authority: Path


def build_kubeconfig(address: ApiAddress, credentials: Credentials, *, namespace: str = "default") -> dict[str, Any]:
    user: dict[str, Any] = {}
    if credentials.certificate is not None:
        user["client-certificate"] = str(credentials.certificate.certificate)
        user["client-key"] = str(credentials.certificate.key)
    if credentials.token is not None:
        user["token"] = credentials.token
    if credentials.token_file is not None:
        user["tokenFile"] = str(credentials.token_file)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ocelli-local",
        "clusters": [
            {
                "name": "ocelli-local",
                "cluster": {"server": address.url, "certificate-authority": str(address.authority)},
            }
        ],
        "users": [{"name": "ocelli-local", "user": user}],
        "contexts": [
            {
                "name": "ocelli-local",
                "context": {"cluster": "ocelli-local", "user": "ocelli-local", "namespace": namespace},
            }
        ],
    }


def save_kubeconfig(path: Path, kubeconfig: dict[str, Any]) -> Path:
    """Write atomically and readable by the owner only. JSON is YAML, and needs no YAML library to read back."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(kubeconfig, file, indent=1)
    temporary.replace(path)
    return path
