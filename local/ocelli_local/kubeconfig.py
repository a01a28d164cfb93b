"""Kubeconfig files: their content and their file mode."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.certificates import KeyPair
from ocelli_local.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class ApiAddress:
    """URL of the API server, and the certificate of its authority."""

    url: str
    authority: Path


def build_certificate_user(pair: KeyPair) -> dict[str, str]:
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


def build_kubeconfig(address: ApiAddress, user: Mapping[str, str], *, namespace: str = "default") -> Manifest:
    """`user` contains the credentials: a client certificate, a token, or the file of a token."""
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
        "users": [{"name": "ocelli-local", "user": dict(user)}],
        "contexts": [
            {
                "name": "ocelli-local",
                "context": {"cluster": "ocelli-local", "user": "ocelli-local", "namespace": namespace},
            }
        ],
    }


def save_kubeconfig(path: Path, kubeconfig: Manifest) -> Path:
    """Write atomically, readable by the owner only. JSON is YAML, and is read without a YAML library."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(kubeconfig, file, indent=1)
    temporary.replace(path)
    return path
