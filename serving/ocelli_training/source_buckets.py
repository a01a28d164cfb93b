"""Objects of buckets that the author of a Classifier chose, through `obstore`.

Unlike the object store of the installation, such a bucket gets no credentials from the environment: only those of a Secret that
names it, those of the Pod's identity if the installation names it, or none. Every connection goes through a `GuardedProxy`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from ocelli_http.guarded_client import ConnectionRules
from ocelli_http.guarded_proxy import GuardedProxy, ProxyLimits
from ocelli_storage.archives import MEGABYTE
from ocelli_training.cloud_identity import CloudIdentity
from ocelli_training.source_downloads import describe_refusal
from ocelli_training.source_secrets import SourceSecret
from ocelli_training.sources import SourceChangedError, SourceError, SourceLimits

_Store: TypeAlias = S3Store | GCSStore | AzureStore

_LISTING_BYTES_LIMIT = 16 * MEGABYTE
"""Of one page of a listing, which is in memory as a whole. A thousand keys of 1024 bytes take about 2 MB."""
_HEADER_BYTES = MEGABYTE
"""Headers of an answer. Encryption and chunks add less than a sixteenth."""
_DEFAULT_REGION = "us-east-1"
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")
_STATUS = re.compile(r"(?:status code: |status: )([0-9]{3})")
_TRANSIENT_STATUSES = frozenset({408, 429})
_CHANGED = "it was changed while the source was read; try again when the source is complete"
_NOT_FOUND = "there is no such object, or no such bucket; correct the address"
_OTHER_PLACE = (
    "because the bucket is in another region or at another endpoint; set AWS_REGION, or AWS_ENDPOINT_URL, in the Secret of the "
    "source"
)
_NO_BUCKET = "the server does not answer as a bucket does; correct the address, or the endpoint in the Secret of the source"
_REDIRECTS = frozenset({301, 302, 307, 308})


@dataclass(frozen=True, kw_only=True)
class BucketObject:
    """An object in a listing."""

    key: str
    size_bytes: int
    etag: str | None


@dataclass(frozen=True, kw_only=True)
class PodIdentity:
    """The cloud identity of the trainer's Pod, and for which buckets the installation lets sources use it."""

    buckets: frozenset[str]
    """Such as `s3://training`."""
    cloud: CloudIdentity


