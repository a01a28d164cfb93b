"""Downloads by HTTP from addresses that the author of a Classifier chose.

A user who can write Classifiers must not reach through the trainer what only the trainer can reach. So an address is checked at
the socket, for every connection and every redirect: no name can change its meaning between the check and the connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from ocelli_http.guarded_client import ConnectionRules, GuardedClient
from ocelli_http.guarded_proxy import REFUSED_HEADER, AddressNotAllowedError, ProxyRefusal
from ocelli_storage.archives import MEGABYTE, shown_name
from ocelli_training.sources import SourceError, SourceLimits

_TRANSIENT_STATUSES = frozenset({408, 425, 429})


NOT_ALLOWED = (
    "the address, or a redirect from it, is in a private or denied network; use a public address, or allow the network for the "
    "installation (OCELLI_SOURCES_ALLOWED_NETWORKS; in the chart: sources.allowedNetworks)"
)


class Downloads:
    """Connections to the servers of sources."""

    def __init__(self, rules: ConnectionRules) -> None:
        self._client = GuardedClient(rules, user_agent="ocelli-trainer")

    async def close(self) -> None:
        await self._client.close()

    async def read(self, url: str, limits: SourceLimits, authorization: str | None = None) -> AsyncGenerator[bytes]:
        """The bytes behind an address, in chunks. `authorization` is a header that no redirect to another host gets.

        Raises:
            SourceError: they cannot be fetched. The message is fact and remedy, without the address.
        """
        session = await self._client.open()
        proxy = self._client.proxy_url
        headers = {} if authorization is None else {"Authorization": authorization}
        timeout = aiohttp.ClientTimeout(
            total=limits.fetch_seconds, sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds
        )
        with _readable_errors(limits):
            # A plain ASCII address is sent unchanged: quoting it again would break the signature of a presigned one.
            address = URL(url, encoded=url.isascii() and " " not in url)
            # aiohttp counts the first answer as well.
            async with session.get(
                address, max_redirects=limits.redirects + 1, timeout=timeout, headers=headers, proxy=proxy
            ) as response:
                if proxy is not None and REFUSED_HEADER in response.headers:
                    not_allowed = response.status == 403
                    raise describe_refusal(ProxyRefusal(not_allowed=not_allowed, cause=response.reason or ""))
                if response.status != 200:
                    transient = response.status >= 500 or response.status in _TRANSIENT_STATUSES
                    fact = f"the server answered {response.status} {shown_name(response.reason or '')}".rstrip()
                    remedy = "try again when the server is available" if transient else "correct the address or its permissions"
                    if authorization is not None and response.status in (401, 403):
                        remedy = "correct the credentials in the Secret, or their permissions"
                    delay = response.headers.get("Retry-After", "")
                    raise SourceError(
                        f"{fact}; {remedy}",
                        transient=transient,
                        retry_after_seconds=float(delay) if delay.isascii() and delay.isdigit() else None,
                    )
                limits.check_size(response.content_length or 0)
                async for chunk in response.content.iter_chunked(MEGABYTE):
                    yield chunk


@contextmanager
def _readable_errors(limits: SourceLimits) -> Iterator[None]:
    try:
        yield
    except AddressNotAllowedError as error:
        raise SourceError(NOT_ALLOWED) from error
    except aiohttp.ClientHttpProxyError as error:
        raise describe_refusal(ProxyRefusal(not_allowed=error.status == 403, cause=error.message)) from error
    except aiohttp.TooManyRedirects as error:
        raise SourceError(f"it redirects more than {limits.redirects} times; give the final address") from error
    # It is a ValueError as well.
    except aiohttp.ClientConnectorCertificateError as error:
        raise SourceError(
            "the server's certificate is not trusted; install a trusted certificate there, or use another address"
        ) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
        raise SourceError(
            "the address, or a redirect from it, is not a valid http or https URL; correct the address"
        ) from error
    except aiohttp.ClientConnectorDNSError as error:
        raise SourceError("the host name is not known; correct the address", transient=True) from error
    except TimeoutError as error:
        raise SourceError("the server did not answer in time; try again when it is available", transient=True) from error
    except aiohttp.ClientConnectorError as error:
        cause = f" ({error.os_error.strerror})" if error.os_error.errno is not None else ""
        fact = f"the connection failed{cause}; check the address and that the server is running"
        raise SourceError(fact, transient=True) from error
    except aiohttp.ClientError as error:
        raise SourceError("the connection was interrupted; try again when the server is available", transient=True) from error


def describe_refusal(refusal: ProxyRefusal) -> SourceError:
    """Why the proxy made no connection, with the remedy."""
    if refusal.not_allowed:
        return SourceError(NOT_ALLOWED)
    cause = f" ({shown_name(refusal.cause)})" if refusal.cause else ""
    return SourceError(f"the connection failed{cause}; check the address and that the server is running", transient=True)
