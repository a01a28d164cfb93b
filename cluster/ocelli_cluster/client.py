"""The Kubernetes API as Ocelli calls it: typed errors, dicts in and out, server-side apply, raw watch streams.

Configuration, TLS and connections come from the official package (`kubernetes.aio`). Its generated models and dynamic client
are not used, because they copy every object several times. This module must not know what the objects mean.
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
"""With a parameter, which the API server ignores: without one the official package serializes the body itself, as JSON that
escapes characters outside the Basic Multilingual Plane as surrogate pairs. YAML has no surrogate pairs, and the API server
rejects them."""
MERGE_PATCH_CONTENT_TYPE = "application/merge-patch+json"

CREDENTIALS_LIFE_SECONDS = 60.0
"""Projected ServiceAccount tokens rotate: the files are read again after this time, and immediately after a 401."""
REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
PAGE_SIZE = 100
"""Parsed objects need six times the memory of their JSON, and at startup each list has one page of them in memory."""
CONNECTIONS_LIMIT = 200
"""For requests. Each watch holds a connection for its whole life, so watches have a separate pool without a limit."""
THROTTLED_ATTEMPTS = 4
"""429 means that the server did nothing, so any method may be sent again after the pause that it asks for."""
THROTTLED_PAUSE_LIMIT_SECONDS = 5.0

_DENIED = re.compile("denied (the )?request")
"""The API server's wording when an admission webhook or an admission policy denies a request."""
_RIGHT_MISSING = re.compile('User "[^"]*" cannot ')
_ESCAPED_IN_YAML = re.compile("[\x7f-\uffff]")
"""YAML forbids some of these unescaped, and treats others as line breaks. Characters above are allowed as they are."""

_WRITING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ClusterError(Exception):
    """A request to the Kubernetes API failed."""


class UnreachableError(ClusterError):
    """No answer arrived. A write may or may not have taken effect."""


class CredentialsError(ClusterError):
    """There are no usable credentials."""


