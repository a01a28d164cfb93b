"""Servers that are replaced under load, one after the other, and clients that keep their connections."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import ExitStack

import pytest

from ocelli_gateway.http_protocol import build_protocol
from tests.unit.http.test_connection import Address, running_server

DRAINS = 10
CLIENTS = 4


class Service:
    """The address for new connections."""

    def __init__(self) -> None:
        self.address: Address = ("", 0)


def send_on(service: Service, stop: threading.Event, pause_seconds: float, failures: list[str], counts: list[int]) -> None:
    connection: http.client.HTTPConnection | None = None
    count = 0
    while not stop.is_set():
        if connection is None:
            connection = http.client.HTTPConnection(*service.address, timeout=10)
        try:
            connection.request("GET", "/quick")
            answer = connection.getresponse()
            answer.read()
            count += 1
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
            connection.close()
            connection = None
            continue
        if answer.will_close:
            connection.close()
            connection = None
        # Idle in between, so that servers also end while connections are idle.
        time.sleep(pause_seconds)
    counts.append(count)
    if connection is not None:
        connection.close()


@pytest.mark.slow
def test_no_request_of_a_kept_connection_fails_while_servers_are_replaced() -> None:
    service, stop = Service(), threading.Event()
    failures: list[str] = []
    counts: list[int] = []
    clients = [
        threading.Thread(target=send_on, args=(service, stop, 0.003 * (index + 1) ** 3, failures, counts))
        for index in range(CLIENTS)
    ]
    with ExitStack() as last:
        previous: ExitStack | None = None
        for _ in range(DRAINS + 1):
            current = ExitStack()
            service.address, _server = current.enter_context(
                running_server({"http": build_protocol(stall_seconds=60)}, drain_seconds=10)
            )
            if previous is None:
                for client in clients:
                    client.start()
            else:
                # Its clients know the new one by now, as after a change of endpoints.
                previous.close()
            previous = current
        assert previous is not None
        last.enter_context(previous)
        stop.set()
        for client in clients:
            client.join(10)
    assert failures == []
    assert len(counts) == CLIENTS
    assert sum(counts) > 10 * DRAINS
