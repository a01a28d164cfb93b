"""The client's address of a request, as far as it can be trusted. It must not know what the address is used for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address

from ocelli_api.network_addresses import Address, Network

FORWARDED_HEADER = "x-forwarded-for"
_SUBSCRIBER_BITS = 64


def find_client_address(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """The address of a client behind proxies.

    `peer` opened the connection; `forwarded` are the values of the header `X-Forwarded-For`. Each proxy appends the address of
    its client, so the last address that is not a trusted proxy is the client's. Any client can write the addresses before it.
    """
    address = _parse(peer or "")
    if address is None:
        return peer or ""
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and any(address.version == network.version and address in network for network in trusted):
        before = _parse(hops.pop())
        if before is None:
            break
        address = before
    return str(address)


def subscriber_of(address: str) -> str:
    """The network of an IPv6 address, since one client has many addresses in it; other addresses are returned as they are."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ipaddress.ip_network((parsed, _SUBSCRIBER_BITS), strict=False))
    return address


def _parse(text: str) -> Address | None:
    """An address, with or without a port and brackets; an IPv4 address in IPv6 form becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
