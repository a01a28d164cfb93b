"""What one client can do to others by the way it sends: slowly, too much at once, or not staying for the answer."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, suppress

import httpx

from tests.unit.gateway.harness import (
    MULTIPART_TYPE,
    GatewayInstance,
    Stage,
    V3Client,
    body_of,
    connect,
    head,
    multipart,
    png,
    read_answer,
    status_of,
    wait_for,
)

TOKEN_HEAD = (
    b"POST /identity/token HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)
CREATE_HEAD = head("POST", "/v3/classifiers?version=2018-03-19", f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 9000")


def answer_to_drip(gateway: GatewayInstance, request: bytes) -> bytes:
    """The answer to a body of which a byte comes ten times a second."""
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


def test_upload_that_drips_is_400_that_names_the_least_rate(stage: Stage) -> None:
    gateway = stage.start_gateway(body_timeout_seconds=0.5)
    answer = answer_to_drip(gateway, CREATE_HEAD + b'--BOUNDARY\r\nContent-Disposition: form-data; name="name"\r\n\r\n')
    assert status_of(answer) == 400
    assert "The request body arrives too slowly: " in body_of(answer)["error"]
    assert "send at least 32 KB a second." in body_of(answer)["error"]


def test_form_of_a_token_that_drips_is_400(stage: Stage) -> None:
    gateway = stage.start_gateway(body_timeout_seconds=0.5)
    assert status_of(answer_to_drip(gateway, TOKEN_HEAD)) == 400


def test_requests_that_find_the_queue_of_their_tenant_full_are_429_at_once(stage: Stage) -> None:
    gateway = stage.start_gateway(uploads_at_once=1)
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


def test_client_that_left_gives_up_its_place_in_the_queue(stage: Stage) -> None:
    gateway = stage.start_gateway(uploads_at_once=1)
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

        # It waits for its turn, behind nobody.
        wait_for(lambda: patient_status() == 0, "there is a place in the queue")


def test_classify_whose_client_left_asks_no_more_servers(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("herons")
    (server,) = stage.finish_training(classifier_id)
    server.may_answer = stage.call(asyncio.Event)
    gateway = stage.start_gateway(images_at_once=2, tenant_share_percent=50)
    image = [("images_file", (f"{index}.png", png(index))) for index in range(5)]
    with_timeout = connect(gateway, stage).http
    with with_timeout, suppress(httpx.TimeoutException):
        with_timeout.post("/v3/classify", files=image, data={"classifier_ids": classifier_id}, timeout=0.5)
    asked = server.asked
    time.sleep(0.3)
    stage.call(server.may_answer.set)
    assert connect(gateway, stage).get(classifier_id).status_code == 200
    assert server.asked == asked
