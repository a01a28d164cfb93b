"""Who is asking: Basic credentials, API keys and bearer tokens.

Comparisons take constant time; slow hashes run off the event loop, once for each password. Those of API keys run apart from
those of users; users take turns, and so do the addresses that log in by one name, or by API keys: whoever guesses, by whichever
names, keeps nobody else from logging in, and is slowed down by address and name. Names that nobody has are treated like others:
neither an answer nor its delay tells which there are. It must not know what is asked for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ocelli_gateway.client_address import subscriber_of
from ocelli_gateway.credentials import (
    API_KEY_USER,
    PASSWORD_BYTES_LIMIT,
    CredentialSet,
    PasswordHash,
    hash_api_key,
    read_credentials,
)
from ocelli_gateway.errors import TooManyRequestsError, UnauthorizedError
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.quotas import NO_QUOTA, Quota
from ocelli_gateway.tokens import Tokens, TokenSubject
from ocelli_storage.archives import shown_name

logger = logging.getLogger(__name__)

USER_HASHINGS_WAITING_LIMIT = 32
"""Different passwords of one user that wait to be checked for one address: some seconds, of the 30 that one may wait."""
API_KEY_HASHINGS_WAITING_LIMIT = 16
"""API keys, which may be a password, that wait to be checked for one address."""
FREE_FAILURES = 5
"""So many wrong passwords of one name from one address are answered without a delay."""
FAILURE_DELAY_SECONDS = 0.25
"""Of the next one; it doubles with each."""
LONGEST_FAILURE_DELAY_SECONDS = 4.0
DELAYED_FAILURES_LIMIT = 128
"""Wrong passwords of one name from one address that wait for their answers; more than are checked in the longest delay."""
FAILURES_LIFE_SECONDS = 300.0
COUNTED_FAILURES_LIMIT = 4096
_SHOWN_USER_CHARACTERS = 100
HASHING_TIMEOUT_SECONDS = 30.0
API_KEY_PARAMETERS = ("api_key", "apikey")
"""Query parameters that old clients send the API key in."""
REMEMBERED_LIMIT = 1024
REMEMBERED_FAILURES_LIMIT = 256
_NOBODY = ""
"""Stands for every name that no credential set has."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, once that is proven."""

    user: str
    namespace: str
    owner: str
    quota: Quota = NO_QUOTA
    """As its credential set has it."""
    fingerprint: str = ""
    """Of its credential set."""


