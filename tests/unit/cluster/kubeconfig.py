"""A kubeconfig for a stand-in of the API server."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_kubeconfig(folder: Path, port: int) -> dict[str, str]:
    """The environment of a client that reaches a server without TLS on this port of 127.0.0.1."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    return {"KUBECONFIG": str(path)}
