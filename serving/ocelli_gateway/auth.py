"""Authentication: Basic credentials, API keys and bearer tokens.

Comparisons take constant time. Slow hashes run outside the event loop, once for each password; those of API keys and of users
run separately. Users take turns, and so do the addresses that log in with one name or with API keys: clients that guess
passwords cannot keep others from logging in, and are slowed down by address and name. Unknown names are treated like known
ones: neither the answer nor its delay shows which names exist. It must not know what the request is for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ocelli_gateway.credential_sets import (
    API_KEY_USER,
    PASSWORD_BYTES_LIMIT,
    CredentialSet,
    PasswordHash,
    hash_api_key,
)
from ocelli_gateway.login_turns import FailureDelays, LoginSource, NameTurns, Places, SharedTurns, build_turns
from ocelli_gateway.quotas import NO_QUOTA, Quota
from ocelli_gateway.recent import Recent
from ocelli_gateway.refusals import TooManyRequestsError, UnauthorizedError
from ocelli_gateway.tokens import Tokens, TokenSubject
from ocelli_storage.archives import shown_name

logger = logging.getLogger(__name__)

USER_HASHINGS_WAITING_LIMIT = 32
"""Passwords of one user from one address that may wait to be checked: some seconds of work, of the 30 that one may wait."""
API_KEY_HASHINGS_WAITING_LIMIT = 16
"""API keys from one address that may wait to be checked as passwords."""
DELAYED_FAILURES_LIMIT = 128
"""Wrong passwords of one name from one address whose answers may wait: more than are checked within the longest delay."""
_SHOWN_USER_CHARACTERS = 100
API_KEY_PARAMETERS = ("api_key", "apikey")
"""Query parameters in which old clients send the API key."""
REMEMBERED_LIMIT = 1024
REMEMBERED_FAILURES_LIMIT = 256
_UNKNOWN_USER = ""
"""Stands for every name without a credential set."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An authenticated user."""

    user: str
    namespace: str
    owner: str
    quota: Quota = NO_QUOTA
    """From the credential set."""
    fingerprint: str = ""
    """Of its credential set."""
    expires_at: int | None = field(default=None, compare=False)
    """When its token expires, in seconds since 1970; None where the credentials are not a token."""


class TooManyFailuresError(TooManyRequestsError):
    """The password is wrong, and the answers to too many wrong ones are already waiting."""

    def __init__(self) -> None:
        super().__init__("Too many wrong passwords for this user from this address; try again in a second.")


@dataclass(frozen=True, kw_only=True)
class BasicCredentials:
    """User name and password of a Basic header."""

    user: str
    password: str


def parse_basic(value: str) -> BasicCredentials | None:
    """The credentials after `Basic ` in an `Authorization` header, or None if they are malformed."""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    if not colon or len(password.encode()) > PASSWORD_BYTES_LIMIT:
        return None
    return BasicCredentials(user=user, password=password)


