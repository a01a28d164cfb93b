"""One gateway on a real socket for each module, and a user of the command line who is logged in."""

from __future__ import annotations

import pytest

from tests.gateway_harness.fixtures import client, gateway, management, stage
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance
from tests.unit.clients.command_line import CommandLine

__all__ = ["client", "gateway", "management", "stage"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A user who has not logged in anywhere."""
    return CommandLine(home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def anna(stranger: CommandLine, gateway: GatewayInstance) -> CommandLine:
    """A user whose environment has the address and her credentials."""
    variables = {"OCELLI_URL": gateway.address, "OCELLI_USER": USER, "OCELLI_PASSWORD": PASSWORD}
    return CommandLine(home=stranger.home, environment=variables)
