"""`python -m ocelli_operator`: the composition root. Settings come from environment variables, see `settings`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from ocelli_api.log_lines import configure_logging
from ocelli_api.settings import SettingsError, load_settings
from ocelli_cluster.client import ClusterClient, CredentialsError
from ocelli_operator.handlers import run_operator
from ocelli_operator.operation import Operation
from ocelli_operator.settings import OperatorSettings
from ocelli_storage.object_store import StoreConfigurationError
from ocelli_storage.store_url import open_store

logger = logging.getLogger("ocelli_operator")

EXIT_MISCONFIGURED = 2
STORE_RETRY_LIMIT_SECONDS = 1.0
"""The operator itself retries later everything that needs the store, and does not block meanwhile."""


async def run(config: OperatorSettings) -> None:
    """Run the operator until a signal arrives."""
    store = open_store(config.children.store_url, retry_limit_seconds=STORE_RETRY_LIMIT_SECONDS)
    async with await ClusterClient.connect() as client:
        await run_operator(Operation(client, store, config), client, config)


def main() -> int:
    """Return the exit code."""
    try:
        config = load_settings(OperatorSettings, os.environ)
    except SettingsError as error:
        print(f"ocelli-operator: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    configure_logging(config.children.log_level, talkative=("kopf", "aiohttp.access"))
    try:
        asyncio.run(run(config))
    except (CredentialsError, StoreConfigurationError) as error:
        logger.error("cannot start: %s", error)
        return EXIT_MISCONFIGURED
    return 0


if __name__ == "__main__":
    sys.exit(main())
