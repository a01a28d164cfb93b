"""The Kubernetes API as Ocelli calls it: typed errors, dicts in and out, server-side apply, raw watch streams.

Configuration, TLS and connections are those of the official package (`kubernetes.aio`); its generated models and its dynamic
client are not used, because they copy every object several times. It must not know what the objects mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from ocelli_api.classifier import Manifest
from ocelli_cluster.resources import Resource

APPLY_CONTENT_TYPE = "application/apply-patch+yaml; charset=utf-8"
"""With its parameter, which the API server drops: the official package writes bodies of the bare type itself, as JSON that
escapes characters outside the Basic Multilingual Plane by surrogate pairs. YAML has none, and the API server refuses them."""
MERGE_PATCH_CONTENT_TYPE = "application/merge-patch+json"

CREDENTIALS_LIFE_SECONDS = 60.0
"""Projected ServiceAccount tokens rotate; files are read again after this time, and at once after a 401."""
REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
PAGE_SIZE = 100
"""Parsed objects take six times their JSON, and each list of a start has one page of them in memory at a time."""
CONNECTIONS_LIMIT = 200
"""For requests. Each watch holds a connection for as long as it lasts, so that watches have a pool of their own, without a
limit: there are as many as whoever opens them wants."""
THROTTLED_ATTEMPTS = 4
"""429 means that the server did nothing, hence any method may be sent again after the pause it asks for."""
THROTTLED_PAUSE_LIMIT_SECONDS = 5.0

_DENIED = re.compile("denied (the )?request")
"""As the API server words it where an admission webhook or an admission policy says no."""
_RIGHT_MISSING = re.compile('User "[^"]*" cannot ')
_ESCAPED_IN_YAML = re.compile("[\x7f-\uffff]")
"""Some of these may not stand in YAML as they are, others end a line. What lies above may, and has no short escape."""

_WRITING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ClusterError(Exception):
    """The Kubernetes API did not do what it was asked to."""


class UnreachableError(ClusterError):
    """No answer came: nobody knows whether a write took effect."""


class CredentialsError(ClusterError):
    """There is no way to log in."""


class ApiError(ClusterError):
    """The API server refused. `status` is the HTTP code, `reason` the API's word for it, `message` its sentence."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason


class NotFoundError(ApiError):
    """404: no such object (or no such kind)."""


class ConflictError(ApiError):
    """409: it exists already, or somebody changed it since it was read, or another field manager owns the field."""

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"


class GoneError(ApiError):
    """410: the resourceVersion is too old to watch from; list again."""


class InvalidError(ApiError):
    """422 (and 400): the object breaks its schema or a rule."""


class ForbiddenError(ApiError):
    """403: the right is missing."""


class AdmissionError(ForbiddenError):
    """The right is there, but admission refuses this object now: a webhook, a policy, a LimitRange, a namespace that ends."""


class QuotaError(AdmissionError):
    """403: a ResourceQuota of the namespace has no room for the object now."""


