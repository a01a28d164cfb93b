"""Polls the sources of Classifiers with `spec.pollInterval`: have the bytes behind their addresses changed?

It asks for headers only, a few addresses at a time and each Classifier at most once in its interval. It has no credentials,
because the operator may not read Secrets: the CRD refuses `pollInterval` for sources that need one. What a change means is
decided by `source_changes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ocelli_api.classifier import Classifier
from ocelli_api.polled_sources import (
    POLLED_LIMIT,
    find_polled_urls,
    hash_addresses,
    hash_validators,
    needs_poll,
    parse_interval,
)
from ocelli_cluster.resources import ObjectKey
from ocelli_http.guarded_client import ConnectionRules, GuardedClient
from ocelli_http.guarded_proxy import REFUSED_HEADER, AddressNotAllowedError
from ocelli_operator.observed import SourcePoll
from ocelli_storage.archives import shown_name

logger = logging.getLogger(__name__)

CLASSIFIERS_AT_A_TIME = 4
ADDRESSES_AT_A_TIME = 4
"""Of each Classifier."""
ADDRESS_SECONDS = 10.0
POLL_SECONDS = 120.0
"""Longest duration of one poll of a Classifier."""
FIRST_DELAY_SECONDS = 300.0
"""A new process spreads its first polls over this time, where an earlier one has polled the sources."""
_NO_HEAD_STATUSES = frozenset({403, 405, 501})
"""Answers to HEAD of servers that allow GET only: a signed address, for example, is signed for one method."""
_REDIRECTS_LIMIT = 10


class PollError(Exception):
    """An address says nothing about its contents. The message has fact and remedy, without the address."""


class ReadsHeaders(Protocol):
    """What finds the validator of one address."""

    async def find_validator(self, url: str) -> str:
        """A text that changes when the bytes change. Raises PollError."""

    async def close(self) -> None: ...


class HeaderReader:
    """Reads headers over the network, where the installation allows it."""

    def __init__(self, rules: ConnectionRules) -> None:
        self._client = GuardedClient(rules, user_agent="ocelli-operator")

    async def close(self) -> None:
        await self._client.close()

    async def find_validator(self, url: str) -> str:
        """The ETag of an address; without one, date and size. Raises PollError."""
        try:
            async with asyncio.timeout(ADDRESS_SECONDS):
                headers = await self._ask("HEAD", url) or await self._ask("GET", url)
        except AddressNotAllowedError as error:
            raise PollError(
                "it is in a private or denied network; use a public address, or have the network allowed"
            ) from error
        except TimeoutError as error:
            raise PollError("the server did not answer in time; try again when it is available") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise PollError("it cannot be reached; check the address and that the server is running") from error
        etag = headers.get("ETag", "") if headers is not None else ""
        if etag:
            # A weak one compares the same: servers change between the two when they compress.
            return etag.removeprefix("W/")
        date = "" if headers is None else headers.get("Last-Modified", "")
        if not date:
            raise PollError(
                "its server sends neither ETag nor Last-Modified; use a server that does, or raise spec.retrainNonce"
            )
        return f"{date} {'' if headers is None else headers.get('Content-Length', '')}"

    async def _ask(self, method: str, url: str) -> Mapping[str, str] | None:
        """The headers of the answer; None if the server does not support HEAD. Raises PollError and errors of aiohttp."""
        session = await self._client.open()
        address = URL(url, encoded=url.isascii() and " " not in url)
        async with session.request(
            method, address, max_redirects=_REDIRECTS_LIMIT + 1, allow_redirects=True, proxy=self._client.proxy_url
        ) as response:
            if REFUSED_HEADER in response.headers and response.status == 403:
                raise AddressNotAllowedError
            if method == "HEAD" and response.status in _NO_HEAD_STATUSES:
                return None
            if response.status != 200:
                raise PollError(f"the server answered {response.status}; correct the address, or restore the file")
            return response.headers


@dataclass(kw_only=True)
class _Polled:
    """One Classifier to poll."""

    urls: tuple[str, ...]
    interval_seconds: int
    next_at: float
    polling: bool = False
    result: SourcePoll | None = None


@dataclass(kw_only=True)
class SourcePolls:
    """Polls by interval. Runs until cancelled."""

    reader: ReadsHeaders
    wake: Callable[[ObjectKey], None]
    """Called after a poll that saw something else than the one before."""
    clock: Callable[[], float] = time.monotonic
    _polled: dict[ObjectKey, _Polled] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, key: ObjectKey, classifier: Classifier) -> SourcePoll | None:
        """The last poll of this Classifier's sources, which are polled from now on; None if there was none yet."""
        spec = classifier.spec
        if spec.poll_interval is None or classifier.deleted:
            self.forget(key)
            return None
        urls = find_polled_urls(spec)
        interval_seconds = parse_interval(spec.poll_interval)
        known = self._polled.get(key)
        if known is None or known.urls != urls:
            now = self.clock()
            # Nothing waits for it, and all Classifiers are new to a process that has just started.
            delay_seconds = 0.0 if needs_poll(classifier) else random.uniform(0, min(interval_seconds, FIRST_DELAY_SECONDS))
            known = _Polled(urls=urls, interval_seconds=interval_seconds, next_at=now + delay_seconds)
            self._polled[key] = known
            self._changed.set()
        elif known.interval_seconds != interval_seconds:
            known.next_at += interval_seconds - known.interval_seconds
            known.interval_seconds = interval_seconds
            self._changed.set()
        return known.result

    def forget(self, key: ObjectKey) -> None:
        """The Classifier is not polled any more."""
        self._polled.pop(key, None)

    def clear(self) -> None:
        """Another process polls from now on."""
        self._polled.clear()

    async def run(self) -> None:
        """Poll what is due."""
        places = asyncio.Semaphore(CLASSIFIERS_AT_A_TIME)
        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    now = self.clock()
                    for key, polled in list(self._polled.items()):
                        if not polled.polling and polled.next_at <= now:
                            polled.polling = True
                            tasks.create_task(self._poll(key, polled, places))
                    await self._wait()
            finally:
                await self.reader.close()

    async def _wait(self) -> None:
        """Sleep until the next Classifier is due, or others are."""
        due = [polled.next_at for polled in self._polled.values() if not polled.polling]
        timeout = max(0.0, min(due) - self.clock()) if due else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()

    async def _poll(self, key: ObjectKey, polled: _Polled, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                result = await self._look(polled)
            except Exception:
                logger.exception("sources could not be polled", extra={"classifier": str(key)})
                result = SourcePoll(
                    addresses=hash_addresses(polled.urls), fault="an unexpected error; the operator's log has it"
                )
        polled.next_at = self.clock() + polled.interval_seconds
        polled.polling = False
        self._changed.set()
        before, polled.result = polled.result, result
        if result != before and self._polled.get(key) is polled:
            self.wake(key)

    async def _look(self, polled: _Polled) -> SourcePoll:
        addresses = hash_addresses(polled.urls)
        if len(polled.urls) > POLLED_LIMIT:
            fault = f"{len(polled.urls)} addresses are too many to poll; merge them into at most {POLLED_LIMIT}, or pin some"
            return SourcePoll(addresses=addresses, fault=fault)
        validators: dict[str, str] = {}
        faults: list[str] = []
        places = asyncio.Semaphore(ADDRESSES_AT_A_TIME)

        async def look(url: str) -> None:
            async with places:
                try:
                    validators[url] = await self.reader.find_validator(url)
                except PollError as error:
                    faults.append(f"{_shown(url)}: {error}")

        try:
            async with asyncio.timeout(POLL_SECONDS):
                await asyncio.gather(*(look(url) for url in polled.urls))
        except TimeoutError:
            faults.append(f"the poll took longer than {POLL_SECONDS:.0f} s; use fewer addresses, or faster servers")
        complete = bool(polled.urls) and len(validators) == len(polled.urls)
        more = f" | and {len(faults) - 1} more" if len(faults) > 1 else ""
        return SourcePoll(
            addresses=addresses,
            digest=hash_validators(validators) if complete else None,
            # Sorted, so that the order of answers does not change status.
            fault=f"{sorted(faults)[0]}{more}" if faults else None,
        )


def _shown(url: str) -> str:
    """An address without credentials and query."""
    try:
        parts = urlsplit(url)
        return shown_name(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    except ValueError:
        return shown_name(url.split("?")[0].rpartition("@")[2])
