"""Reading what a Pod names: ConfigMaps, Secrets, and tokens of its ServiceAccount.

Owns the retries that hide how the Node authorizer lags a binding: a Pod just seen may get 403 for some milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from ocelli_local.api_client import ApiClient, ApiError
from ocelli_local.manifests import Manifest

AUTHORIZER_LAG_SECONDS = 2.0


class ObjectUnavailableError(Exception):
    """A ConfigMap, Secret or token can't be had now; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Token:
    value: str
    expires: float


class PodObjects:
    """The objects of one Pod, read as the node."""

    def __init__(self, client: ApiClient, pod: Manifest) -> None:
        self._client = client
        self._pod = pod
        self._namespace = f"/api/v1/namespaces/{pod['metadata']['namespace']}"

    async def read_config_map(self, name: str) -> dict[str, bytes] | None:
        """Contents by key; None if there is no such ConfigMap."""
        found = await self._read(f"{self._namespace}/configmaps/{name}", f'configmap "{name}"')
        if found is None:
            return None
        return {
            **{key: value.encode() for key, value in (found.get("data") or {}).items()},
            **{key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()},
        }

    async def read_secret(self, name: str) -> dict[str, bytes] | None:
        """Contents by key; None if there is no such Secret."""
        found = await self._read(f"{self._namespace}/secrets/{name}", f'secret "{name}"')
        return None if found is None else {key: base64.b64decode(v) for key, v in (found.get("data") or {}).items()}

    async def request_token(self, *, audience: str | None, expiration_seconds: int) -> Token:
        """A token of the Pod's ServiceAccount that is good for as long as the Pod is there."""
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        spec: Manifest = {
            "expirationSeconds": expiration_seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
        }
        if audience:
            spec["audiences"] = [audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"{self._namespace}/serviceaccounts/{account}/token"
        answer = await self._retry_forbidden(lambda: self._client.create(path, body), f'token of serviceaccount "{account}"')
        status = answer["status"]
        return Token(value=status["token"], expires=datetime.fromisoformat(status["expirationTimestamp"]).timestamp())

    async def _read(self, path: str, what: str) -> Manifest | None:
        try:
            return await self._retry_forbidden(lambda: self._client.get(path), what)
        except ObjectUnavailableError as error:
            if isinstance(error.__cause__, ApiError) and error.__cause__.status == 404:
                return None
            raise

    async def _retry_forbidden(self, request: Callable[[], Awaitable[Manifest]], what: str) -> Manifest:
        deadline = time.monotonic() + AUTHORIZER_LAG_SECONDS
        delay = 0.01
        while True:
            try:
                return await request()
            except ApiError as error:
                if error.status != 403 or time.monotonic() > deadline:
                    raise ObjectUnavailableError(f"{what}: {error.message}") from error
            except (OSError, TimeoutError) as error:
                raise ObjectUnavailableError(f"{what}: {error}") from error
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.2)