_ERRORS: Mapping[int, type[ApiError]] = {
    400: InvalidError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What it takes to log in, for libraries that keep connections of their own."""

    server: str
    ca_path: str | None
    insecure: bool
    authorization: str | None
    """Value of the `Authorization` header."""
    certificate_path: str | None
    private_key_path: str | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All objects of a kind at one moment."""

    items: tuple[Manifest, ...]
    resource_version: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the objects of a list."""

    items: Sequence[Manifest]
    resource_version: str
    """Of the whole list."""
    first: bool
    """A list begins with it. One that begins anew, because its history was compacted half-way, replaces what came before."""


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """One line of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Manifest


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What is sent."""

    method: str
    url: str
    timeout: aiohttp.ClientTimeout
    body: Manifest | str | None = None
    content_type: str = "application/json"


class ClusterClient:
    """Connections to one API server. Build it with `connect`, inside the event loop that uses it."""

    def __init__(self, configuration: Configuration, load: Callable[[Configuration], Any]) -> None:
        self._configuration = configuration
        self._load = load
        self._loaded_at = time.monotonic()
        self._loading = asyncio.Lock()
        self._requests = _open_pool(configuration, CONNECTIONS_LIMIT)
        self._watches = _open_pool(configuration, 0)
        self._apart: list[ClusterClient] = []
        self.on_write: Callable[[str, str], None] | None = None
        """Called with method and plural before every request that writes; what it raises keeps the request from being sent."""

    @classmethod
    async def connect(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Log in with the file that `KUBECONFIG` names, else with the ServiceAccount of the Pod. Sends nothing yet.

        Never falls back to `~/.kube/config`: no part of Ocelli acts on a cluster that nobody named.

        Raises:
            CredentialsError: neither is there, or it cannot be read.
        """
        kubeconfig = environment.get("KUBECONFIG")

        async def load(configuration: Configuration) -> None:
            try:
                if kubeconfig:
                    await kubernetes_config.load_kube_config(
                        config_file=kubeconfig, client_configuration=configuration, persist_config=False
                    )
                else:
                    kubernetes_config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
            except (kubernetes_config.ConfigException, OSError) as error:
                place = f"the kubeconfig {kubeconfig!r}" if kubeconfig else "the ServiceAccount of this Pod"
                raise CredentialsError(f"cannot log in to Kubernetes with {place}: {error}; set KUBECONFIG") from error

        configuration = Configuration()
        # Retries belong to the callers, who know whether a second write does harm.
        configuration.retries = None
        await load(configuration)
        return cls(configuration, load)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, those of clients made by `apart` too."""
        for client in (self._requests, self._watches, *self._apart):
            await client.close()

    def apart(self) -> ClusterClient:
        """A client with the same log-in and connections of its own, for requests that must not wait behind others. It is closed
        with this one."""
        client = ClusterClient(self._configuration, self._load)
        self._apart.append(client)
        return client

    async def credentials(self) -> Credentials:
        """The credentials as of now. Raises CredentialsError."""
        await self._refresh(CREDENTIALS_LIFE_SECONDS)
        configuration = self._configuration
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            authorization=configuration.api_key.get("BearerToken"),
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object. Raises NotFoundError, ApiError, UnreachableError."""
        return await self._call("GET", resource, namespace, name)

    async def accepts(self, resource: Resource) -> bool:
        """Whether objects of a kind of an API group can be made: not while its definition is being deleted with all of them,
        nor after that. Raises ApiError, UnreachableError."""
        url = self._url(f"/apis/{resource.api_version}", {})
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            request = _Request(method="GET", url=url, timeout=timeout)
            answer = await self._read(request, await self._send(request, self._requests))
        except NotFoundError:
            return False
        kinds = answer.get("resources") or ()
        return any(kind["name"] == resource.plural and "create" in (kind.get("verbs") or ()) for kind in kinds)

    async def list_objects(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        *,
        field_selector: str | None = None,
    ) -> Listing:
        """All objects of a namespace, or of every namespace (None), held at once: for few of them, else see `list_pages`.

        Raises ApiError, UnreachableError.
        """
        items: list[Manifest] = []
        resource_version = ""
        async for page in self.list_pages(resource, namespace, label_selector, field_selector=field_selector):
            if page.first:
                items.clear()
            items.extend(page.items)
            resource_version = page.resource_version
        return Listing(items=tuple(items), resource_version=resource_version)

    async def list_pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        *,
        field_selector: str | None = None,
    ) -> AsyncIterator[Page]:
        """The same page by page, all of one moment. Drop a page before asking for the next one to hold at most one.

        Raises ApiError, UnreachableError.

        Where the server has compacted the list's moment away between two pages (410) the list begins anew, in one answer.
        """
        selected = {"labelSelector": label_selector} if label_selector else {}
        if field_selector is not None:
            selected["fieldSelector"] = field_selector
        query = {**selected, "limit": str(PAGE_SIZE)}
        first = True
        while True:
            try:
                page = await self._call("GET", resource, namespace, query=query)
            except GoneError:
                if "continue" not in query:
                    raise
                # As client-go does: pages that always come too late for the next one would never end.
                query, first = selected, True
                continue
            metadata = page.get("metadata") or {}
            yield Page(items=page.get("items") or (), resource_version=metadata.get("resourceVersion", ""), first=first)
            if not metadata.get("continue"):
                return
            query, first = {**query, "continue": metadata["continue"]}, False
            # The next page is read and parsed while this name would still hold the last one.
            del page

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Manifest,
        *,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> Manifest:
        """Create an object, in a namespace where its kind has them; the answer is what was stored.

        Raises:
            ConflictError, InvalidError, ApiError: it exists; it breaks its schema or a rule; anything else.

        A dry run checks everything and stores nothing.
        """
        query = ({"fieldManager": field_manager} if field_manager else {}) | ({"dryRun": "All"} if dry_run else {})
        return await self._call("POST", resource, namespace, query=query, body=body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        """Replace an object; with `metadata.resourceVersion` in the body only if nobody changed it since (ConflictError)."""
        return await self._call("PUT", resource, namespace, name, body=body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, *, field_manager: str | None = None
    ) -> Manifest:
        """Merge a patch (RFC 7386); with `metadata.resourceVersion` only if nobody changed the object since (ConflictError)."""
        query = {"fieldManager": field_manager} if field_manager else {}
        return await self._call(
            "PATCH", resource, namespace, name, query=query, body=patch, content_type=MERGE_PATCH_CONTENT_TYPE
        )

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Manifest,
        *,
        field_manager: str,
        subresource: str | None = None,
    ) -> Manifest:
        """Server-side apply, taking over fields of other managers. With `metadata.resourceVersion`: only if it is unchanged;
        with `metadata.uid`: only if it is still that object (ConflictError, also where there is none)."""
        try:
            return await self._call(
                "PATCH",
                resource,
                namespace,
                name,
                subresource=subresource,
                query={"fieldManager": field_manager, "force": "true"},
                body=_write_yaml({"apiVersion": resource.api_version, "kind": resource.kind, **body}),
                content_type=APPLY_CONTENT_TYPE,
            )
        except InvalidError as error:
            # So the API server words it where the object is another one; where there is none it answers 409.
            if "metadata.uid: Invalid value" in error.message:
                raise ConflictError(409, error.message, "Conflict") from error
            raise

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str | None = None, resource_version: str | None = None
    ) -> None:
        """Delete an object and, in the background, what it owns. Raises NotFoundError, ConflictError (another uid)."""
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if preconditions:
            body["preconditions"] = preconditions
        await self._call("DELETE", resource, namespace, name, body=body)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None,
        label_selector: str | None,
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """An open watch, which the server ends after the timeout.

        Raises:
            GoneError, ApiError, UnreachableError: at once, or while its events are read.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        # The server ends the stream; the client's own limit is for connections that died without a word.
        timeout = aiohttp.ClientTimeout(total=timeout_seconds + 10, sock_connect=CONNECT_TIMEOUT_SECONDS)
        request = _Request(method="GET", url=self._url(resource.path(namespace), query), timeout=timeout)
        response = await self._send(request, self._watches)
        try:
            yield _watch_events(response)
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Manifest | str | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        if self.on_write is not None and method in _WRITING_METHODS:
            self.on_write(method, resource.plural)
        url = self._url(resource.path(namespace, name, subresource), query or {})
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        request = _Request(method=method, url=url, timeout=timeout, body=body, content_type=content_type)
        return await self._read(request, await self._send(request, self._requests))

    async def _read(self, request: _Request, response: aiohttp.ClientResponse) -> Manifest:
        try:
            answer = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(
                f"the answer of the Kubernetes API to {request.method} {request.url} broke off: {error!r}"
            ) from error
        if not isinstance(answer, dict):
            raise UnreachableError(f"the Kubernetes API answered {request.method} {request.url} with no object")
        return answer

    async def _send(self, request: _Request, pool: RESTClientObject) -> aiohttp.ClientResponse:
        """The response to a request that succeeded, its body unread."""
        await self._refresh(CREDENTIALS_LIFE_SECONDS)
        renewed = False
        attempt = 1
        while True:
            headers = {"Accept": "application/json", "Content-Type": request.content_type, "User-Agent": "ocelli"}
            authorization = self._configuration.api_key.get("BearerToken")
            if authorization:
                headers["Authorization"] = authorization
            try:
                answer = await pool.request(
                    request.method, request.url, headers=headers, body=request.body, _request_timeout=request.timeout
                )
                response: aiohttp.ClientResponse = answer.response
                if response.status < 400:
                    return response
                text = await response.text(errors="replace")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise UnreachableError(
                    f"the Kubernetes API did not answer {request.method} {request.url}: {error!r}"
                ) from error
            if response.status == 401 and not renewed:
                renewed = True
                await self._refresh(0.0)
            elif response.status == 429 and attempt < THROTTLED_ATTEMPTS:
                attempt += 1
                await asyncio.sleep(_pause_seconds(response))
            else:
                raise _error(response.status, text)

    async def _refresh(self, life_seconds: float) -> None:
        if time.monotonic() - self._loaded_at < life_seconds:
            return
        async with self._loading:
            if time.monotonic() - self._loaded_at < life_seconds:
                return
            self._loaded_at = time.monotonic()
            await self._load(self._configuration)

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")


def _write_yaml(body: Manifest) -> str:
    """JSON that is YAML 1.1, too. A lone surrogate is replaced, as the API server does in JSON."""
    return _ESCAPED_IN_YAML.sub(_escape_in_yaml, json.dumps(body, ensure_ascii=False))


def _escape_in_yaml(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{0xFFFD if 0xD800 <= code <= 0xDFFF else code:04x}"


def _open_pool(configuration: Configuration, limit: int) -> RESTClientObject:
    """At most so many connections at a time; 0: any number."""
    pool = RESTClientObject(configuration)
    pool.maxsize = limit
    return pool


async def _watch_events(response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
    while True:
        try:
            line = await response.content.readline()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"a watch broke off: {error!r}") from error
        if not line:
            return
        try:
            event = json.loads(line)
        except ValueError as error:
            # A server that stops may cut the last line.
            raise UnreachableError(f"a watch broke off within a line: {error}") from error
        if event["type"] == "ERROR":
            status = event["object"]
            code = status.get("code", 500)
            raise _ERRORS.get(code, ApiError)(code, status.get("message", ""), status.get("reason", ""))
        yield WatchEvent(type=event["type"], object=event["object"])


def _pause_seconds(response: aiohttp.ClientResponse) -> float:
    try:
        wanted = float(response.headers.get("Retry-After", "1"))
    except ValueError:
        wanted = 1.0
    return min(max(wanted, 0.1), THROTTLED_PAUSE_LIMIT_SECONDS)


def _error(status: int, text: str) -> ApiError:
    message, reason = text.strip()[:500], ""
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            message, reason = document.get("message", message), document.get("reason", "")
    except ValueError:
        pass
    # Status and reason are those of a missing right or, where a policy or webhook chose them, any; only the sentence tells.
    if status == 403 and "exceeded quota" in message:
        return QuotaError(status, message, reason)
    forbidden = status == 403 and " is forbidden: " in message and _RIGHT_MISSING.search(message) is None
    if forbidden or _DENIED.search(message):
        return AdmissionError(status, message, reason)
    return _ERRORS.get(status, ApiError)(status, message, reason)
