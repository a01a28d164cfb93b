"""Clients that send slowly, send too much, or do not wait for the answer do not affect others."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.gateway_harness.images import png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, body_of, head, multipart, read_answer, status_of
from tests.gateway_harness.stage import GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import V3Client, connect

pytestmark = pytest.mark.slow

TOKEN_HEAD = (
    b"POST /identity/token HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)
CREATE_HEAD = head("POST", "/v3/classifiers?version=2018-03-19", f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 9000")


def answer_to_drip(gateway: GatewayInstance, request: bytes) -> bytes:
    """The answer to a body that arrives at ten bytes a second."""
    deadline = time.monotonic() + 10
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request)
        connection.settimeout(0.1)
        while time.monotonic() < deadline:
            connection.sendall(b"-")
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    return read_answer(connection)
            except TimeoutError:
                continue
    raise AssertionError("no answer: the body goes on as long as it likes")


def test_slow_upload_is_400_that_names_the_minimum_rate(stage: Stage) -> None:
    gateway = stage.start_gateway(body_timeout_seconds=0.5)
    answer = answer_to_drip(gateway, CREATE_HEAD + b'--BOUNDARY\r\nContent-Disposition: form-data; name="name"\r\n\r\n')
    assert status_of(answer) == 400
    assert "The request body arrives too slowly: " in body_of(answer)["error"]
    assert "send at least 8 KB a second." in body_of(answer)["error"]


def test_slow_form_of_a_token_is_400(stage: Stage) -> None:
    gateway = stage.start_gateway(body_timeout_seconds=0.5)
    assert status_of(answer_to_drip(gateway, TOKEN_HEAD)) == 400


def test_requests_beyond_the_queue_of_their_tenant_are_429_immediately(stage: Stage) -> None:
    gateway = stage.start_gateway(max_concurrent_uploads=1, connections=32)
    with ExitStack() as stack:
        # One is read, four wait.
        for _ in range(5):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
            connection.sendall(CREATE_HEAD)

        def full() -> bool:
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=0.5) as one_more:
                one_more.sendall(CREATE_HEAD)
                try:
                    return status_of(read_answer(one_more)) == 429
                except TimeoutError:
                    return False

        wait_for(full, "the queue is full")


def test_disconnected_client_leaves_the_queue(stage: Stage) -> None:
    gateway = stage.start_gateway(max_concurrent_uploads=1)
    address = ("127.0.0.1", gateway.port)
    form = multipart([('Content-Disposition: form-data; name="name"', b"birds")])
    length = f"Content-Length: {len(form)}"
    complete = head("POST", "/v3/classifiers?version=2018-03-19", f"Content-Type: {MULTIPART_TYPE}", length)
    with socket.create_connection(address, timeout=10) as holder:
        holder.sendall(CREATE_HEAD)
        for _ in range(12):
            with socket.create_connection(address, timeout=10) as leaving:
                leaving.sendall(complete + form)

        def patient_status() -> int:
            with socket.create_connection(address, timeout=0.5) as patient:
                patient.sendall(complete + form)
                try:
                    return status_of(read_answer(patient))
                except TimeoutError:
                    return 0

        # It waits for its turn, and is first in the queue.
        wait_for(lambda: patient_status() == 0, "there is a place in the queue")


def test_classify_stops_calling_servers_when_its_client_disconnects(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("herons")
    (server,) = stage.finish_training(classifier_id)
    server.may_answer = stage.call(asyncio.Event)
    gateway = stage.start_gateway(max_concurrent_images=2, tenant_share_percent=50)
    image = [("images_file", (f"{index}.png", png(index))) for index in range(5)]
    with_timeout = connect(gateway, stage).http
    with with_timeout, suppress(httpx.TimeoutException):
        with_timeout.post("/v3/classify", files=image, data={"classifier_ids": classifier_id}, timeout=0.5)
    wait_for(lambda: classify_requests(gateway, 400) == 1, "the gateway has noticed that the client left")
    stage.call(server.may_answer.set)
    assert connect(gateway, stage).get(classifier_id).status_code == 200
    assert server.asked == 1


@pytest.mark.parametrize("protocol", ["1.0", "1.1"])
def test_classify_is_answered_after_the_client_half_closes(stage: Stage, client: V3Client, protocol: str) -> None:
    classifier_id = client.created("herons")
    (server,) = stage.finish_training(classifier_id)
    gateway = stage.start_gateway()
    # Longer than the gateway's interval for probing the client.
    server.delay_seconds = 2.0
    form = multipart(
        [
            ('Content-Disposition: form-data; name="classifier_ids"', classifier_id.encode()),
            ('Content-Disposition: form-data; name="images_file"; filename="a.png"', png()),
        ]
    )
    request = head("POST", "/v3/classify?version=2018-03-19", f"Content-Type: {MULTIPART_TYPE}", f"Content-Length: {len(form)}")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request.replace(b"HTTP/1.1", f"HTTP/{protocol}".encode()) + form)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status_of(answer) == 200


def test_pipelined_requests_are_all_answered_after_the_client_half_closes(stage: Stage) -> None:
    gateway = stage.start_gateway()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head("GET", "/v3/classifiers?version=2018-03-19") * 5)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.count(b"HTTP/1.1 200 OK") == 5


def classify_requests(gateway: GatewayInstance, status: int) -> float:
    """How many classify requests had this answer."""
    wanted = f'ocelli_gateway_requests_total{{code="{status}",method="POST",route="/v3/classify"}} '
    lines = httpx.get(f"{gateway.internal_address}/metrics").text.splitlines()
    return next((float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)), 0.0)


def test_a_burst_of_creates_waits_for_its_turns(stage: Stage) -> None:
    gateway = stage.start_gateway(max_concurrent_uploads=2)
    form = multipart([('Content-Disposition: form-data; name="name"', b"birds")])
    length = f"Content-Length: {len(form)}"
    complete = head(
        "POST", "/v3/classifiers?version=2018-03-19", f"Content-Type: {MULTIPART_TYPE}", length, "Connection: close"
    )
    with ExitStack() as stack:
        connections = []
        for _ in range(100):
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20)))
            connections[-1].sendall(complete + form)
        # It has no examples.
        assert {status_of(read_answer(connection)) for connection in connections} == {400}
