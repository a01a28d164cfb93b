"""The folder that the Secret of the credential sets is mounted in, read again and again: it changes without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ocelli_gateway.auth import Authenticator
from ocelli_gateway.credential_sets import CredentialSet, read_credentials

logger = logging.getLogger(__name__)


class CredentialsFolder:
    """Keeps an `Authenticator` up to date with a folder: a mounted Secret changes without a restart."""

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
        self.namespaces: frozenset[str] = frozenset()
        """The namespaces of all sets: empty where no user can log in."""
        self.problems: tuple[str, ...] = ()
        """A sentence for each entry that cannot be used."""

    async def refresh(self) -> None:
        """Read the folder and use its sets if they changed. `on_change` is called with their namespaces."""
        reading = await asyncio.to_thread(read_credentials, self._folder, reserved_namespace=self._reserved_namespace)
        if reading.problems != self.problems:
            for problem in reading.problems:
                logger.error("credentials are unusable", extra={"problem": problem})
        self.problems = reading.problems
        if reading.sets != self._read:
            self._read = reading.sets
            self._authenticator.use(reading.sets)
            logger.info("credentials read", extra={"sets": len(reading.sets)})
            self.namespaces = frozenset(item.namespace for item in reading.sets)
            self._on_change(self.namespaces)

    async def watch(self, poll_seconds: float) -> None:
        """Refresh periodically, until cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            try:
                await self.refresh()
            except Exception:
                # Without this, withdrawn credentials would stay valid.
                logger.exception("credentials could not be refreshed")
