"""Fixtures of the gateway's tests."""

from tests.unit.gateway.fixtures import client, gateway, stage

__all__ = ["client", "gateway", "stage"]
