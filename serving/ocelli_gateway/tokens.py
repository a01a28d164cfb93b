"""Bearer tokens: JWTs that say whose API key they were given for. It must not know how keys are kept, nor HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from ocelli_gateway.token_keys import TOKEN_LIFE_SECONDS, TokenKeys

ALGORITHM = "HS256"
ISSUER = "ocelli"
TOKEN_CHARACTERS_LIMIT = 4096
SKEW_SECONDS = 60
"""Clocks of two replicas may differ by so much."""
_FINGERPRINT_CLAIM = "set"


@dataclass(frozen=True, kw_only=True)
class TokenSubject:
    """Whom a token is for."""

    user: str
    fingerprint: str
    """Of the credential set: with another password or key the token is worth nothing."""


class Tokens:
    """Issues tokens, and reads those that come back."""

    def __init__(self, keys: TokenKeys, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, subject: TokenSubject) -> dict[str, Any]:
        """The body of the answer that brings a new token.

        Raises:
            UnavailableError: there is no key to sign with.
        """
        key = self._keys.signing_key()
        now = int(self._clock())
        expiration = now + TOKEN_LIFE_SECONDS
        claims = {
            "iss": ISSUER,
            "sub": subject.user,
            _FINGERPRINT_CLAIM: subject.fingerprint,
            "iat": now,
            "exp": expiration,
        }
        return {
            "access_token": jwt.encode(claims, key.secret, algorithm=ALGORITHM, headers={"kid": key.identity}),
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE_SECONDS,
            "expiration": expiration,
            "scope": "ibm openid",
        }

    async def read(self, token: str) -> TokenSubject | None:
        """Whom a token is for; None where it is expired, altered, or none of ours."""
        if len(token) > TOKEN_CHARACTERS_LIMIT:
            return None
        try:
            identity = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(identity) if isinstance(identity, str) else None
            if key is None:
                return None
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # The clock is ours, for tests; PyJWT checks the rest.
                options={"require": ["exp", "iat", "sub"], "verify_exp": False, "verify_iat": False},
            )
            if not claims["iat"] - SKEW_SECONDS <= self._clock() < claims["exp"]:
                return None
            return TokenSubject(user=claims["sub"], fingerprint=claims[_FINGERPRINT_CLAIM])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
