"""The addresses on which a server listens."""

from __future__ import annotations

import socket

import pytest

from ocelli_http.server import BindError, bind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_address_is_one_of_ipv4_and_ipv6(host: str) -> None:
    with bind("*", 0) as listener, socket.create_connection((host, listener.getsockname()[1]), timeout=5):
        pass


def test_without_ipv6_every_address_is_one_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with bind("*", 0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_address_in_use_is_reported() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1 port \d+: Address"):
        bind("127.0.0.1", listener.getsockname()[1])
