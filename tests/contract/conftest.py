"""Fixtures of the gateway's tests."""

from tests.gateway_harness.fixtures import client, gateway, management, stage

__all__ = ["client", "gateway", "management", "stage"]
