"""The tutorial's REST calls, and the curl command of each."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

VERSION = "2018-03-19"
Form = dict[str, str | Path]
"""Fields of a form: texts and files."""


class TutorialError(Exception):
    """The gateway did not answer as the tutorial expects."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Address of the gateway, and the user who logs in."""

    address: str
    user: str
    password: str

    def curl(self, method: str, path: str, form: Form | None = None, **query: str) -> str:
        """The curl command of a call, ready to paste; the shell replaces `$ID`."""
        words = ["curl"] + ([] if method == "GET" else ["-X", method]) + ["-u", shlex.quote(f"{self.user}:{self.password}")]
        for name, value in (form or {}).items():
            words += ["-F", _quoted(f"{name}=@{value}" if isinstance(value, Path) else f"{name}={value}")]
        pairs = "&".join(f"{name}={value}" for name, value in {"version": VERSION, **query}.items())
        return " ".join([*words, _quoted(f"{self.address}{path}?{pairs}")])


def _quoted(text: str) -> str:
    return f'"{text}"' if "$ID" in text else shlex.quote(text)


class TutorialClient:
    """Calls with one connection pool."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self.service = service
        self._session = session
        self._headers = {"Authorization": aiohttp.encode_basic_auth(service.user, service.password)}

    async def call(
        self, method: str, path: str, form: Form | None = None, *, expect: int = 200, **query: str
    ) -> dict[str, Any]:
        """One call.

        Raises:
            TutorialError: the status is not the expected one, or there is no answer.
        """
        data: aiohttp.FormData | None = None
        if form is not None:
            data = aiohttp.FormData()
            for name, value in form.items():
                if isinstance(value, Path):
                    data.add_field(name, value.read_bytes(), filename=value.name, content_type="application/octet-stream")
                else:
                    data.add_field(name, value)
        url = self.service.address + path
        parameters = {"version": VERSION, **query}
        try:
            async with self._session.request(method, url, params=parameters, data=data, headers=self._headers) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TutorialError(
                f"{method} {path}: no answer from {self.service.address} ({error!r}); check that `make run` is still running"
            ) from error
        if response.status != expect:
            raise TutorialError(f"{method} {path} answered {response.status}, not {expect}: {text}")
        document: dict[str, Any] = json.loads(text)
        return document

    async def wait_until_settled(self, classifier_id: str, timeout_seconds: float = 300) -> dict[str, Any]:
        """Poll until the classifier is `ready`.

        Raises:
            TutorialError: it failed, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            details = await self.call("GET", f"/v3/classifiers/{classifier_id}")
            if details["status"] == "ready":
                return details
            if details["status"] == "failed":
                raise TutorialError(f"{classifier_id} failed: {details.get('explanation')}")
            if time.monotonic() > deadline:
                raise TutorialError(f"{classifier_id} is still {details['status']} after {timeout_seconds:.0f} s")
            await asyncio.sleep(0.25)
