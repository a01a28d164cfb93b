"""Who is asking: Basic credentials, checked in constant time, slow hashes off the event loop, once for each password.

It must not know what is asked for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ocelli_gateway.credentials import (
    API_KEY_USER,
    PASSWORD_BYTES_LIMIT,
    CredentialSet,
    PasswordHash,
    hash_api_key,
    read_credentials,
)
from ocelli_gateway.errors import TooManyRequestsError, UnauthorizedError

logger = logging.getLogger(__name__)

HASHINGS_AT_ONCE = 2
HASHINGS_WAITING_LIMIT = 64
REMEMBERED_LIMIT = 1024


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, once that is proven."""

    user: str
    namespace: str
    owner: str


@dataclass(frozen=True, kw_only=True)
class BasicCredentials:
    """User name and password of a Basic header."""

    user: str
    password: str


def parse_basic(value: str) -> BasicCredentials | None:
    """What follows `Basic ` in an `Authorization` header, or None where it is malformed."""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    if not colon or len(password.encode()) > PASSWORD_BYTES_LIMIT:
        return None
    return BasicCredentials(user=user, password=password)


class Authenticator:
    """Checks credentials against the sets it was given last."""

    def __init__(self) -> None:
        self._sets: tuple[CredentialSet, ...] = ()
        # The remembered tags are worthless outside this process.
        self._tag_key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, Caller | None] = OrderedDict()
        self._checks: dict[bytes, asyncio.Future[Caller | None]] = {}
        self._hasher = ThreadPoolExecutor(max_workers=HASHINGS_AT_ONCE, thread_name_prefix="password")
        # An unknown user costs as much as a known one.
        self._nobody = PasswordHash.of(secrets.token_hex(16))

    def use(self, sets: Iterable[CredentialSet]) -> None:
        """Check against these sets from now on."""
        self._sets = tuple(sets)
        self._remembered.clear()
        self._checks.clear()

    @property
    def has_sets(self) -> bool:
        """Whether anybody can log in."""
        return bool(self._sets)

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces of all sets."""
        return frozenset(item.namespace for item in self._sets)

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
        """Who sends a request with these headers and query parameters.

        Raises:
            UnauthorizedError: nobody known.
            TooManyRequestsError: too many passwords wait to be checked.
        """
        scheme, _, value = headers.get("authorization", "").strip().partition(" ")
        match scheme.lower():
            case "basic":
                credentials = parse_basic(value)
            case "bearer":
                raise UnauthorizedError("Bearer tokens are not supported yet; send Basic credentials.")
            case "" if "api_key" in query:
                raise UnauthorizedError("The query parameter api_key is not supported yet; send Basic credentials.")
            case _:
                credentials = None
        caller = None if credentials is None else await self._check(credentials)
        if caller is None:
            raise UnauthorizedError
        return caller

    def close(self) -> None:
        """Stop the threads."""
        self._hasher.shutdown(wait=False, cancel_futures=True)

    async def _check(self, credentials: BasicCredentials) -> Caller | None:
        message = f"{credentials.user}:{credentials.password}".encode()
        tag = hmac.digest(self._tag_key, message, hashlib.sha256)
        if tag in self._remembered:
            self._remembered.move_to_end(tag)
            return self._remembered[tag]
        # A client that opens many connections at once is checked once.
        check = self._checks.get(tag)
        if check is None:
            if len(self._checks) >= HASHINGS_WAITING_LIMIT:
                raise TooManyRequestsError("Too many logins wait to be checked; try again in a second.")
            check = asyncio.ensure_future(self._verify(credentials))
            self._checks[tag] = check
            check.add_done_callback(lambda done: self._remember(tag, done))
        return await asyncio.shield(check)

    def _remember(self, tag: bytes, done: asyncio.Future[Caller | None]) -> None:
        # A check that began before the sets were changed says nothing about the new ones.
        if self._checks.get(tag) is not done:
            return
        del self._checks[tag]
        if done.cancelled() or done.exception() is not None:
            return
        self._remembered[tag] = done.result()
        while len(self._remembered) > REMEMBERED_LIMIT:
            self._remembered.popitem(last=False)

    async def _verify(self, credentials: BasicCredentials) -> Caller | None:
        if credentials.user == API_KEY_USER:
            return await self._verify_api_key(credentials.password)
        found: CredentialSet | None = None
        for item in self._sets:
            if hmac.compare_digest(item.user.encode(), credentials.user.encode()):
                found = item
        password_hash = self._nobody if found is None else found.password_hash
        matches = await self._matches(password_hash, credentials.password)
        return _caller(found) if found is not None and matches else None

    async def _verify_api_key(self, api_key: str) -> Caller | None:
        digest = hash_api_key(api_key)
        found: CredentialSet | None = None
        for item in self._sets:
            if item.api_key_sha256 is not None and hmac.compare_digest(item.api_key_sha256, digest):
                found = item
        for item in self._sets:
            if item.api_key_sha256 is None and found is None and await self._matches(item.password_hash, api_key):
                found = item
        return None if found is None else _caller(found)

    async def _matches(self, password_hash: PasswordHash, password: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._hasher, password_hash.matches, password)


def _caller(item: CredentialSet) -> Caller:
    return Caller(user=item.user, namespace=item.namespace, owner=item.owner)


class CredentialsFolder:
    """Keeps an `Authenticator` at what a folder holds: a mounted Secret changes without a restart."""

    def __init__(self, folder: Path, authenticator: Authenticator, on_change: Callable[[frozenset[str]], None]) -> None:
        self._folder = folder
        self._authenticator = authenticator
        self._on_change = on_change
        self._read: tuple[CredentialSet, ...] | None = None
        self.problems: tuple[str, ...] = ()
        """A sentence for each entry that cannot be used."""

    async def refresh(self) -> None:
        """Read the folder, and use what it holds if that changed. `on_change` is told the namespaces."""
        reading = await asyncio.to_thread(read_credentials, self._folder)
        if reading.problems != self.problems:
            for problem in reading.problems:
                logger.error("credentials are unusable", extra={"problem": problem})
        self.problems = reading.problems
        if reading.sets != self._read:
            self._read = reading.sets
            self._authenticator.use(reading.sets)
            logger.info("credentials read", extra={"sets": len(reading.sets)})
            self._on_change(self._authenticator.namespaces)

    async def watch(self, poll_seconds: float) -> None:
        """Refresh again and again, until cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            try:
                await self.refresh()
            except Exception:
                # A watch that ended silently would keep withdrawn credentials valid.
                logger.exception("credentials could not be refreshed")
