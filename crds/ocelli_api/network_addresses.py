"""Network addresses that gateway and trainer may connect to for a user: public addresses and allowed networks, except denied
networks. It must not know the purpose of a connection.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The addresses of the public internet (RFC 4291, IANA). All others have special meanings."""
# Newer versions of Python know more of IANA's registries; these networks are refused with each version.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carrier-grade NAT
        "168.63.129.16/32",  # settings and certificates of Azure's virtual machines
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address. In `64:ff9b:1::/48` (RFC 8215) only the network that uses it knows which bits
are the address, so nothing in it is public."""
_COMPATIBLE = IPv6Network("::/96")
"""RFC 4291, withdrawn: the last 32 bits are an IPv4 address, or it is `::` or `::1`."""
_IPV4_BITS = (1 << 32) - 1
_INTERNAL_SUFFIXES = ("localhost", "local", "internal", "home.arpa")
"""Domains without a meaning on the internet (RFC 6761, RFC 6762, RFC 8375, ICANN). The domain of a cluster is in one of
them."""
_INTERNAL_LABELS = ("svc", "pod")
"""Parts of the names of Services and Pods, with any domain of the cluster."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation, separated by commas. Raises ValueError that names the first invalid one."""
    return tuple(ipaddress.ip_network(item.strip()) for item in text.split(",") if item.strip())


@dataclass(frozen=True, kw_only=True)
class NetworkRules:
    """Networks that an installation allows and denies."""

    allowed: tuple[Network, ...] = ()
    """Allowed although they are private."""
    denied: tuple[Network, ...] = ()
    """Denied although they are public or allowed."""

    @classmethod
    def parse(cls, *, allowed: str, denied: str) -> NetworkRules:
        """From lists in CIDR notation, separated by commas. Raises ValueError that names the first invalid item."""
        return cls(allowed=parse_networks(allowed), denied=parse_networks(denied))

    @property
    def internal_names(self) -> bool:
        """Whether names of the cluster may be resolved, because they may lead to an allowed network."""
        return bool(self.allowed)

    def may_connect(self, host: str) -> bool:
        """Whether a connection to this numeric address is allowed. An IPv6 zone may follow the address."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return self._is_allowed(address)

    def _is_allowed(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            # The kernel opens an IPv4 connection for such an address.
            return self._is_allowed(address.ipv4_mapped)
        inner = _embedded(address) if isinstance(address, IPv6Address) else ()
        if any(_is_in(item, self.denied) for item in (address, *inner)):
            return False
        if _is_in(address, self.allowed):
            return True
        if inner:
            return all(self._is_allowed(item) for item in inner)
        return _is_public(address)


def is_internal_name(name: str) -> bool:
    """Whether a name (without a dot at its end) has a meaning only inside the cluster or its network."""
    labels = name.lower().split(".")
    suffixes = (".".join(labels[-1:]), ".".join(labels[-2:]))
    return (
        len(labels) == 1
        or any(label in _INTERNAL_LABELS for label in labels)
        or any(suffix in _INTERNAL_SUFFIXES for suffix in suffixes)
    )


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if _is_in(address, _SPECIAL):
        return False
    return address.is_global and not address.is_multicast


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which a translator or tunnel would send packets."""
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64 or address in _COMPATIBLE:
        return (IPv4Address(int(address) & _IPV4_BITS),)
    return ()
