"""Where the gateway is and who asks: what both clients, sync and async, are built from."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from ocelli_client.errors import OcelliError

C = TypeVar("C")
API_KEY_USER = "apikey"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Address, credentials and limits. At most one kind of credentials: user and password, API key, or bearer token."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify: bool | str = True
    """False: accept any certificate; a path: the certificate authority to trust."""
    timeout_seconds: float = 60.0
    """Longest silence of the gateway within one request."""
    deadline: float | None = None
    """The time of `time.monotonic` after which an answer that has not ended is given up."""

    def __post_init__(self) -> None:
        check_address(self.url)
        given = [bool(self.user or self.password), bool(self.api_key), bool(self.token)]
        if sum(given) > 1:
            raise OcelliError("Several kinds of credentials are given; give user and password, or an API key, or a token")
        # An HTTP library would quote a header that it refuses.
        if self.token and not re.fullmatch(r"[!-~]+", self.token.strip()):
            raise OcelliError("The token has characters that no token has; copy it again")

    def build_client_options(self) -> dict[str, Any]:
        """What httpx's clients are built with."""
        headers = {"Accept": "application/json", "User-Agent": "ocelli-client"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token.strip()}"
        return {
            "base_url": self.url.rstrip("/"),
            "headers": headers,
            "auth": self._build_auth(),
            "verify": self._build_verification(),
            "timeout": httpx.Timeout(self.timeout_seconds, connect=min(10.0, self.timeout_seconds)),
        }

    def open(self, kind: Callable[..., C]) -> C:
        """A client of httpx.

        Raises:
            OcelliError: a setting cannot be used.
        """
        options = self.build_client_options()
        try:
            return kind(**options)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # httpx reads the variables of proxies, and its error may show a password of them.
            raise OcelliError(
                "The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; correct the variable, "
                "for example to http://proxy.example.org:3128"
            ) from error

    def describe_failure(self, error: httpx.RequestError) -> str:
        """The sentence for a gateway that did not answer."""
        match error:
            case httpx.ConnectTimeout() | httpx.ConnectError():
                reason = str(error) or "the connection was not accepted in time"
                return f"{self.url} is not reachable ({reason}); check the address and whether the gateway runs"
            case httpx.TimeoutException():
                return f"{self.url} did not answer for {self.timeout_seconds:g} s; try again later"
            case _:
                return f"The connection to {self.url} was lost ({str(error) or type(error).__name__})"

    def _build_auth(self) -> httpx.BasicAuth | None:
        if self.api_key:
            return httpx.BasicAuth(API_KEY_USER, self.api_key)
        if self.user:
            return httpx.BasicAuth(self.user, self.password or "")
        return None

    def _build_verification(self) -> bool | ssl.SSLContext:
        if not isinstance(self.verify, str):
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.verify)
        except (OSError, ssl.SSLError) as error:
            raise OcelliError(f"The certificate authority {self.verify} cannot be read: {error}") from error


def check_address(url: str) -> None:
    """Check the address of a gateway, which is part of messages.

    Raises:
        OcelliError: it is not an address, or has something secret in it. The text does not show it then.
    """
    # A password may have any character, so that a URL parser does not always find it.
    if "@" in url:
        raise OcelliError("The address has credentials in it; give the address without them, and the credentials apart")
    if "?" in url or "#" in url:
        raise OcelliError("The address has a query or a fragment; give the address without it")
    if not _is_address(url):
        raise OcelliError(f'"{url}" is not an address of a gateway; give one such as https://vision.example.org')


def sends_clear_text(url: str) -> bool:
    """Whether others can read what is sent to this address: it is not encrypted, and leaves this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading a port that is not a number raises, too.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        return False
