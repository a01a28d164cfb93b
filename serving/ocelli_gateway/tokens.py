"""Bearer tokens and their refresh tokens: JWTs that name the user.

It must not know how keys are stored, nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from ocelli_gateway.token_keys import TOKEN_LIFE_SECONDS, TokenKeys, TokenUse

ALGORITHM = "HS256"
ISSUER = "ocelli"
TOKEN_CHARACTERS_LIMIT = 4096
SKEW_SECONDS = 60
"""The greatest difference between the clocks of two replicas."""
_FINGERPRINT_CLAIM = "set"


@dataclass(frozen=True, kw_only=True)
class TokenSubject:
    """The user of a token."""

    user: str
    fingerprint: str
    """Of the credential set: a token is not valid any more once its password or key has changed."""
    expires_at: int | None = field(default=None, compare=False)
    """Of a token that was read, in seconds since 1970."""


class Tokens:
    """Issues and checks tokens."""

    def __init__(self, keys: TokenKeys, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, subject: TokenSubject) -> dict[str, Any]:
        """The body of an answer with a new pair of tokens.

        Raises:
            UnavailableError: there is no key to sign with.
        """
        now = int(self._clock())
        return {
            "access_token": self._sign(subject, TokenUse.ACCESS, now),
            "refresh_token": self._sign(subject, TokenUse.REFRESH, now),
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE_SECONDS,
            "expiration": now + TOKEN_LIFE_SECONDS,
            "scope": "ibm openid",
        }

    async def read(self, token: str) -> TokenSubject | None:
        """The user of a bearer token; None where it is expired, altered, or not issued here."""
        return await self._read(token, TokenUse.ACCESS)

    async def read_refresh(self, token: str) -> TokenSubject | None:
        """The user of a refresh token; None as for `read`."""
        return await self._read(token, TokenUse.REFRESH)

    def _sign(self, subject: TokenSubject, use: TokenUse, now: int) -> str:
        key = self._keys.signing_key(use)
        claims = {
            "iss": ISSUER,
            "sub": subject.user,
            _FINGERPRINT_CLAIM: subject.fingerprint,
            "iat": now,
            "exp": now + use.life_seconds,
        }
        return jwt.encode(claims, key.secret, algorithm=ALGORITHM, headers={"kid": key.identity})

    async def _read(self, token: str, use: TokenUse) -> TokenSubject | None:
        if len(token) > TOKEN_CHARACTERS_LIMIT:
            return None
        try:
            identity = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(identity, use) if isinstance(identity, str) else None
            if key is None:
                return None
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # Expiry is checked below, with the injected clock; PyJWT checks the rest.
                options={"require": ["exp", "iat", "sub"], "verify_exp": False, "verify_iat": False},
            )
            if not claims["iat"] - SKEW_SECONDS <= self._clock() < claims["exp"]:
                return None
            return TokenSubject(user=claims["sub"], fingerprint=claims[_FINGERPRINT_CLAIM], expires_at=claims["exp"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