class Buckets:
    """Clients of the buckets of sources, one for each bucket and Secret."""

    def __init__(self, rules: ConnectionRules, identity: PodIdentity) -> None:
        self._rules = rules
        self._identity = identity
        self._resources = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: dict[tuple[str, str, bool], _Client] = {}

    async def close(self) -> None:
        await self._resources.aclose()

    async def read(
        self, url: str, limits: SourceLimits, secret: SourceSecret | None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """The bytes of an object in chunks. With `etag`, only if it still has this one.

        Raises:
            SourceError: they cannot be fetched. The message is fact and remedy, without the address.
        """
        client = await self._open(url, limits, secret)
        key = _find_key(url)
        if not key:
            raise SourceError("it names a bucket without an object; add the object's key, or end the address with /")
        with client.readable_errors(listed=etag is not None):
            async with asyncio.timeout(limits.fetch_seconds):
                result = await obstore.get_async(client.store, key, options={} if etag is None else {"if_match": etag})
            limits.check_size(result.meta["size"])
            deadline = asyncio.get_running_loop().time() + limits.fetch_seconds
            stream = aiter(result.stream(min_chunk_size=MEGABYTE))
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(stream)
                except StopAsyncIteration:
                    return
                yield bytes(chunk)

    async def list_objects(self, url: str, limits: SourceLimits, secret: SourceSecret | None) -> list[BucketObject]:
        """Every object below a URL that ends in `/`, with their keys in the bucket, in alphabetical order.

        Raises:
            SourceError: they cannot be listed, or are too many.
        """
        client = await self._open(url, limits, secret, listing=True)
        found: list[BucketObject] = []
        prefix = _find_key(url)
        with client.readable_errors():
            async with asyncio.timeout(limits.fetch_seconds):
                async for chunk in obstore.list(client.store, prefix=prefix or None):
                    found += [
                        BucketObject(key=item["path"], size_bytes=item["size"], etag=item["e_tag"] or None) for item in chunk
                    ]
                    if len(found) > limits.archive.entries:
                        raise SourceError(
                            f"there are more than {limits.archive.entries} objects; split them into several prefixes"
                        )
        return sorted(found, key=lambda item: item.key)

    async def _open(self, url: str, limits: SourceLimits, secret: SourceSecret | None, *, listing: bool = False) -> _Client:
        parts = urlsplit(url)
        scheme, bucket = parts.scheme.lower(), parts.netloc
        if not _BUCKET_NAME.fullmatch(bucket):
            raise SourceError(f"it has no valid bucket; write it as {scheme}://BUCKET/KEY or {scheme}://BUCKET/PREFIX/")
        place = (f"{scheme}://{bucket}", "" if secret is None else secret.name, listing)
        async with self._opening:
            if place not in self._clients:
                self._clients[place] = await self._connect(scheme, bucket, secret, limits, listing=listing)
        return self._clients[place]

    async def _connect(
        self, scheme: str, bucket: str, secret: SourceSecret | None, limits: SourceLimits, *, listing: bool
    ) -> _Client:
        by_identity = secret is None and f"{scheme}://{bucket}" in self._identity.buckets
        if by_identity:
            config: dict[str, Any] = {**self._identity.cloud.find_config(scheme)}
        else:
            config = _CONFIGURE[scheme]({} if secret is None else secret.values)
        client: dict[str, Any] = {
            "allow_http": str(config.get("endpoint", config.get("base_url", ""))).startswith("http://"),
            "connect_timeout": timedelta(seconds=limits.connect_seconds),
            "read_timeout": timedelta(seconds=limits.silence_seconds),
            "timeout": timedelta(seconds=limits.fetch_seconds),
            "user_agent": "ocelli-trainer",
            # Each connection has its own limit of bytes.
            "pool_max_idle_per_host": "0",
        }
        if self._rules.certificates:
            client["root_certificate"] = self._rules.certificates
        proxy: GuardedProxy | None = None
        if not by_identity:
            received = _LISTING_BYTES_LIMIT if listing else limits.zip_bytes + limits.zip_bytes // 16 + _HEADER_BYTES
            bounds = ProxyLimits(
                connect_seconds=limits.connect_seconds, received_bytes=received, hosts=_find_hosts(scheme, config)
            )
            proxy = await self._resources.enter_async_context(
                GuardedProxy(self._rules.networks, upstream=self._rules.proxy_url, limits=bounds)
            )
            client["proxy_url"] = proxy.url
        elif self._rules.proxy_url:
            # The clouds' metadata servers, which give the identity's tokens, are not behind a proxy.
            client |= {"proxy_url": self._rules.proxy_url, "proxy_excludes": "169.254.0.0/16,metadata.google.internal"}
        try:
            # The source's reader retries; here it would be hidden, and retried again.
            retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=limits.fetch_seconds)}
            store = _STORES[scheme](bucket, config=config, client_options=client, retry_config=retries)
        except (BaseError, UnknownConfigurationKeyError, ValueError) as error:
            # Its message may contain the credentials.
            name = "the identity of the Pod" if secret is None else f'Secret "{secret.name}"'
            raise SourceError(f"the settings in {name} are not valid; correct its keys for {scheme}://") from error
        return _Client(store=store, proxy=proxy, secret=secret, by_identity=by_identity)


@dataclass(frozen=True, kw_only=True)
class _Client:
    store: _Store
    proxy: GuardedProxy | None
    secret: SourceSecret | None
    by_identity: bool

    @contextmanager
    def readable_errors(self, *, listed: bool = False) -> Iterator[None]:
        """Raise SourceError for the errors of obstore, whose messages may contain addresses with credentials.

        `listed`: the object was in a listing.
        """
        try:
            yield
        except (ValueError, InvalidPathError) as error:
            # obstore checks paths before it sends anything.
            raise SourceError("its path is not valid; write it without empty parts, . and ..") from error
        except (BaseError, FileNotFoundError) as error:
            refusal = None if self.proxy is None else self.proxy.refusal
            if refusal is not None and refusal.other_host:
                raise SourceError(f"the server redirects, {_OTHER_PLACE}") from error
            if refusal is not None and refusal.too_large:
                raise SourceError(_NO_BUCKET) from error
            if refusal is not None:
                raise describe_refusal(refusal) from error
            raise self._describe(error, listed=listed) from error
        except TimeoutError as error:
            raise _timed_out() from error

    def _describe(self, error: Exception, *, listed: bool) -> SourceError:
        if listed and isinstance(error, FileNotFoundError | PreconditionError):
            return SourceChangedError(_CHANGED, transient=True)
        if isinstance(error, FileNotFoundError):
            return SourceError(_NOT_FOUND)
        answer = _STATUS.search(str(error))
        status = int(answer[1]) if answer is not None else 0
        if status in (401, 403) or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return SourceError(self._describe_refused_access())
        if answer is None:
            return _describe_connection(str(error))
        if status in _TRANSIENT_STATUSES or status >= 500:
            return SourceError(f"the server answered {status}; try again when it is available", transient=True)
        if status == 404:
            return SourceError(_NOT_FOUND)
        if status in _REDIRECTS:
            return SourceError(f"the server redirects ({status}), {_OTHER_PLACE}")
        return SourceError(f"the server answered {status}; correct the address, or the settings in the Secret of the source")

    def _describe_refused_access(self) -> str:
        if self.secret is not None:
            return f'the server refuses the credentials in Secret "{self.secret.name}"; correct them, or their permissions'
        if self.by_identity:
            return "the server refuses the identity of the trainer's Pod; give its ServiceAccount access to the bucket"
        return "the bucket is not public; name a Secret with its credentials in secretRef"


