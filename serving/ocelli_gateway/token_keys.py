"""The signing keys of tokens, in a Secret that the gateways rotate, shared by all replicas.

A new key signs only once every replica has had time to read it. An old key is kept until the last token that it signed has
expired, so rotation does not log users out. Refresh tokens live for days and have separate keys, so that those of bearer tokens
can be dropped sooner. The Secret's resourceVersion detects concurrent writes. It must not know the content of tokens.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ClusterClient, ClusterError, ConflictError, NotFoundError
from ocelli_cluster.resources import SECRETS, ObjectKey
from ocelli_gateway.refusals import UnavailableError

logger = logging.getLogger(__name__)

TOKEN_LIFE_SECONDS = 3600
REFRESH_LIFE_SECONDS = TOKEN_LIFE_SECONDS + 8 * 24 * 3600
"""Some clients use a refresh token for seven days after its bearer token has expired."""
POLL_SECONDS = 10.0
SETTLE_SECONDS = 30.0
"""The age at which a key begins to sign: three polls of every replica."""
ROTATION_SECONDS = 24 * 3600.0
RETIRED_SLACK_SECONDS = SETTLE_SECONDS + 600.0
"""A key is dropped so long after its successor was made, plus the life of a token."""
LEAST_REREAD_SECONDS = 1.0
"""Tokens with unknown keys, which any client can send, cause at most one read in this time."""
WRITE_ATTEMPTS = 5
_KEY_BYTES = 32
_ENTRY_SUFFIX = ".json"


class TokenUse(StrEnum):
    """The use of a token."""

    ACCESS = "access"
    """It logs in."""
    REFRESH = "refresh"
    """It is exchanged for a new pair."""

    @property
    def life_seconds(self) -> int:
        """How long a token of this use is valid."""
        return TOKEN_LIFE_SECONDS if self is TokenUse.ACCESS else REFRESH_LIFE_SECONDS

    @property
    def entry(self) -> str:
        """The field of an entry that holds the key. Earlier releases sign bearer tokens with every field `key`."""
        return "key" if self is TokenUse.ACCESS else "refreshKey"


@dataclass(frozen=True, kw_only=True)
class TokenKey:
    """A key for HMAC-SHA-256."""

    use: TokenUse
    """The use of the tokens that it signs."""
    identity: str
    """The `kid` of tokens."""
    secret: bytes
    created_at: float
    """Seconds since 1970."""


class TokenKeys:
    """The keys of the last read."""

    def __init__(self, client: ClusterClient, place: ObjectKey, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._place = place
        self._clock = clock
        self._keys: dict[str, TokenKey] = {}
        self._reading = asyncio.Lock()
        self._read_at = 0.0

    def signing_key(self, use: TokenUse) -> TokenKey:
        """The newest key for tokens of this use that every replica knows.

        Raises:
            UnavailableError: no key could be read or made.
        """
        keys = _of_use(self._keys, use)
        if not keys:
            raise UnavailableError(f"The signing keys in Secret {self._place} cannot be read at the moment; try again.")
        return _find_signing(keys, self._clock())

    async def find(self, identity: str, use: TokenUse) -> TokenKey | None:
        """The key of a `kid`, if it is for this use; unknown keys are read first. Never raises."""
        if identity not in self._keys:
            async with self._reading:
                if identity not in self._keys and time.monotonic() - self._read_at >= LEAST_REREAD_SECONDS:
                    await self._refresh()
        key = self._keys.get(identity)
        return key if key is not None and key.use is use else None

    async def refresh(self) -> None:
        """Read the keys, add one where there is none or the newest is a day old, and drop expired ones."""
        async with self._reading:
            await self._refresh()

    async def keep(self) -> None:
        """Refresh periodically, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.refresh()

    async def _refresh(self) -> None:
        self._read_at = time.monotonic()
        try:
            await self._read_and_rotate()
        except NotFoundError:
            logger.error(
                "the Secret of the signing keys is missing; apply the gateway's manifests", extra={"secret": self._place}
            )
        except ClusterError as error:
            # The keys of the last read stay in use.
            logger.warning("signing keys could not be refreshed", extra={"secret": self._place, "cause": str(error)})
        except Exception:
            logger.exception("signing keys could not be refreshed", extra={"secret": self._place})

    async def _read_and_rotate(self) -> None:
        for _ in range(WRITE_ATTEMPTS):
            manifest = await self._client.get(SECRETS, self._place.namespace, self._place.name)
            found = parse_keys(manifest)
            self._keys = found or self._keys
            wanted = plan_keys(found, self._clock())
            if wanted == found:
                return
            body = {**manifest, "data": {key.identity + _ENTRY_SUFFIX: _encode(key) for key in wanted.values()}}
            try:
                await self._client.replace(SECRETS, self._place.namespace, self._place.name, body)
            except ConflictError:
                # Another replica was first: its keys are used.
                continue
            self._keys = wanted
            logger.info("signing keys rotated", extra={"secret": self._place, "keys": len(wanted)})
            return


def plan_keys(keys: Mapping[str, TokenKey], now: float) -> dict[str, TokenKey]:
    """The keys that should exist now. Pure, except for the secret of a new one."""
    return {key.identity: key for use in TokenUse for key in _plan_keys_of_use(_of_use(keys, use), use, now)}


def _plan_keys_of_use(keys: list[TokenKey], use: TokenUse, now: float) -> list[TokenKey]:
    kept = [
        key
        for key, successor in zip_longest(keys, keys[1:])
        if successor is None or now - successor.created_at < use.life_seconds + RETIRED_SLACK_SECONDS
    ]
    if not kept or now - kept[-1].created_at >= ROTATION_SECONDS:
        made = TokenKey(use=use, identity=secrets.token_hex(8), secret=secrets.token_bytes(_KEY_BYTES), created_at=now)
        kept.append(made)
    return kept


def _of_use(keys: Mapping[str, TokenKey], use: TokenUse) -> list[TokenKey]:
    """Oldest first."""
    return sorted((key for key in keys.values() if key.use is use), key=lambda key: (key.created_at, key.identity))


def parse_keys(manifest: Manifest) -> dict[str, TokenKey]:
    """The keys in a Secret; other entries are ignored, and dropped by the next write."""
    found: dict[str, TokenKey] = {}
    for name, text in (manifest.get("data") or {}).items():
        try:
            document = json.loads(base64.b64decode(text))
            use = TokenUse.ACCESS if TokenUse.ACCESS.entry in document else TokenUse.REFRESH
            key = TokenKey(
                use=use,
                identity=name.removesuffix(_ENTRY_SUFFIX),
                secret=base64.b64decode(document[use.entry], validate=True),
                created_at=float(document["createdAt"]),
            )
        except (ValueError, KeyError, TypeError, binascii.Error):
            logger.error("an entry among the signing keys is not a key", extra={"entry": name})
            continue
        if len(key.secret) >= _KEY_BYTES:
            found[key.identity] = key
    return found


def _find_signing(in_order: list[TokenKey], now: float) -> TokenKey:
    settled = [key for key in in_order if now - key.created_at >= SETTLE_SECONDS]
    # At the first start there is no older key: replicas read an unknown key when a token uses it.
    return settled[-1] if settled else in_order[0]


def _encode(key: TokenKey) -> str:
    document = {key.use.entry: base64.b64encode(key.secret).decode(), "createdAt": key.created_at}
    return base64.b64encode(json.dumps(document).encode()).decode()
