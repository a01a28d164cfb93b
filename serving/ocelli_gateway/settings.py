"""Settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocelli_api.settings import (
    ADDRESS,
    FOLDER,
    LOG_LEVEL,
    NAME,
    NETWORKS,
    PORT,
    STORE_URL,
    TEMPORARY_FOLDER,
    number,
    setting,
)
from ocelli_gateway.quotas import QUOTA_LIMIT, Quota

_COUNT = number(int, 1, 10_000)
_SECONDS = number(float, 0.1, 10_000)
_QUOTA = number(int, 0, QUOTA_LIMIT)


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """All settings."""

    store_url: str = setting("OCELLI_STORE_URL", STORE_URL)
    """Object store: `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`, or `http://host` of the embedded store."""
    credentials_folder: Path = setting("OCELLI_CREDENTIALS_FOLDER", FOLDER)
    """Folder of credential sets, one JSON file each: a mounted Secret. The gateway reads it again when it changes."""
    host: str = setting("OCELLI_GATEWAY_HOST", ADDRESS, "*")
    """Address that the gateway listens on. `*`: all IPv4 and IPv6 addresses."""
    port: int = setting("OCELLI_GATEWAY_PORT", PORT, "8080")
    """Port that the gateway listens on."""
    internal_port: int = setting("OCELLI_GATEWAY_INTERNAL_PORT", PORT, "9090")
    """Port of `/healthz`, `/livez`, `/readyz` and `/metrics`, which need no credentials."""
    upload_folder: Path = setting("OCELLI_UPLOAD_FOLDER", TEMPORARY_FOLDER, "")
    """Folder for uploads while they are checked. It must hold all concurrent uploads. Empty: the system's temporary folder."""
    connections: int = setting("OCELLI_GATEWAY_MAX_CONNECTIONS", number(int, 8, 100_000), "1000")
    """Open connections. Each takes up to a third of a megabyte. When there are more, the gateway closes the one that has been
    idle longest, or answers 503 if all of them have a request of a known user. At most an eighth of them wait in one queue of
    one tenant. Further requests are answered with 429."""
    trusted_proxies: str = setting("OCELLI_GATEWAY_TRUSTED_PROXIES", NETWORKS, "")
    """Networks of the proxies whose `X-Forwarded-For` header is trusted. It gives the address of the client, by which failed
    log-ins are limited. Empty: all requests that come through a proxy have its address."""
    max_concurrent_uploads: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS", _COUNT, "16")
    """Create and retrain requests (up to 256 MB) that are read at the same time. Further ones wait."""
    max_concurrent_classify_requests: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_CLASSIFY_REQUESTS", _COUNT, "64")
    """Classify requests (up to 110 MB) that are handled at the same time. Further ones wait."""
    max_concurrent_images: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_IMAGES", _COUNT, "32")
    """Images (up to 10 MB) held in memory at the same time. Further ones wait."""
    tenant_share_percent: int = setting("OCELLI_GATEWAY_TENANT_SHARE_PERCENT", number(int, 1, 100), "50")
    """How much of the concurrent uploads, classify requests, images, predictions, fetches, downloads and event streams one
    tenant can use."""
    max_concurrent_tenant_requests: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_TENANT_REQUESTS", _COUNT, "32")
    """Requests of one tenant that are handled at the same time, without uploads and classify requests. Further ones wait."""
    max_concurrent_fetches: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_FETCHES", _COUNT, "32")
    """Images by URL that are fetched at the same time. Further ones wait."""
    max_concurrent_downloads: int = setting("OCELLI_GATEWAY_MAX_CONCURRENT_DOWNLOADS", _COUNT, "32")
    """Model downloads that are sent at the same time. Further ones wait."""
    max_event_streams: int = setting("OCELLI_GATEWAY_MAX_EVENT_STREAMS", _COUNT, "200")
    """Streams of events (`/ocelli/v1/events`) that are open at the same time; each holds a connection. Further ones are
    answered with 429."""
    url_allowed_networks: str = setting("OCELLI_GATEWAY_URL_ALLOWED_NETWORKS", NETWORKS, "")
    """Private networks that images by URL may be fetched from."""
    url_denied_networks: str = setting("OCELLI_GATEWAY_URL_DENIED_NETWORKS", NETWORKS, "")
    """Networks that images by URL must not be fetched from, even if they are public or allowed."""
    quota_classifiers: int = setting("OCELLI_QUOTA_CLASSIFIERS", _QUOTA, "0")
    """Classifiers that a tenant can have. 0: no limit. The `quota` of a credential set overrides it."""
    quota_stored_megabytes: int = setting("OCELLI_QUOTA_STORED_MEGABYTES", _QUOTA, "0")
    """Megabytes of uploaded examples that a tenant can store. 0: no limit."""
    quota_upload_megabytes_per_hour: int = setting("OCELLI_QUOTA_UPLOAD_MEGABYTES_PER_HOUR", _QUOTA, "0")
    """Megabytes that a tenant can upload in an hour. Each replica counts its own. 0: no limit."""
    quota_requests_per_second: int = setting("OCELLI_QUOTA_REQUESTS_PER_SECOND", _QUOTA, "0")
    """Requests that a tenant can send in a second. Each replica counts its own. 0: no limit."""
    namespace: str = setting("POD_NAMESPACE", NAME, "ocelli-system")
    """The gateway's own namespace, which holds the Secret of the signing keys."""
    token_keys_secret: str = setting("OCELLI_TOKEN_KEYS_SECRET", NAME, "ocelli-token-keys")
    """Secret with the keys that sign bearer tokens. All replicas share it."""
    built_in_namespace: str = setting("OCELLI_GATEWAY_BUILT_IN_NAMESPACE", NAME, "ocelli-system")
    """Namespace of the built-in Classifiers `default`, `food` and `explicit`."""
    body_timeout_seconds: float = setting("OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS", _SECONDS, "60")
    """A request whose body sends nothing for so long is answered with 400. A client that reads nothing of an answer for so long
    is disconnected."""
    body_kilobytes_per_second: int = setting("OCELLI_GATEWAY_MIN_BODY_KILOBYTES_PER_SECOND", number(int, 1, 1_000_000), "8")
    """Lowest average rate of a request's body and of a model download, once `OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS` are over.
    Slower ones are cut off."""
    drain_seconds: float = setting("OCELLI_GATEWAY_DRAIN_SECONDS", number(float, 0, 3600), "15")
    """How long idle connections stay open after the signal to stop, for one more request each. 0: they are closed at once."""
    prediction_timeout_seconds: float = setting("OCELLI_GATEWAY_PREDICTION_TIMEOUT_SECONDS", _SECONDS, "30")
    """How long the prediction of one image can take, including retries on other inference servers."""
    replica_delay_seconds: float = setting("OCELLI_GATEWAY_REPLICA_DELAY_SECONDS", number(float, 0, 60), "1")
    """How far the watch of another replica can lag. The answer to a delete, to a retrain and to the first `ready` or `failed`
    waits for so long. 0 if there is one replica."""
    credentials_poll_seconds: float = setting("OCELLI_CREDENTIALS_POLL_SECONDS", _SECONDS, "2")
    """How often the gateway looks for changes in the credentials folder."""
    log_level: str = setting("OCELLI_LOG_LEVEL", LOG_LEVEL, "INFO")
    """Lowest level of the log lines that are written."""

    @property
    def quota(self) -> Quota:
        """The quota of a tenant whose credential set has none."""
        return Quota(
            classifiers=self.quota_classifiers,
            stored_megabytes=self.quota_stored_megabytes,
            upload_megabytes_per_hour=self.quota_upload_megabytes_per_hour,
            requests_per_second=self.quota_requests_per_second,
        )

    def share_of(self, total: int) -> int:
        """How many of so many slots one tenant can hold."""
        return max(1, total * self.tenant_share_percent // 100)
