"""The client's address of a request."""

from __future__ import annotations

import pytest

from ocelli_api.network_addresses import parse_networks
from ocelli_gateway.client_address import find_client_address, subscriber_of

TRUSTED = parse_networks("10.0.0.0/8,fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("fd00::1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("203.0.113.9", ["192.0.2.1"], "203.0.113.9"),
        (None, ["192.0.2.1"], ""),
    ],
)
def test_address_is_the_last_one_that_is_not_a_trusted_proxy(peer: str | None, forwarded: list[str], address: str) -> None:
    assert find_client_address(peer, forwarded, TRUSTED) == address


def test_header_is_ignored_without_trusted_proxies() -> None:
    assert find_client_address("10.0.0.1", ["203.0.113.7"], ()) == "10.0.0.1"


def test_addresses_of_one_ipv6_network_count_as_one_client() -> None:
    assert subscriber_of("2001:db8::1") == subscriber_of("2001:db8::2") != subscriber_of("2001:db8:0:1::1")
