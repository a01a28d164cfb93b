"""The management API on a real cluster: its store is reached over the network, and its events pass a Service."""

from tests.product.test_management_life import *  # noqa: F403
