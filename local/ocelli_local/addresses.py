"""Loopback addresses: which part of 127.0.0.0/8 a cluster has for itself, and ports in it.

Owns the claim on a range, so that clusters side by side, of any user, never collide. The claim is a socket in the
kernel's abstract namespace: it is as wide as the loopback interface itself (one network namespace), and it ends with
the process that holds it, however that ends.
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
    """The addresses 127.NUMBER.0.0/16, for as long as it is held."""

    number: int
    _claim: socket.socket
    _next_pod: int = 0
    _used: set[str] = field(default_factory=set)

    @classmethod
    def claim(cls, preference: str) -> LoopbackRange:
        """A free range; the same `preference` gets the same range again if nobody else has it."""
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
        raise AddressesError(f"all {count} loopback ranges are held by running clusters; stop some (`ocelli-local down`)")

    @property
    def infrastructure_address(self) -> str:
        """Where etcd and the node serve."""
        return f"127.{self.number}.0.1"

    @property
    def preferred_api_port(self) -> int:
        """A port on 127.0.0.1 that no other cluster prefers."""
        return API_PORT_BASE + self.number

    def take_pod_address(self) -> str:
        """An address that no running Pod has; a released one comes back as late as possible."""
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
    """`first`, then others far from it, so that neighbours' first choices are not taken."""
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
    raise AddressesError(f"no port from {first} on is free on {address}; stop what listens there")