def _describe_connection(text: str) -> SourceError:
    lower = text.lower()
    if "certificate" in lower:
        return SourceError(
            "the server's certificate is not trusted; install a trusted certificate there, or use another address"
        )
    if "header missing from response" in lower:
        # Such as the length of an object.
        return SourceError(_NO_BUCKET)
    if "timed out" in lower or "kind: timeout" in lower:
        return _timed_out()
    if "redirect" in lower:
        return SourceError(f"the server redirects, {_OTHER_PLACE}")
    if "body error" in lower or "kind: interrupted" in lower:
        return SourceError("the connection was interrupted; try again when the server is available", transient=True)
    return SourceError("the connection failed; check the address and that the server is running", transient=True)


def _timed_out() -> SourceError:
    return SourceError("the server did not answer in time; try again when it is available", transient=True)


def _find_hosts(scheme: str, config: Mapping[str, Any]) -> frozenset[str]:
    """The hosts that a client needs, by its configuration; others could only come from a redirect."""
    urls = [config.get("endpoint"), config.get("base_url")]
    if scheme == "az" and "endpoint" not in config:
        urls.append(f"https://{config['account_name']}.blob.core.windows.net")
    if scheme == "gs":
        urls += ["https://storage.googleapis.com", "https://oauth2.googleapis.com", "https://www.googleapis.com"]
    try:
        return frozenset(urlsplit(url).hostname or "" for url in urls if url)
    except ValueError as error:
        raise SourceError("the endpoint in the Secret is not a valid URL; correct it") from error


def _find_key(url: str) -> str:
    return unquote(urlsplit(url).path).strip("/")


def _configure_s3(values: Mapping[str, str]) -> dict[str, Any]:
    region = values.get("AWS_REGION") or _DEFAULT_REGION
    config: dict[str, Any] = {
        "region": region,
        "endpoint": values.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com",
        "virtual_hosted_style_request": False,
    }
    pair = {
        "access_key_id": values.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": values.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": values.get("AWS_SESSION_TOKEN"),
    }
    if any(pair.values()):
        return config | {name: value for name, value in pair.items() if value}
    return config | {"skip_signature": True}


def _configure_gs(values: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if values.get("GOOGLE_ENDPOINT_URL"):
        config["base_url"] = values["GOOGLE_ENDPOINT_URL"]
    if values.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
        return config | {"service_account_key": values["GOOGLE_SERVICE_ACCOUNT_KEY"]}
    return config | {"skip_signature": True}


def _configure_az(values: Mapping[str, str]) -> dict[str, Any]:
    names = {
        "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
        "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
        "AZURE_STORAGE_SAS_KEY": "sas_key",
        "AZURE_STORAGE_ENDPOINT": "endpoint",
    }
    config: dict[str, Any] = {name: values[key] for key, name in names.items() if values.get(key)}
    if "account_name" not in config:
        raise SourceError("the storage account is not known; set AZURE_STORAGE_ACCOUNT_NAME in the Secret of the source")
    return config if {"account_key", "sas_key"} & config.keys() else config | {"skip_signature": True}


_CONFIGURE = {"s3": _configure_s3, "gs": _configure_gs, "az": _configure_az}
_STORES: Mapping[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
