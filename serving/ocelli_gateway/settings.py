"""Settings of the gateway: environment variables, each with its meaning, its default and its bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from ocelli_api.log_lines import parse_log_level
from ocelli_api.network_addresses import parse_networks
from ocelli_gateway.quotas import QUOTA_LIMIT, Quota


class SettingsError(Exception):
    """A setting is missing or has a value that it may not have. The message names the variable and the remedy."""


_NETWORK_VARIABLES = (
    "OCELLI_GATEWAY_URL_ALLOWED_NETWORKS",
    "OCELLI_GATEWAY_URL_DENIED_NETWORKS",
    "OCELLI_GATEWAY_TRUSTED_PROXIES",
)


def _about(variable: str, meaning: str, *, least: float = 1, most: float = 10_000) -> dict[str, Any]:
    """What a field says of its variable; the bounds are those of numbers."""
    return {"variable": variable, "meaning": meaning, "least": least, "most": most}


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """All settings; `environment_variables()` lists them with their meanings."""

    store_url: str = field(metadata=_about("OCELLI_STORE_URL", "The object store, `file:///folder`. Required."))
    credentials_folder: Path = field(
        metadata=_about(
            "OCELLI_CREDENTIALS_FOLDER",
            "Folder of credential sets, one JSON file each (a mounted Secret); re-read when it changes. Required.",
        )
    )
    host: str = field(
        default="*", metadata=_about("OCELLI_GATEWAY_HOST", "Address that the gateway listens on; `*`: all, of IPv4 and IPv6.")
    )
    port: int = field(default=8080, metadata=_about("OCELLI_GATEWAY_PORT", "Port that the gateway listens on.", most=65_535))
    internal_port: int = field(
        default=9090,
        metadata=_about(
            "OCELLI_GATEWAY_INTERNAL_PORT",
            "Port of `/healthz`, `/livez`, `/readyz` and `/metrics`, which ask for no credentials.",
            most=65_535,
        ),
    )
    upload_folder: Path = field(
        default=Path(tempfile.gettempdir()),
        metadata=_about(
            "OCELLI_UPLOAD_FOLDER",
            "Folder for uploads while they are checked: as large as the requests that are read at the same time.",
        ),
    )
    connections: int = field(
        default=1000,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONNECTIONS",
            "Connections that may be open at the same time, a third of a megabyte each at worst; a new one takes the place of "
            "the one that has been idle for longest, and is refused with 503 where all of them have a request of a known user. "
            "An eighth of them may wait in one queue of one tenant; further requests are answered with 429.",
            least=8,
            most=100_000,
        ),
    )
    trusted_proxies: str = field(
        default="",
        metadata=_about(
            "OCELLI_GATEWAY_TRUSTED_PROXIES",
            "Networks (`10.1.0.0/16,fd00::/8`) of the proxies whose `X-Forwarded-For` is believed, so that log-ins are told "
            "apart by the addresses of clients; empty: none, all that come through a proxy have its address.",
        ),
    )
    max_concurrent_uploads: int = field(
        default=16,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_UPLOADS",
            "Create and retrain requests (256 MB at most) that are read at the same time; further ones wait.",
        ),
    )
    max_concurrent_classify_requests: int = field(
        default=64,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_CLASSIFY_REQUESTS",
            "Classify requests (110 MB at most) that are worked on at the same time; further ones wait.",
        ),
    )
    max_concurrent_images: int = field(
        default=32,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_IMAGES",
            "Images (10 MB at most) held in memory at the same time; further ones wait.",
        ),
    )
    tenant_share_percent: int = field(
        default=50,
        metadata=_about(
            "OCELLI_GATEWAY_TENANT_SHARE_PERCENT",
            "How much of the uploads, classify requests, images, predictions, fetches and downloads at the same time one "
            "tenant may hold, in percent.",
            most=100,
        ),
    )
    max_concurrent_tenant_requests: int = field(
        default=32,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_TENANT_REQUESTS",
            "Requests of one tenant, uploads and classify apart, that are worked on at the same time; further ones wait.",
        ),
    )
    max_concurrent_fetches: int = field(
        default=32,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_FETCHES", "Images by URL that are fetched at the same time; further ones wait."
        ),
    )
    max_concurrent_downloads: int = field(
        default=32,
        metadata=_about(
            "OCELLI_GATEWAY_MAX_CONCURRENT_DOWNLOADS", "Downloads of models that are sent at the same time; further ones wait."
        ),
    )
    url_allowed_networks: str = field(
        default="",
        metadata=_about(
            "OCELLI_GATEWAY_URL_ALLOWED_NETWORKS",
            "Networks (`10.1.0.0/16,fd00::/8`) that images may be fetched from though they are private; empty: none.",
        ),
    )
    url_denied_networks: str = field(
        default="",
        metadata=_about(
            "OCELLI_GATEWAY_URL_DENIED_NETWORKS",
            "Networks that images may not be fetched from though they are public, or lie in allowed ones; empty: none.",
        ),
    )
    quota_classifiers: int = field(
        default=0,
        metadata=_about(
            "OCELLI_QUOTA_CLASSIFIERS",
            "Classifiers that a tenant may have; 0: any number. A credential set may say otherwise, by its `quota`.",
            least=0,
            most=QUOTA_LIMIT,
        ),
    )
    quota_stored_megabytes: int = field(
        default=0,
        metadata=_about(
            "OCELLI_QUOTA_STORED_MEGABYTES",
            "Megabytes of uploaded examples that a tenant may have stored; 0: any number.",
            least=0,
            most=QUOTA_LIMIT,
        ),
    )
    quota_upload_megabytes_per_hour: int = field(
        default=0,
        metadata=_about(
            "OCELLI_QUOTA_UPLOAD_MEGABYTES_PER_HOUR",
            "Megabytes that a tenant may upload in an hour, counted by each replica; 0: any number.",
            least=0,
            most=QUOTA_LIMIT,
        ),
    )
    quota_requests_per_second: int = field(
        default=0,
        metadata=_about(
            "OCELLI_QUOTA_REQUESTS_PER_SECOND",
            "Requests that a tenant may send in a second, counted by each replica; 0: any number.",
            least=0,
            most=QUOTA_LIMIT,
        ),
    )
    namespace: str = field(
        default="ocelli-system",
        metadata=_about("POD_NAMESPACE", "The gateway's own namespace, with the Secret of the signing keys."),
    )
    token_keys_secret: str = field(
        default="ocelli-token-keys",
        metadata=_about(
            "OCELLI_TOKEN_KEYS_SECRET", "Secret in which the gateways keep the keys that bearer tokens are signed with."
        ),
    )
    built_in_namespace: str = field(
        default="ocelli-system",
        metadata=_about(
            "OCELLI_GATEWAY_BUILT_IN_NAMESPACE",
            "Namespace of the built-in classifiers: the Classifiers `default`, `food` and `explicit` in it.",
        ),
    )
    body_timeout_seconds: float = field(
        default=60.0,
        metadata=_about(
            "OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS",
            "A request whose body brings no byte for so long is answered with 400; a client that takes nothing of what is sent "
            "for so long is disconnected.",
            least=0.1,
        ),
    )
    body_kilobytes_per_second: int = field(
        default=8,
        metadata=_about(
            "OCELLI_GATEWAY_MIN_BODY_KILOBYTES_PER_SECOND",
            "The least rate, on average, of a request's body and of a model's download, once "
            "`OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS` are over; what is slower is broken off.",
            most=1_000_000,
        ),
    )
    drain_seconds: float = field(
        default=15.0,
        metadata=_about(
            "OCELLI_GATEWAY_DRAIN_SECONDS",
            "How long, after the signal to stop, idle connections stay open for the one more request that each may bring; 0: "
            "they are closed at once.",
            least=0,
            most=3600,
        ),
    )
    prediction_timeout_seconds: float = field(
        default=30.0,
        metadata=_about(
            "OCELLI_GATEWAY_PREDICTION_TIMEOUT_SECONDS",
            "How long one image may take, inference servers that fail and are replaced included.",
            least=0.1,
        ),
    )
    replica_delay_seconds: float = field(
        default=1.0,
        metadata=_about(
            "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS",
            "How far the watch of another replica may lag: a delete, a retrain and the first `ready` or `failed` are answered "
            "so much later. 0 where there is one replica.",
            least=0,
            most=60,
        ),
    )
    credentials_poll_seconds: float = field(
        default=2.0,
        metadata=_about("OCELLI_CREDENTIALS_POLL_SECONDS", "How often the credentials folder is looked at.", least=0.1),
    )
    log_level: str = field(default="INFO", metadata=_about("OCELLI_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR."))

    @property
    def quota(self) -> Quota:
        """What holds for a tenant whose credential set says nothing else."""
        return Quota(
            classifiers=self.quota_classifiers,
            stored_megabytes=self.quota_stored_megabytes,
            upload_megabytes_per_hour=self.quota_upload_megabytes_per_hour,
            requests_per_second=self.quota_requests_per_second,
        )

    def share_of(self, total: int) -> int:
        """How many of so many slots one tenant may hold."""
        return max(1, total * self.tenant_share_percent // 100)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> GatewaySettings:
        """Read the settings.

        Raises:
            SettingsError: one is missing or has a value that it may not have.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            variable = item.metadata["variable"]
            text = environment.get(variable, "")
            if text:
                values[item.name] = _parse(text, str(item.type), item.metadata)
            elif item.default is MISSING:
                raise SettingsError(f"Setting {variable} is missing; set it. {item.metadata['meaning']}")
        return cls(**values)


def environment_variables() -> dict[str, str]:
    """Every variable with its meaning."""
    return {item.metadata["variable"]: item.metadata["meaning"] for item in fields(GatewaySettings)}


def _parse(text: str, type_name: str, about: Mapping[str, Any]) -> Any:
    variable, least, most = about["variable"], about["least"], about["most"]
    if type_name == "Path":
        return Path(text)
    if type_name == "str":
        if variable == "OCELLI_LOG_LEVEL":
            try:
                return parse_log_level(text)
            except ValueError as error:
                raise SettingsError(f"Setting {variable} is {error}") from None
        if variable in _NETWORK_VARIABLES:
            try:
                parse_networks(text)
            except ValueError as error:
                raise SettingsError(f"Setting {variable}: {error}; give networks such as 10.1.0.0/16") from error
        return text
    try:
        number = int(text) if type_name == "int" else float(text)
    except ValueError as error:
        raise SettingsError(f"Setting {variable} is {text!r}; set a number") from error
    if not least <= number <= most:
        raise SettingsError(f"Setting {variable} is {text!r}; set a number from {least:g} to {most:g}")
    return number
