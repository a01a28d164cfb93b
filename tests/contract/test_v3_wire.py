"""The behaviour of clients on the wire (Part D of the REST contract), byte by byte."""

from __future__ import annotations

import socket
import struct
import time

import httpx
import pytest

from tests.gateway_harness.images import build_zip, examples, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, head, multipart, read_answer, status_of
from tests.gateway_harness.stage import USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import V3Client, assert_error

QUERY = "?version=2018-03-19"
POSITIVE = 'Content-Disposition: form-data; name="{}_positive_examples"'


def post(client: V3Client, path: str, parts: list[tuple[str, bytes]], boundary: str = "BOUNDARY") -> httpx.Response:
    content_type = f"multipart/form-data; boundary={boundary}"
    return client.http.post(path, content=multipart(parts, boundary=boundary), headers={"Content-Type": content_type})


@pytest.mark.contract_row("D/File parts without a file name. The Python SDK given bytes")
@pytest.mark.parametrize(
    "disposition",
    [
        POSITIVE.format("heron"),
        POSITIVE.format("heron") + '; filename="_"',
        POSITIVE.format("heron") + '; filename=""',
        POSITIVE.format("heron") + "; filename=heron.zip",
        "content-disposition: FORM-DATA; NAME=heron_positive_examples; filename*=UTF-8''h%C3%A9ron.zip",
        "Content-Type: image/jpeg\r\n" + POSITIVE.format("heron"),
        POSITIVE.format("heron") + "\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: binary",
    ],
    ids=["no file name", "node sdk", "empty file name", "bare file name", "extended file name", "image/jpeg", "text/plain"],
)
def test_part_is_an_example_set_by_its_name_alone(client: V3Client, disposition: str) -> None:
    parts = [
        ('Content-Disposition: form-data; name="name"', b"birds"),
        (disposition, examples(1)),
        (POSITIVE.format("owl"), examples(2)),
    ]
    response = post(client, "/v3/classifiers", parts)
    assert (response.status_code, [item["class"] for item in response.json()["classes"]]) == (200, ["heron", "owl"])


@pytest.mark.contract_row("D/File parts without a file name. The Python SDK given bytes")
def test_file_part_without_a_file_name_can_have_megabytes(client: V3Client) -> None:
    noise = {f"{index}.png": png(index, (500, 500)) for index in range(12)}
    parts = [
        ('Content-Disposition: form-data; name="name"', b"large"),
        (POSITIVE.format("a"), build_zip(noise)),
        (POSITIVE.format("b"), examples(1)),
    ]
    assert sum(map(len, noise.values())) > 5_000_000
    assert post(client, "/v3/classifiers", parts).status_code == 200


@pytest.mark.contract_row('D/File names on text parts. -F "parameters=@p.json" sends a')
def test_text_part_can_be_sent_as_a_file(client: V3Client) -> None:
    parts = [
        (
            'Content-Disposition: form-data; name="name"; filename="name.txt"\r\nContent-Type: application/json',
            "bïrds".encode(),
        ),
        (POSITIVE.format("a"), examples(1)),
        (POSITIVE.format("b"), examples(2)),
    ]
    assert post(client, "/v3/classifiers", parts).json()["name"] == "bïrds"


@pytest.mark.contract_row('D/Non-ASCII names come as raw UTF-8 in name="..." and')
@pytest.mark.parametrize(
    "name",
    ['name="Grün_positive_examples"', "name*=UTF-8''Gr%C3%BCn_positive_examples", "name=Grün_positive_examples"],
    ids=["raw UTF-8", "extended", "bare"],
)
def test_part_names_are_utf_8(client: V3Client, name: str) -> None:
    parts = [
        ('Content-Disposition: form-data; name="name"', b"names"),
        (f"Content-Disposition: form-data; {name}", examples(1)),
        (POSITIVE.format("b"), examples(2)),
    ]
    assert post(client, "/v3/classifiers", parts).json()["classes"][0] == {"class": "Grün"}


