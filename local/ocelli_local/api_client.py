"""A small client of the Kubernetes API over aiohttp: what the process node and the cluster handle need, no more.

Owns the connection, errors, watching and server-side apply. It must not know what the objects mean.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp

from ocelli_local.certificates import KeyPair
from ocelli_local.kubeconfig import ApiAddress
from ocelli_local.manifests import Manifest

APPLY_PATCH = "application/apply-patch+yaml"
_ESCAPED_IN_YAML = re.compile("[\x7f-\uffff]")
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, request: str, status: int, body: Manifest) -> None:
        self.status = status
        self.reason: str = body.get("reason") or ""
        self.message: str = body.get("message") or f"HTTP {status}"
        super().__init__(f"{request}: {status} {self.reason}: {self.message}")


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, with the object."""

    type: str
    object: Manifest


class WatchExpiredError(Exception):
    """The watch can't go on from its resource version; list again."""


class ApiClient:
    """One identity's connection. Close it with `close`."""

    def __init__(self, address: ApiAddress, certificate: KeyPair, *, user_agent: str) -> None:
        context = ssl.create_default_context(cafile=str(address.authority))
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._url = address.url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=60, sock_connect=5),
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Manifest:
        return await self._request("GET", path, query=query)

    async def create(self, path: str, body: Manifest) -> Manifest:
        return await self._request("POST", path, body=body)

    async def delete(self, path: str, options: Manifest | None = None) -> Manifest:
        return await self._request("DELETE", path, body=options)

    async def patch(self, path: str, body: Manifest, *, patch_type: str = STRATEGIC_MERGE_PATCH) -> Manifest:
        return await self._request("PATCH", path, body=body, content_type=patch_type)

    async def apply(self, path: str, body: Manifest, *, field_manager: str) -> Manifest:
        """Server-side apply; takes over fields that another manager has."""
        query = {"fieldManager": field_manager, "force": "true"}
        return await self._request("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    async def watch(
        self, path: str, *, resource_version: str, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`, until the server ends the watch; raises WatchExpiredError on 410."""
        parameters = {
            **(query or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": "300",
        }
        # A dead API server says nothing: bookmarks come every minute, so a silence of 90 s means the connection died.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
        async with self._session.get(self._url + path, params=parameters, timeout=timeout) as response:
            if response.status >= 400:
                await self._raise_for_status(f"WATCH {path}", response)
            rest = b""
            # Objects may be larger than aiohttp's longest line, so lines are cut here.
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        if event["object"].get("code") == 410:
                            raise WatchExpiredError(event["object"].get("message", ""))
                        raise ApiError(f"WATCH {path}", event["object"].get("code", 500), event["object"])
                    yield WatchEvent(type=event["type"], object=event["object"])

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        write = _write_yaml if content_type == APPLY_PATCH else json.dumps
        data = None if body is None else write(body).encode()
        headers = {} if body is None else {"Content-Type": content_type}
        for attempt in range(5):
            async with self._session.request(method, self._url + path, params=query, data=data, headers=headers) as response:
                # 429 is the server's word for "not now": for a moment after a CRD was made, and under load.
                if response.status == 429 and attempt < 4:
                    await asyncio.sleep(min(float(response.headers.get("Retry-After", "1")), 1.0))
                    continue
                if response.status >= 400:
                    await self._raise_for_status(f"{method} {path}", response)
                answer: Manifest = await response.json()
                return answer
        raise AssertionError("unreachable")

    async def _raise_for_status(self, request: str, response: aiohttp.ClientResponse) -> None:
        text = await response.text()
        try:
            body = json.loads(text)
        except ValueError:
            body = {"message": text[:500]}
        if response.status == 410:
            raise WatchExpiredError(body.get("message", ""))
        raise ApiError(request, response.status, body if isinstance(body, dict) else {})


def _write_yaml(body: Manifest) -> str:
    """JSON that is YAML, too: no character above U+FFFF is escaped by a surrogate pair. YAML proper would leave the quotes off
    texts such as 0123456789, which the API server then takes for numbers."""
    return _ESCAPED_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(body, ensure_ascii=False))
