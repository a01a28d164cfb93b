"""Admission: whose request it is, which quota applies, and whether the tenant sends too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request

from ocelli_api.network_addresses import parse_networks
from ocelli_gateway.auth import Authenticator, Caller
from ocelli_gateway.client_address import FORWARDED_HEADER, find_client_address
from ocelli_gateway.errors import PasswordError, RefreshTokenError, UnknownApiKeyError
from ocelli_gateway.quotas import RateQuotas
from ocelli_gateway.refusals import InputError, UnauthorizedError
from ocelli_gateway.settings import GatewaySettings

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site`: a page of this origin, or no page, such as the address bar."""


class Admission:
    """Every method returns the caller with the quota that applies.

    All of them raise TooManyRequestsError where the tenant sends too many requests, or too many logins wait.
    """

    def __init__(self, authenticator: Authenticator, rates: RateQuotas, settings: GatewaySettings) -> None:
        self._authenticator = authenticator
        self._rates = rates
        self._quota = settings.quota
        self._trusted_proxies = parse_networks(settings.trusted_proxies)

    async def authenticate(self, request: Request, query: Mapping[str, str]) -> Caller:
        """The caller of a request.

        Raises:
            UnauthorizedError: the credentials are missing or wrong.
            InputError: a page of another site sent it with the log-in that the browser keeps.
        """
        # Browsers add a stored password to requests of every site, but a bearer token to none.
        if request.method not in _READING_METHODS and _is_basic(request) and _is_of_another_site(request.headers):
            raise InputError(
                "The request comes from a page of another site, and the browser added a stored log-in to it, so nothing was "
                "changed; send it from a program, or with a bearer token."
            )
        return await self._authenticate(request, query)

    async def admit_api_key(self, request: Request, api_key: str) -> Caller:
        """The caller whose API key it is. Raises UnknownApiKeyError."""
        caller = await self._authenticator.find_api_key(api_key, self._find_address(request))
        if caller is None:
            raise UnknownApiKeyError
        return self._admit(caller)

    async def admit_basic(self, request: Request) -> Caller:
        """The caller of a Basic header. Raises PasswordError: a token must not renew itself for ever."""
        if not _is_basic(request):
            raise PasswordError
        try:
            return await self._authenticate(request, {})
        except UnauthorizedError as error:
            raise PasswordError from error

    async def admit_refresh_token(self, request: Request, token: str) -> Caller:
        """The caller whose refresh token it is. Raises RefreshTokenError."""
        caller = await self._authenticator.find_refresh_token(token, self._find_address(request))
        if caller is None:
            raise RefreshTokenError
        return self._admit(caller)

    def knows(self, caller: Caller) -> bool:
        """Whether the credentials of a caller still exist, and are the same."""
        return self._authenticator.knows(caller)

    async def _authenticate(self, request: Request, query: Mapping[str, str]) -> Caller:
        return self._admit(await self._authenticator.authenticate(request.headers, query, self._find_address(request)))

    def _find_address(self, request: Request) -> str:
        peer = None if request.client is None else request.client.host
        return find_client_address(peer, request.headers.getlist(FORWARDED_HEADER), self._trusted_proxies)

    def _admit(self, caller: Caller) -> Caller:
        caller = replace(caller, quota=caller.quota.over(self._quota))
        self._rates.count_request(caller.namespace, caller.quota)
        return caller


def _is_basic(request: Request) -> bool:
    return request.headers.get("authorization", "").strip().partition(" ")[0].lower() == "basic"


def _is_of_another_site(headers: Mapping[str, str]) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in _OWN_SITE
    # Browsers say the site only to addresses with TLS. Programs send no origin.
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
