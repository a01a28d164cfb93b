"""The liveness endpoint of a running operator: a stuck reconcile makes it fail, and the log names the Classifier."""

from __future__ import annotations

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.settings import load_settings
from ocelli_cluster.client import Credentials
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.handlers import run_operator
from ocelli_operator.settings import OperatorSettings

DEADLINE_SECONDS = 20.0


class StandingOperation:
    """An operation whose longest reconcile is set by a test."""

    watch_age_seconds = 0.0

    def __init__(self, oldest: tuple[ObjectKey, float] | None) -> None:
        self._oldest = oldest
        self.ended = asyncio.Event()

    def oldest_reconcile(self) -> tuple[ObjectKey, float] | None:
        return self._oldest

    async def run(self) -> None:
        await self.ended.wait()


class NoCluster:
    async def credentials(self) -> Credentials:
        return Credentials(
            server="http://127.0.0.1:9",
            ca_path=None,
            insecure=True,
            scheme=None,
            token=None,
            certificate_path=None,
            private_key_path=None,
        )


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(config: OperatorSettings) -> int | None:
    """The HTTP status; None while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{config.health_port}/healthz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return None


def probe(oldest: tuple[ObjectKey, float] | None) -> int:
    config = replace(load_settings(OperatorSettings, {"OCELLI_STORE_URL": "file:///store"}), health_port=find_free_port())

    async def scenario() -> int:
        operation: Any = StandingOperation(oldest)
        client: Any = NoCluster()
        running = asyncio.create_task(run_operator(operation, client, config))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (status := await asyncio.to_thread(ask, config)) is None:  # noqa: ASYNC110 - kopf does not signal its start
                    await asyncio.sleep(0.02)
                return status
        finally:
            operation.ended.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(scenario())


KEY = ObjectKey("team-a", "dogs")


@pytest.mark.parametrize("oldest", [None, (KEY, 299.0)])
def test_it_is_alive_while_reconciles_end(oldest: tuple[ObjectKey, float] | None) -> None:
    assert probe(oldest) == 200


def test_a_stuck_reconcile_fails_liveness_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert probe((KEY, 301.0)) == 500
    assert [record.__dict__["classifier"] for record in caplog.records if record.message == "reconcile is stuck"] == [str(KEY)]