class Authenticator:
    """Checks credentials against the current credential sets."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._sets: tuple[CredentialSet, ...] = ()
        # The remembered tags are worthless outside this process.
        self._tag_key = secrets.token_bytes(32)
        self._remembered: Recent[bytes, Caller] = Recent(REMEMBERED_LIMIT)
        # Kept separately, so that guesses do not evict valid passwords.
        self._remembered_failures: Recent[bytes, None] = Recent(REMEMBERED_FAILURES_LIMIT)
        self._checks: dict[bytes, asyncio.Future[Caller | None]] = {}
        self._waiting = Places()
        self._delayed = Places()
        self._failures = FailureDelays()
        self._turns = build_turns()
        self._names = NameTurns()
        self._addresses_of_api_keys = build_turns()
        # One thread each, so at most two concurrent hashings.
        self._password_hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="password")
        self._api_key_hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="api-key")
        # Checking an unknown user costs as much as checking a known one.
        self._decoy = PasswordHash.of_no_password()
        self._decoy_turns = SharedTurns(self._check_decoy)

    def use(self, sets: Iterable[CredentialSet]) -> None:
        """Check against these sets from now on."""
        self._sets = tuple(sets)
        current = {_caller(item) for item in self._sets}
        # Only callers whose set has changed are checked again.
        for tag in [tag for tag, caller in self._remembered.items() if caller not in current]:
            del self._remembered[tag]
        self._remembered_failures.clear()
        self._checks.clear()
        # Hashes of another version may have other costs.
        password_hash = next((item.password_hash for item in self._sets if item.password_hash is not None), None)
        if password_hash is not None:
            self._decoy = password_hash.unmatchable()

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str], address: str = "") -> Caller:
        """The caller of a request with these headers and query parameters, from this address.

        Raises:
            UnauthorizedError: the credentials are missing or wrong.
            TooManyRequestsError, UnavailableError: too many passwords wait to be checked.
        """
        scheme, _, value = headers.get("authorization", "").strip().partition(" ")
        match scheme.lower():
            case "basic":
                credentials = parse_basic(value)
            case "bearer":
                caller = self._find_subject(await self._tokens.read(value.strip()), address)
                if caller is None:
                    raise UnauthorizedError(token=True)
                return caller
            case "":
                api_key = next((query[name] for name in API_KEY_PARAMETERS if query.get(name)), "")
                credentials = _api_key_credentials(api_key)
            case _:
                raise UnauthorizedError
        caller = await self._check(credentials, address)
        if caller is None:
            raise UnauthorizedError
        return caller

    async def find_api_key(self, api_key: str, address: str = "") -> Caller | None:
        """The caller whose API key it is; None where it is unknown. Raises as `authenticate`."""
        return await self._check(_api_key_credentials(api_key), address)

    async def find_refresh_token(self, token: str, address: str = "") -> Caller | None:
        """The caller whose refresh token it is; None where it is not valid, or not any more."""
        return self._find_subject(await self._tokens.read_refresh(token), address)

    def knows(self, caller: Caller) -> bool:
        """Whether the credential set of a caller is still the same."""
        return any((item.user, item.fingerprint) == (caller.user, caller.fingerprint) for item in self._sets)

    def close(self) -> None:
        """Stop the threads."""
        for hasher in (self._password_hasher, self._api_key_hasher):
            hasher.shutdown(wait=False, cancel_futures=True)

    def _find_subject(self, subject: TokenSubject | None, address: str) -> Caller | None:
        if subject is None:
            _log_failure("token", None, address)
            return None
        for item in self._sets:
            if subject == TokenSubject(user=item.user, fingerprint=item.fingerprint):
                return replace(_caller(item), expires_at=subject.expires_at)
        _log_failure("token", subject.user, address)
        return None

    async def _check(self, credentials: BasicCredentials | None, address: str) -> Caller | None:
        user = None if credentials is None else credentials.user
        kind = "API key" if user == API_KEY_USER else "password"
        try:
            caller = (
                None if credentials is None else await self._find_caller(credentials, LoginSource.of(credentials.user, address))
            )
        except TooManyFailuresError:
            _log_failure(kind, user, address)
            raise
        if caller is None:
            _log_failure(kind, user, address)
        return caller

    async def _find_caller(self, credentials: BasicCredentials, source: LoginSource) -> Caller | None:
        message = f"{credentials.user}:{credentials.password}".encode()
        tag = hmac.digest(self._tag_key, message, hashlib.sha256)
        if tag in self._remembered:
            self._remembered.move_to_end(tag)
            return self._remembered[tag]
        if tag in self._remembered_failures:
            self._remembered_failures.move_to_end(tag)
            return None
        # A client that opens many connections at the same time is checked once.
        check = self._checks.get(tag)
        if check is None:
            if credentials.user == API_KEY_USER:
                # Known keys need no slow hash and never wait.
                caller = self._find_known_api_key(credentials.password)
                if caller is not None:
                    return caller
            limit = API_KEY_HASHINGS_WAITING_LIMIT if credentials.user == API_KEY_USER else USER_HASHINGS_WAITING_LIMIT
            if not self._waiting.take(source, limit):
                raise TooManyRequestsError("Too many logins wait to be checked; try again in a second.")
            check = asyncio.ensure_future(self._verify(credentials, source))
            self._checks[tag] = check
            check.add_done_callback(lambda done: self._remember(tag, done))
        return await asyncio.shield(check)

    def _remember(self, tag: bytes, done: asyncio.Future[Caller | None]) -> None:
        # A check that began before the sets changed does not apply to the new ones.
        if self._checks.get(tag) is not done:
            return
        del self._checks[tag]
        if done.cancelled() or done.exception() is not None:
            return
        caller = done.result()
        if caller is None:
            self._remembered_failures.remember(tag, None)
        else:
            self._remembered.remember(tag, caller)

    async def _verify(self, credentials: BasicCredentials, source: LoginSource) -> Caller | None:
        try:
            if credentials.user == API_KEY_USER:
                # Not slowed down: all users share the name, and keys cannot be guessed.
                async with self._addresses_of_api_keys.slot(source.subscriber):
                    return await self._verify_api_key(credentials.password)
            caller = await self._verify_password(credentials, source)
        finally:
            # Before any delay: behind a proxy the right password may come from the same address as guesses.
            self._waiting.give_back(source)
        if caller is None:
            await self._delay_failure(source)
        return caller

    async def _delay_failure(self, source: LoginSource) -> None:
        seconds = self._failures.count(source)
        if not seconds:
            return
        if not self._delayed.take(source, DELAYED_FAILURES_LIMIT):
            raise TooManyFailuresError
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delayed.give_back(source)

    async def _verify_password(self, credentials: BasicCredentials, source: LoginSource) -> Caller | None:
        found: CredentialSet | None = None
        for item in self._sets:
            if hmac.compare_digest(item.user.encode(), credentials.user.encode()):
                found = item
        async with self._names.turn(source):
            if found is None:
                await self._decoy_turns.join()
                return None
            # Slow for users without a password hash as well: the time must not show that there is none.
            async with self._turns.slot(found.user):
                password_hash = found.password_hash or self._decoy
                matches = await _matches(self._password_hasher, password_hash, credentials.password)
        if found.password_hash is None:
            matches = self._find_known_api_key(credentials.password) == _caller(found)
        return _caller(found) if matches else None

    async def _check_decoy(self, begin: Callable[[], None]) -> None:
        async with self._turns.slot(_UNKNOWN_USER):
            begin()
            await _matches(self._password_hasher, self._decoy, _UNKNOWN_USER)

    def _find_known_api_key(self, api_key: str) -> Caller | None:
        digest = hash_api_key(api_key)
        found: CredentialSet | None = None
        for item in self._sets:
            if item.api_key_sha256 is not None and hmac.compare_digest(item.api_key_sha256, digest):
                found = item
        return None if found is None else _caller(found)

    async def _verify_api_key(self, api_key: str) -> Caller | None:
        """The caller whose password it is, among the sets without a separate key."""
        for item in self._sets:
            if item.api_key_sha256 is not None or item.password_hash is None:
                continue
            if await _matches(self._api_key_hasher, item.password_hash, api_key):
                return _caller(item)
        return None


def _log_failure(kind: str, user: str | None, address: str) -> None:
    shown = None if user is None or kind == "API key" else shown_name(user, _SHOWN_USER_CHARACTERS)
    logger.warning("login failed", extra={"kind": kind, "user": shown, "address": address})


async def _matches(hasher: ThreadPoolExecutor, password_hash: PasswordHash, password: str) -> bool:
    return await asyncio.get_running_loop().run_in_executor(hasher, password_hash.matches, password)


def _api_key_credentials(api_key: str) -> BasicCredentials | None:
    if not api_key or len(api_key.encode(errors="replace")) > PASSWORD_BYTES_LIMIT:
        return None
    try:
        api_key.encode()
    except UnicodeEncodeError:
        return None
    return BasicCredentials(user=API_KEY_USER, password=api_key)


def _caller(item: CredentialSet) -> Caller:
    return Caller(user=item.user, namespace=item.namespace, owner=item.owner, quota=item.quota, fingerprint=item.fingerprint)