@pytest.mark.contract_row('D/Non-ASCII names come as raw UTF-8 in name="..." and')
@pytest.mark.parametrize(
    ("parameter", "shown"),
    [
        ('filename="vögel.jpg"', "vögel.jpg"),
        ("filename*=UTF-8''v%C3%B6gel.jpg", "vögel.jpg"),
        ("filename=\"x.jpg\"; filename*=utf-8'de'v%C3%B6gel.jpg", "vögel.jpg"),
        ('filename="a \\"quoted\\"; name.jpg"', 'a "quoted"; name.jpg'),
        ('filename="a%22b.jpg"', 'a"b.jpg'),
        ('filename="C:\\folder\\x.jpg"', "C:\\folder\\x.jpg"),
        ("", "images_file"),
    ],
)
def test_file_names_are_shown_decoded(client: V3Client, parameter: str, shown: str) -> None:
    disposition = 'Content-Disposition: form-data; name="images_file"' + (f"; {parameter}" if parameter else "")
    assert post(client, "/v3/classify", [(disposition, png())]).json()["images"][0]["image"] == shown


def test_file_name_that_is_not_utf_8_still_gets_an_answer(client: V3Client) -> None:
    body = (
        b'--BOUNDARY\r\nContent-Disposition: form-data; name="images_file"; filename="v\xf6gel.jpg"\r\n\r\n'
        + png()
        + b"\r\n--BOUNDARY--\r\n"
    )
    response = client.http.post("/v3/classify", content=body, headers={"Content-Type": MULTIPART_TYPE})
    assert response.json()["images"][0]["image"] == "v\N{REPLACEMENT CHARACTER}gel.jpg"


@pytest.mark.parametrize("boundary", ["----WebKitFormBoundaryABC", "x" * 70, "a'()+_,-./:=?b"])
def test_boundaries_of_all_kinds_are_read(client: V3Client, boundary: str) -> None:
    quoted = f'multipart/form-data; charset=utf-8; boundary="{boundary}"'
    body = multipart([('Content-Disposition: form-data; name="images_file"', png())], boundary=boundary)
    assert client.http.post("/v3/classify", content=body, headers={"Content-Type": quoted}).status_code == 200


def test_data_full_of_partial_boundaries_arrives_complete(client: V3Client) -> None:
    data = png() + b"\r\n--BOUNDAR\r\n--\r\r\n-\r\n--BOUNDARX--" * 3000
    disposition = 'Content-Disposition: form-data; name="images_file"'
    assert post(client, "/v3/classify", [(disposition, data)]).status_code == 200


def test_epilogue_and_leading_line_break_are_ignored(client: V3Client) -> None:
    body = b"\r\n" + multipart([('Content-Disposition: form-data; name="images_file"', png())]) + b"epilogue"
    assert client.http.post("/v3/classify", content=body, headers={"Content-Type": MULTIPART_TYPE}).status_code == 200


@pytest.mark.contract_row("D/Expect: 100-continue is sent by curl for large uploads and")
@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a message with multiple parts in MIME format.\r\n",
        b"--BOUNDARYS are not this one\r\n--BOUND\r\n",
        b"x" * 200_000 + b"\r\n",
    ],
    ids=["text", "other boundaries", "much"],
)
def test_text_before_the_first_boundary_is_ignored(client: V3Client, preamble: bytes) -> None:
    body = preamble + multipart([('Content-Disposition: form-data; name="images_file"; filename="a.png"', png())])

    response = client.http.post("/v3/classify", content=body, headers={"Content-Type": MULTIPART_TYPE})

    assert (response.status_code, response.json()["images"][0]["image"]) == (200, "a.png")


def test_message_about_another_boundary_says_so(client: V3Client) -> None:
    response = client.http.post("/v3/classify", content=b"--OTHER\r\n" * 1000, headers={"Content-Type": MULTIPART_TYPE})

    assert_error(response, 400, "input_error", "has another boundary")


@pytest.mark.parametrize("name", ["parameters", "classifier_ids"])
def test_byte_order_mark_before_a_text_is_ignored(client: V3Client, name: str) -> None:
    text = b'{"classifier_ids": ["food"]}' if name == "parameters" else b"food"
    parts = [
        (f'Content-Disposition: form-data; name="{name}"; filename="p.json"', b"\xef\xbb\xbf" + text),
        ('Content-Disposition: form-data; name="images_file"', png()),
    ]

    response = post(client, "/v3/classify", parts)

    assert response.json()["images"][0]["classifiers"][0]["classifier_id"] == "food"


def test_byte_order_mark_in_the_query_is_ignored(client: V3Client) -> None:
    response = client.classify(("a.png", png()), params={"parameters": '\ufeff{"classifier_ids": ["food"]}'})

    assert response.json()["images"][0]["classifiers"][0]["classifier_id"] == "food"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"threshold": }', "is not JSON at line 1, column 15; give an object"),
        (b"", "No images"),
        (b"\xff\xfe{\0}\0", "is not UTF-8 text; save it as UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"threshold": NaN}', "NaN is not a number in JSON"),
    ],
)
def test_message_about_parameters_that_are_not_json_has_no_exception_text(client: V3Client, text: bytes, words: str) -> None:
    response = post(client, "/v3/classify", [('Content-Disposition: form-data; name="parameters"', text)])

    assert_error(response, 400, "parameter_error", words)
    assert "codec" not in response.text
    assert "Expecting" not in response.text


