"""Tests that take too long for `make test`: old clients and many drains. Only `make test-long` collects them."""

from __future__ import annotations

import os

from tests.integration.gateway.conftest import gateway_kubeconfig, start_gateway

__all__ = ["collect_ignore_glob", "gateway_kubeconfig", "start_gateway"]

LONG_VARIABLE = "OCELLI_LONG_TESTS"

collect_ignore_glob = [] if LONG_VARIABLE in os.environ else ["test_*.py"]
