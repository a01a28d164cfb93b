"""No input breaks the gateway: every input gets an answer, and none causes a 5xx."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway_harness.images import build_zip, encode, examples, plain, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, exchange, multipart, status_of
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, wait_for
from tests.gateway_harness.v3_client import V3Client

pytestmark = pytest.mark.slow

ZIP = build_zip({"a.png": png(), "b/c.jpg": plain((1, 2, 3), format_name="JPEG"), "t.txt": b"text"})
EXAMPLES = examples(1)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with a few of them overwritten, or cut off."""
    places = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=12)

    def change(changes: list[tuple[int, int]], end: int) -> bytes:
        copy = bytearray(data)
        for place, value in changes:
            copy[place] = value
        return bytes(copy[:end])

    return st.builds(change, places, st.sampled_from([len(data), len(data), len(data) - 3, len(data) // 2]))


FILES = st.one_of(
    mutated(ZIP),
    mutated(EXAMPLES),
    mutated(png()),
    mutated(plain((9, 8, 7), format_name="JPEG")),
    mutated(plain((9, 8, 7), format_name="TIFF")),
    mutated(plain((3,), mode="P", format_name="GIF")),
    st.binary(max_size=60),
)
NAMES = st.sampled_from(
    [
        "images_file",
        "name",
        "a_positive_examples",
        "b_positive_examples",
        "negative_examples",
        "threshold",
        "classifier_ids",
        "owners",
    ]
) | st.text(max_size=20)


@FUZZ
@given(
    path=st.sampled_from(["/v3/classifiers", "/v3/classify", "/v3/classifiers/none_1"]),
    parts=st.lists(st.tuples(NAMES, FILES | st.text(max_size=30).map(lambda text: text.encode())), max_size=4),
    damage=st.integers(0, 10_000),
)
def test_any_form_gets_an_answer(client: V3Client, path: str, parts: list[tuple[str, bytes]], damage: int) -> None:
    encoded = [(f'Content-Disposition: form-data; name="{name}"; filename="x"', data) for name, data in parts]
    body = multipart([(head.encode("utf-8", "replace").decode(), data) for head, data in encoded])
    if damage < 3000:
        body = body[:damage]
    response = client.http.post(path, content=body, headers={"Content-Type": MULTIPART_TYPE})
    assert response.status_code < 500
    if response.status_code >= 400:
        assert response.json()["code"] == response.status_code


@FUZZ
@given(data=FILES)
def test_any_file_gets_an_answer_from_classify(client: V3Client, data: bytes) -> None:
    response = client.classify(("x", data))
    assert response.status_code in (200, 400)


@FUZZ
@given(data=mutated(EXAMPLES))
def test_any_zip_gets_an_answer_from_create(client: V3Client, data: bytes) -> None:
    files = [("a_positive_examples", ("a", data)), ("b_positive_examples", ("b", EXAMPLES))]
    assert client.create("fuzz", files).status_code in (200, 400)


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]),
    path=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="?#"), max_size=30),
    query=st.dictionaries(st.sampled_from(["version", "threshold", "classifier_ids", "x"]), st.text(max_size=20)),
)
def test_any_address_gets_an_answer(client: V3Client, method: str, path: str, query: dict[str, str]) -> None:
    url = httpx.URL(str(client.http.base_url)).copy_with(raw_path=b"/v3/classifiers/" + percent_encoded(path))
    response = client.http.request(method, url, params=query)
    assert response.status_code < 500


def percent_encoded(path: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in path.encode()).encode()


@FUZZ
@given(data=st.binary(min_size=1, max_size=300))
def test_any_bytes_on_a_connection_get_an_answer(gateway: GatewayInstance, data: bytes) -> None:
    answer = exchange(gateway, data + b"\r\n\r\n\r\n\r\n", finish=True)
    # Line breaks are not a request.
    assert answer or not data.strip(b"\r\n")
    assert not answer or status_of(answer) < 500


def test_logs_contain_no_credentials_and_no_query(
    client: V3Client, gateway: GatewayInstance, caplog: pytest.LogCaptureFixture
) -> None:
    from ocelli_api.log_lines import JsonFormatter

    def lines() -> list[str]:
        return [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("ocelli")]

    def requests() -> dict[str, int]:
        found = (json.loads(line) for line in lines())
        return {item["transaction"]: item["code"] for item in found if item["event"] == "request"}

    with caplog.at_level(logging.DEBUG):
        answers = [
            client.classify(("a.png", png()), params={"api_key": "query-secret"}),
            httpx.get(f"{gateway.address}/v3/classifiers/x_1", params={"api_key": "query-secret"}),
            httpx.get(f"{gateway.address}/v3/classifiers/x_1", auth=(USER, "wrong-secret")),
        ]
        sent = [answer.headers["x-global-transaction-id"] for answer in answers]
        # A line is written after the answer is sent; lines of earlier requests can be late, too.
        wait_for(lambda: set(sent) <= requests().keys(), "a line for each request")
    assert [requests()[transaction] for transaction in sent] == [200, 401, 401]
    text = "\n".join(lines())
    assert [word for word in ("query-secret", "wrong-secret", PASSWORD, "Basic") if word in text] == []


def test_huge_images_are_decoded_one_after_the_other(client: V3Client) -> None:
    from PIL import Image

    large = encode(Image.new("L", (9000, 9000), 128), "PNG")
    body = client.classify(*[(f"{index}.png", large) for index in range(3)]).json()
    assert [len(image["classifiers"]) for image in body["images"]] == [1, 1, 1]