@pytest.mark.parametrize("name", ["classifier_ids[]", "classifier_ids[0]"])
@pytest.mark.parametrize("place", ["form", "query"])
def test_lists_can_have_names_in_the_style_of_php(client: V3Client, name: str, place: str) -> None:
    if place == "form":
        response = client.classify(("a.png", png()), **{name: "food"})
    else:
        response = client.classify(("a.png", png()), params={name: "food"})

    assert [item["classifier_id"] for item in response.json()["images"][0]["classifiers"]] == ["food"]


def test_expect_100_continue_is_answered_before_the_body(gateway: GatewayInstance) -> None:
    body = multipart([('Content-Disposition: form-data; name="images_file"', png())])
    request = head(
        "POST",
        "/v3/classify" + QUERY,
        f"Content-Type: {MULTIPART_TYPE}",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert status_of(read_answer(connection)) == 200


def test_expecting_client_without_credentials_is_refused_before_the_body(gateway: GatewayInstance) -> None:
    request = head("POST", "/v3/classify" + QUERY, "Content-Length: 500000", "Expect: 100-continue", password="wrong")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request)
        assert status_of(read_answer(connection)) == 401


def test_refused_upload_is_read_for_a_while_so_that_the_answer_arrives(gateway: GatewayInstance) -> None:
    # A client that sends everything before it listens.
    response = httpx.post(f"{gateway.address}/v3/classifiers{QUERY}", content=bytes(20 * 1024 * 1024), auth=(USER, "wrong"))
    assert response.status_code == 401


@pytest.mark.contract_row("D/Polling goes on every few seconds over kept-alive")
def test_polling_uses_one_connection(gateway: GatewayInstance) -> None:
    request = head("GET", "/v3/classifiers/none_1" + QUERY)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        statuses = []
        for _ in range(3):
            connection.sendall(request)
            statuses.append(status_of(read_answer(connection)))
    assert statuses == [404, 404, 404]


def test_chunked_upload_is_read(client: V3Client) -> None:
    body = multipart([('Content-Disposition: form-data; name="images_file"', png())])
    chunks = (body[index : index + 7] for index in range(0, len(body), 7))
    assert client.http.post("/v3/classify", content=chunks, headers={"Content-Type": MULTIPART_TYPE}).status_code == 200


def test_broken_upload_stores_nothing(stage: Stage, gateway: GatewayInstance) -> None:
    before = stage.stored_uploads()
    part = multipart([(POSITIVE.format("owl"), examples(1))], closed=False)
    request = head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 5000000")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request + part)
        connection.shutdown(socket.SHUT_WR)
        assert status_of(read_answer(connection)) == 400
    assert (stage.stored_uploads(), list(stage.upload_folder.iterdir())) == (before, [])


@pytest.mark.parametrize("breaks", ["half-closed", "reset"])
def test_upload_cut_off_anywhere_stores_nothing(client: V3Client, stage: Stage, gateway: GatewayInstance, breaks: str) -> None:
    before = stage.stored_uploads()
    classifiers = client.http.get("/v3/classifiers").json()
    body = multipart(
        [
            ('Content-Disposition: form-data; name="name"', b"cut off"),
            (POSITIVE.format("heron"), build_zip({f"{index}.png": png(index, (60, 60)) for index in range(12)})),
            (POSITIVE.format("owl"), examples(2)),
        ]
    )
    request = head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", f"Content-Length: {len(body)}")
    places = [*range(0, len(body), len(body) // 40), len(body) - 1]
    for place in places:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(request + body[:place])
            if breaks == "half-closed":
                connection.shutdown(socket.SHUT_WR)
                assert status_of(read_answer(connection)) == 400
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 20
    while list(stage.upload_folder.iterdir()) or stage.stored_uploads() != before:
        assert time.monotonic() < deadline, list(stage.upload_folder.iterdir())
        time.sleep(0.05)
    assert client.http.get("/v3/classifiers").json() == classifiers


def test_client_that_sends_much_without_http_gets_the_answer(gateway: GatewayInstance) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01" + bytes(3_000_000))
        assert status_of(read_answer(connection)) == 400
