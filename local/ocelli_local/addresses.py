"""Loopback addresses: the part of 127.0.0.0/8 that a cluster reserves, and ports in it.

Owns the claim on a range, so that concurrent clusters of all users use different addresses. The claim is a socket in the
kernel's abstract namespace: its scope is one network namespace, as that of the loopback interface, and the kernel removes
it when its process ends.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

FIRST_RANGE = 16
LAST_RANGE = 254
API_PORT_BASE = 26000


class AddressesError(Exception):
    """No range or port is free."""


@dataclass
class LoopbackRange:
    """The addresses 127.NUMBER.0.0/16, until `release`."""

    number: int
    _claim: socket.socket
    _next_pod: int = 0
    _used: set[str] = field(default_factory=set)

    @classmethod
    def claim(cls, preference: str) -> LoopbackRange:
        """A free range; the same `preference` gets the same range again if it is free."""
        digest = hashlib.sha256(preference.encode()).digest()
        count = LAST_RANGE - FIRST_RANGE + 1
        start = int.from_bytes(digest[:4], "big") % count
        for offset in range(count):
            number = FIRST_RANGE + (start + offset) % count
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0ocelli-local-range-{number}")
            except OSError:
                claim.close()
                continue
            return cls(number=number, _claim=claim)
        raise AddressesError(f"all {count} loopback ranges are used by running clusters; stop some (`ocelli-local down`)")

    @property
    def infrastructure_address(self) -> str:
        """The address of etcd and the node."""
        return f"127.{self.number}.0.1"

    @property
    def preferred_api_port(self) -> int:
        """A port on 127.0.0.1 that no other cluster prefers."""
        return API_PORT_BASE + self.number

    def take_pod_address(self) -> str:
        """An address that no running Pod has; a released one is reused as late as possible."""
        for _ in range(250 * 250):
            index = self._next_pod
            self._next_pod = (self._next_pod + 1) % (250 * 250)
            address = f"127.{self.number}.{1 + index // 250}.{1 + index % 250}"
            if address not in self._used:
                self._used.add(address)
                return address
        raise AddressesError(f"all Pod addresses of 127.{self.number}.0.0/16 are in use; delete some Pods")

    def release_pod_address(self, address: str) -> None:
        self._used.discard(address)

    def release(self) -> None:
        self._claim.close()


def candidate_ports(first: int) -> Iterator[int]:
    """`first`, then others at a distance, so that the first choices of other clusters stay free."""
    return itertools.chain([first], range(first + 256, first + 256 * 16, 256))


def find_free_port(address: str, first: int) -> int:
    """A port of `address` that can be bound now, `first` if possible."""
    for port in candidate_ports(first):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise AddressesError(f"none of the ports {first}, {first + 256}, … is free on {address}; stop a program that listens there")