class ApiError(ClusterError):
    """The API server rejected the request: `status` is the HTTP code, `reason` and `message` are those of its Status object."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason


class NotFoundError(ApiError):
    """404: the object, or its kind, does not exist."""


class ConflictError(ApiError):
    """409: the object already exists, was changed since it was read, or has a field that another field manager owns."""

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"


class GoneError(ApiError):
    """410: the resourceVersion has expired; list again."""


class InvalidError(ApiError):
    """422 (and 400): the object violates its schema or a validation rule."""


class ForbiddenError(ApiError):
    """403: a right is missing."""


class AdmissionError(ForbiddenError):
    """The right exists, but admission denies this object now: a webhook, a policy, a LimitRange, a terminating namespace."""


class QuotaError(AdmissionError):
    """403: the object would exceed a ResourceQuota of its namespace."""


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
    """How to log in, for libraries with their own connections: the arguments of `kopf.ConnectionInfo`."""

    server: str
    ca_path: str | None
    insecure: bool
    scheme: str | None
    token: str | None
    certificate_path: str | None
    private_key_path: str | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All objects of a list, from one resourceVersion."""

    items: tuple[Manifest, ...]
    resource_version: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list."""

    items: Sequence[Manifest]
    resource_version: str
    """Of the whole list."""
    first: bool
    """The list starts with this page. It replaces earlier pages of a list that restarted because its version was compacted."""


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """One line of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Manifest


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One HTTP request."""

    method: str
    url: str
    body: Manifest | str | None = None
    content_type: str = "application/json"
    timeout_seconds: float = REQUEST_TIMEOUT_SECONDS


class ClusterClient:
    """Connections to one API server. Create it with `connect`, in the event loop that uses it."""

    def __init__(self, configuration: Configuration, load: Callable[[Configuration], Any]) -> None:
        self._configuration = configuration
        self._load = load
        self._loaded_at = time.monotonic()
        self._loading = asyncio.Lock()
        self._requests = _open_pool(configuration, CONNECTIONS_LIMIT)
        self._watches = _open_pool(configuration, 0)
        self._clients: list[ClusterClient] = []
        """Those of `with_own_pool`."""
        self.on_write: Callable[[str, str], None] | None = None
        """Called with method and plural before each write; if it raises, the write is not sent."""

    @classmethod
    async def connect(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the kubeconfig that `KUBECONFIG` names, else the ServiceAccount of the Pod. Sends no request.

        Never falls back to `~/.kube/config`: Ocelli acts only on a cluster that was named explicitly.

        Raises:
            CredentialsError: neither exists, or it cannot be read.
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
        # Callers retry: they know whether a write may be repeated.
        configuration.retries = None
        await load(configuration)
        return cls(configuration, load)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, including those of clients from `with_own_pool`."""
        for client in (self._requests, self._watches, *self._clients):
            await client.close()

    def with_own_pool(self) -> ClusterClient:
        """A client with the same credentials and its own connections, for requests that must not wait behind others. Closing
        this client closes it."""
        client = ClusterClient(self._configuration, self._load)
        self._clients.append(client)
        return client

    async def credentials(self) -> Credentials:
        """The current credentials. Raises CredentialsError."""
        await self._refresh(CREDENTIALS_LIFE_SECONDS)
        configuration = self._configuration
        scheme, _, token = configuration.api_key.get("BearerToken", "").partition(" ")
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object. Raises NotFoundError, ApiError, UnreachableError."""
        return await self._call("GET", resource, namespace, name)

    async def accepts(self, resource: Resource) -> bool:
        """Whether objects of a custom resource can be created: False while its CRD is being deleted with all objects, and
        afterwards. Raises ApiError, UnreachableError."""
        try:
            answer = await self._read(_Request(method="GET", url=self._url(f"/apis/{resource.api_version}")))
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
        """All objects of a namespace, or of every namespace (None), in memory. For many objects use `list_pages`.

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
        """The same list page by page, all of one resourceVersion. Drop each page before asking for the next one.

        If the server compacts that resourceVersion between two pages (410), the list restarts, as a single page.

        Raises ApiError, UnreachableError.
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
                # As client-go does: with pages, a list that is slower than compaction would never end.
                query, first = selected, True
                continue
            metadata = page.get("metadata") or {}
            yield Page(items=page.get("items") or (), resource_version=metadata.get("resourceVersion", ""), first=first)
            if not metadata.get("continue"):
                return
            query, first = {**query, "continue": metadata["continue"]}, False
            # Otherwise this variable would keep the last page alive while the next one is read and parsed.
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
        """Create an object and return it as stored. Objects of cluster-scoped kinds have no namespace. A dry run validates the
        object and stores nothing.

        Raises:
            ConflictError: it already exists.
            InvalidError: it violates its schema or a validation rule.
            ApiError, UnreachableError: any other failure.
        """
        query = ({"fieldManager": field_manager} if field_manager else {}) | ({"dryRun": "All"} if dry_run else {})
        return await self._call("POST", resource, namespace, query=query, body=body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        """Replace an object. With `metadata.resourceVersion` in the body: only if it is unchanged (else ConflictError)."""
        return await self._call("PUT", resource, namespace, name, body=body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, *, field_manager: str | None = None
    ) -> Manifest:
        """Apply a merge patch (RFC 7386). With `metadata.resourceVersion`: only if the object is unchanged (else
        ConflictError)."""
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
        """Server-side apply, which takes over fields of other managers. With `metadata.resourceVersion`: only if the object is
        unchanged. With `metadata.uid`: only if it is still that object. Else ConflictError."""
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
            # The API server's wording for an object with another UID. For a missing object it answers 409.
            if "metadata.uid: Invalid value" in error.message:
                raise ConflictError(409, error.message, "Conflict") from error
            raise

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object and, in the background, the objects that it owns.

        Raises NotFoundError, ConflictError (another UID).
        """
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
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
        """An open watch, which the server closes after the timeout.

        Raises:
            GoneError, ApiError, UnreachableError: immediately, or while its events are read.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        # The server closes the stream. The client's own timeout is for connections that died silently.
        url = self._url(resource.path(namespace), query)
        response = await self._send(_Request(method="GET", url=url, timeout_seconds=timeout_seconds + 10), self._watches)
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
        url = self._url(resource.path(namespace, name, subresource), query)
        return await self._read(_Request(method=method, url=url, body=body, content_type=content_type))

    async def _read(self, request: _Request) -> Manifest:
        """Send a request and return the JSON object in its answer."""
        response = await self._send(request, self._requests)
        try:
            answer = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(
                f"the answer of the Kubernetes API to {request.method} {request.url} is incomplete: {error!r}"
            ) from error
        if not isinstance(answer, dict):
            raise UnreachableError(f"the answer of the Kubernetes API to {request.method} {request.url} is not a JSON object")
        return answer

    async def _send(self, request: _Request, pool: RESTClientObject) -> aiohttp.ClientResponse:
        """The response to a successful request, with its body unread."""
        await self._refresh(CREDENTIALS_LIFE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=request.timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)
        renewed = False
        attempt = 1
        while True:
            headers = {"Accept": "application/json", "Content-Type": request.content_type, "User-Agent": "ocelli"}
            authorization = self._configuration.api_key.get("BearerToken")
            if authorization:
                headers["Authorization"] = authorization
            try:
                answer = await pool.request(
                    request.method, request.url, headers=headers, body=request.body, _request_timeout=timeout
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

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        return f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")


def _write_yaml(body: Manifest) -> str:
    """JSON that is also valid YAML 1.1. Lone surrogates are replaced, as the API server replaces them in JSON."""
    return _ESCAPED_IN_YAML.sub(_escape_in_yaml, json.dumps(body, ensure_ascii=False))


def _escape_in_yaml(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{0xFFFD if 0xD800 <= code <= 0xDFFF else code:04x}"


def _open_pool(configuration: Configuration, limit: int) -> RESTClientObject:
    """At most `limit` connections; 0: unlimited."""
    pool = RESTClientObject(configuration)
    pool.maxsize = limit
    return pool


async def _watch_events(response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
    while True:
        try:
            line = await response.content.readline()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"the watch was interrupted: {error!r}") from error
        if not line:
            return
        try:
            event = json.loads(line)
        except ValueError as error:
            # A server that shuts down may cut off the last line.
            raise UnreachableError(f"the watch was interrupted within a line: {error}") from error
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
    # A denial has the status and reason of a missing right, or any that a policy or webhook chose: only the message differs.
    if status == 403 and "exceeded quota" in message:
        return QuotaError(status, message, reason)
    forbidden = status == 403 and " is forbidden: " in message and _RIGHT_MISSING.search(message) is None
    if forbidden or _DENIED.search(message):
        return AdmissionError(status, message, reason)
    return _ERRORS.get(status, ApiError)(status, message, reason)
