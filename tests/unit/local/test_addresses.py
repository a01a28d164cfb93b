"""Loopback ranges of concurrent clusters."""

from __future__ import annotations

import socket

from ocelli_local.addresses import LoopbackRange, find_free_port


def test_claimed_range_is_not_given_again() -> None:
    first, second = LoopbackRange.claim("same"), LoopbackRange.claim("same")
    try:
        assert first.number != second.number
        assert first.preferred_api_port != second.preferred_api_port
    finally:
        first.release()
        second.release()


def test_same_preference_gets_the_same_range_again() -> None:
    first = LoopbackRange.claim("one folder")
    first.release()
    second = LoopbackRange.claim("one folder")
    second.release()
    assert first.number == second.number


def test_released_address_is_reused_late() -> None:
    loopback = LoopbackRange.claim("pods")
    try:
        first = loopback.take_pod_address()
        loopback.release_pod_address(first)
        assert loopback.take_pod_address() != first
    finally:
        loopback.release()


def test_used_port_is_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.15.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert find_free_port("127.15.0.1", port) != port