class TooManyFailuresError(TooManyRequestsError):
    """A password is wrong, and too many wrong ones wait for their answers already."""

    def __init__(self) -> None:
        super().__init__("Too many wrong passwords for this user from this address; try again in a second.")


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

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._sets: tuple[CredentialSet, ...] = ()
        # The remembered tags are worthless outside this process.
        self._tag_key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, Caller] = OrderedDict()
        # Apart: guesses shall push nobody's password out.
        self._remembered_failures: OrderedDict[bytes, None] = OrderedDict()
        self._checks: dict[bytes, asyncio.Future[Caller | None]] = {}
        self._waiting = _Places()
        self._delayed = _Places()
        self._failures = _Failures()
        self._turns = _build_turns()
        self._names = _Names()
        self._addresses_of_api_keys = _build_turns()
        # One thread each: two hashings at a time in all.
        self._password_hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="password")
        self._api_key_hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="api-key")
        # An unknown user costs as much as a known one.
        self._nobody = PasswordHash.of(secrets.token_hex(16))
        self._nobodys_turns = _SharedTurns(self._check_nobody)

    def use(self, sets: Iterable[CredentialSet]) -> None:
        """Check against these sets from now on."""
        self._sets = tuple(sets)
        current = {_caller(item) for item in self._sets}
        # Who has changed logs in anew, and nobody else.
        self._remembered = OrderedDict((tag, caller) for tag, caller in self._remembered.items() if caller in current)
        self._remembered_failures.clear()
        self._checks.clear()
        # Hashes of an older or a newer version may cost something else.
        password_hash = next((item.password_hash for item in self._sets if item.password_hash is not None), None)
        if password_hash is not None:
            self._nobody = password_hash.unmatchable()

    @property
    def has_sets(self) -> bool:
        """Whether anybody can log in."""
        return bool(self._sets)

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces of all sets."""
        return frozenset(item.namespace for item in self._sets)

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str], address: str = "") -> Caller:
        """Who sends a request with these headers and query parameters, from this address.

        Raises:
            UnauthorizedError: nobody known.
            TooManyRequestsError, UnavailableError: too many passwords wait to be checked.
        """
        scheme, _, value = headers.get("authorization", "").strip().partition(" ")
        match scheme.lower():
            case "basic":
                credentials = parse_basic(value)
            case "bearer":
                caller = self._find_subject(await self._tokens.read(value.strip()), address)
                if caller is None:
                    raise UnauthorizedError
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
        """Whose API key it is; None where it is nobody's. Raises as `authenticate`."""
        return await self._check(_api_key_credentials(api_key), address)

    async def find_refresh_token(self, token: str, address: str = "") -> Caller | None:
        """Whom a refresh token was given to; None where it is not good, or no more."""
        return self._find_subject(await self._tokens.read_refresh(token), address)

    def close(self) -> None:
        """Stop the threads."""
        for hasher in (self._password_hasher, self._api_key_hasher):
            hasher.shutdown(wait=False, cancel_futures=True)

    def _find_subject(self, subject: TokenSubject | None, address: str) -> Caller | None:
        for item in self._sets if subject is not None else ():
            if subject == TokenSubject(user=item.user, fingerprint=item.fingerprint):
                return _caller(item)
        _log_failure("token", None if subject is None else subject.user, address)
        return None

    async def _check(self, credentials: BasicCredentials | None, address: str) -> Caller | None:
        user = None if credentials is None else credentials.user
        kind = "API key" if user == API_KEY_USER else "password"
        try:
            caller = (
                None if credentials is None else await self._find_caller(credentials, _Source.of(credentials.user, address))
            )
        except TooManyFailuresError:
            _log_failure(kind, user, address)
            raise
        if caller is None:
            _log_failure(kind, user, address)
        return caller

    async def _find_caller(self, credentials: BasicCredentials, source: _Source) -> Caller | None:
        message = f"{credentials.user}:{credentials.password}".encode()
        tag = hmac.digest(self._tag_key, message, hashlib.sha256)
        if tag in self._remembered:
            self._remembered.move_to_end(tag)
            return self._remembered[tag]
        if tag in self._remembered_failures:
            self._remembered_failures.move_to_end(tag)
            return None
        # A client that opens many connections at once is checked once.
        check = self._checks.get(tag)
        if check is None:
            if credentials.user == API_KEY_USER:
                # Known keys need no slow hash, and never wait.
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
        # A check that began before the sets were changed says nothing about the new ones.
        if self._checks.get(tag) is not done:
            return
        del self._checks[tag]
        if done.cancelled() or done.exception() is not None:
            return
        caller = done.result()
        if caller is None:
            self._remembered_failures[tag] = None
        else:
            self._remembered[tag] = caller
        while len(self._remembered) > REMEMBERED_LIMIT:
            self._remembered.popitem(last=False)
        while len(self._remembered_failures) > REMEMBERED_FAILURES_LIMIT:
            self._remembered_failures.popitem(last=False)

    async def _verify(self, credentials: BasicCredentials, source: _Source) -> Caller | None:
        try:
            if credentials.user == API_KEY_USER:
                # Not slowed down: the name is everybody's, and keys are not guessed.
                async with self._addresses_of_api_keys.slot(source.subscriber):
                    return await self._verify_api_key(credentials.password)
            caller = await self._verify_password(credentials, source)
        finally:
            # Before any delay: behind a proxy the right password may come from the address of those who guess.
            self._waiting.give_back(source)
        if caller is None:
            await self._delay_failure(source)
        return caller

    async def _delay_failure(self, source: _Source) -> None:
        seconds = self._failures.count(source)
        if not seconds:
            return
        if not self._delayed.take(source, DELAYED_FAILURES_LIMIT):
            raise TooManyFailuresError
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delayed.give_back(source)

    async def _verify_password(self, credentials: BasicCredentials, source: _Source) -> Caller | None:
        found: CredentialSet | None = None
        for item in self._sets:
            if hmac.compare_digest(item.user.encode(), credentials.user.encode()):
                found = item
        async with self._names.turn(source):
            if found is None:
                await self._nobodys_turns.join()
                return None
            # Slow for those without a hash as well, whoever they are: how long it takes shall tell nothing.
            async with self._turns.slot(found.user):
                password_hash = found.password_hash or self._nobody
                matches = await _matches(self._password_hasher, password_hash, credentials.password)
        if found.password_hash is None:
            matches = self._find_known_api_key(credentials.password) == _caller(found)
        return _caller(found) if matches else None

    async def _check_nobody(self, begin: Callable[[], None]) -> None:
        async with self._turns.slot(_NOBODY):
            begin()
            await _matches(self._password_hasher, self._nobody, _NOBODY)

    def _find_known_api_key(self, api_key: str) -> Caller | None:
        digest = hash_api_key(api_key)
        found: CredentialSet | None = None
        for item in self._sets:
            if item.api_key_sha256 is not None and hmac.compare_digest(item.api_key_sha256, digest):
                found = item
        return None if found is None else _caller(found)

    async def _verify_api_key(self, api_key: str) -> Caller | None:
        """Whether it is the password of a set that has no key of its own."""
        for item in self._sets:
            if item.api_key_sha256 is not None or item.password_hash is None:
                continue
            if await _matches(self._api_key_hasher, item.password_hash, api_key):
                return _caller(item)
        return None


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a log-in comes from: what is waited for, counted and slowed down."""

    user: str
    subscriber: str

    @classmethod
    def of(cls, user: str, address: str) -> _Source:
        # A digest, because names of any length are kept.
        return cls(user=hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest(), subscriber=subscriber_of(address))


class _Places:
    """How many places each source has taken."""

    def __init__(self) -> None:
        self._taken: Counter[_Source] = Counter()

    def take(self, source: _Source, limit: int) -> bool:
        """Take one; false where the source has as many as the limit."""
        if self._taken[source] >= limit:
            return False
        self._taken[source] += 1
        return True

    def give_back(self, source: _Source) -> None:
        self._taken[source] -= 1
        if not self._taken[source]:
            del self._taken[source]


class _Names:
    """Checks of one name go one after the other, whether or not somebody has it; the addresses they come from take turns."""

    def __init__(self) -> None:
        self._addresses: dict[str, FairSlots] = {}
        self._checks: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, source: _Source) -> AsyncIterator[None]:
        addresses = self._addresses.setdefault(source.user, _build_turns())
        self._checks[source.user] += 1
        try:
            async with addresses.slot(source.subscriber):
                yield
        finally:
            self._checks[source.user] -= 1
            if not self._checks[source.user]:
                del self._checks[source.user], self._addresses[source.user]


class _SharedTurns:
    """Turns of all the names that nobody has, of which there is no end: many checks take one together.

    Each is waited for as a user waits for a turn of their own: whoever comes while one is in line takes the next.
    """

    def __init__(self, take: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """`take` waits for a turn, calls what it is given when that begins, and returns at its end."""
        self._take = take
        self._in_line: asyncio.Task[None] | None = None
        self._behind: asyncio.Future[asyncio.Task[None]] | None = None

    async def join(self) -> None:
        """Returns at the end of a turn that begins from now on. Raises what `take` raises."""
        if self._in_line is None:
            self._in_line = asyncio.create_task(self._take_one())
            turn = self._in_line
        else:
            if self._behind is None:
                self._behind = asyncio.get_running_loop().create_future()
            turn = await asyncio.shield(self._behind)
        await asyncio.shield(turn)

    async def _take_one(self) -> None:
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = True
            self._in_line = None
            if self._behind is not None:
                behind, self._behind = self._behind, None
                self._in_line = asyncio.create_task(self._take_one())
                behind.set_result(self._in_line)

        try:
            await self._take(begin)
        finally:
            if not begun:
                begin()


class _Failures:
    """How often log-ins failed lately, and how long the next failure is kept waiting for its answer."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[_Source, tuple[int, float]] = OrderedDict()

    def count(self, source: _Source) -> float:
        """Count one more; the seconds that its answer waits."""
        now = self._clock()
        count, last = self._counts.pop(source, (0, now))
        count = count + 1 if now - last < FAILURES_LIFE_SECONDS else 1
        self._counts[source] = count, now
        if len(self._counts) > COUNTED_FAILURES_LIMIT:
            self._counts.popitem(last=False)
        if count <= FREE_FAILURES:
            return 0.0
        return float(min(FAILURE_DELAY_SECONDS * 2 ** min(count - FREE_FAILURES - 1, 10), LONGEST_FAILURE_DELAY_SECONDS))


def _build_turns() -> FairSlots:
    return FairSlots("logins are checked", total=1, share=1, timeout_seconds=HASHING_TIMEOUT_SECONDS)


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


class CredentialsFolder:
    """Keeps an `Authenticator` at what a folder holds: a mounted Secret changes without a restart."""

    def __init__(
        self,
        folder: Path,
        authenticator: Authenticator,
        on_change: Callable[[frozenset[str]], None],
        *,
        reserved_namespace: str,
    ) -> None:
        self._folder = folder
        self._reserved_namespace = reserved_namespace
        self._authenticator = authenticator
        self._on_change = on_change
        self._read: tuple[CredentialSet, ...] | None = None
        self.problems: tuple[str, ...] = ()
        """A sentence for each entry that cannot be used."""

    async def refresh(self) -> None:
        """Read the folder, and use what it holds if that changed. `on_change` is told the namespaces."""
        reading = await asyncio.to_thread(read_credentials, self._folder, reserved_namespace=self._reserved_namespace)
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
