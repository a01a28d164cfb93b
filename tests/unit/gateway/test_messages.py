"""Refusals have object, fact and remedy, and show user-supplied names in readable form only."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from ocelli_api.log_lines import JsonFormatter
from tests.gateway_harness.images import build_zip, examples
from tests.gateway_harness.raw_http import MULTIPART_TYPE, body_of, exchange, head, multipart, status_of
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, wait_for
from tests.gateway_harness.v3_client import V3Client, assert_error

QUERY = "?version=2018-03-19"
URLENCODED = "application/x-www-form-urlencoded"
ODD = "a\u202egnp\x07\x7f.b"
SHOWN = "a�gnp��.b"
ODD_IDS = ["x" * 5000, ODD]
BROKEN_ZIP = build_zip({"a.png": b"x"})[:-30]
GOOD_PART = ('Content-Disposition: form-data; name="url"', b"https://example.org/")


def post(client: V3Client, parts: list[tuple[str, bytes]], *, content_type: str = MULTIPART_TYPE) -> httpx.Response:
    return client.http.post("/v3/classify", content=multipart(parts), headers={"Content-Type": content_type})


def assert_readable(message: str) -> None:
    assert message.isprintable(), message
    assert len(message) < 400


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 5000 + ".zip", "a\x07\u202egnp.zip", "a\x00b.zip"])
def test_name_of_an_uploaded_file_is_shown_short_and_without_control_characters(client: V3Client, name: str) -> None:
    message = post(client, [(f'Content-Disposition: form-data; name="images_file"; filename="{name}"', BROKEN_ZIP)]).json()[
        "error"
    ]
    assert "the zip is cut off or damaged" in message
    assert_readable(message)


@pytest.mark.parametrize("classifier_id", ODD_IDS)
def test_messages_show_unknown_ids_short_and_printable(client: V3Client, classifier_id: str) -> None:
    image = ("a.png", b"\x89PNG\r\n\x1a\nx")
    for message in (
        client.classify(image, classifier_ids=classifier_id).json()["error"],
        client.classify(image, classifier_ids=f"default,{classifier_id}", owners="IBM").text.encode().decode(),
        client.get(httpx.URL("http://x/", params={"a": classifier_id}).query.decode()[2:]).json()["error"],
    ):
        assert "\u202e" not in message
        assert "x" * 500 not in message


@pytest.mark.parametrize("field", ["owners", "threshold", "version", "verbose"])
def test_messages_show_wrong_values_short_and_printable(client: V3Client, field: str) -> None:
    message = client.http.get("/v3/classifiers" if field == "verbose" else "/v3/classify", params={field: ODD}).json()["error"]
    assert f'"{SHOWN}"' in message
    assert_readable(message)


def test_message_shows_the_name_of_a_repeated_class_printable(client: V3Client) -> None:
    files = [("a\u202eb_positive_examples", ("a.zip", examples())) for _ in range(2)]
    assert_error(client.create("owls", files), 400, "parameter_error", 'The class "a�b" is in the request twice')


def test_log_shows_addresses_and_users_short_and_printable(gateway: GatewayInstance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        httpx.get(f"{gateway.address}/v3/classifiers/a%E2%80%AEb{QUERY}", auth=(USER, PASSWORD))
        httpx.get(f"{gateway.address}/v3/classifiers{QUERY}", auth=("an\u202ena", "wrong"))

        def lines() -> str:
            return "\n".join(JsonFormatter().format(record) for record in caplog.records if record.name.startswith("ocelli"))

        wait_for(lambda: "a�b" in lines() and "an�na" in lines(), "both lines")
    assert "\u202e" not in lines()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([("X: y", b"z")], "lacks its Content-Disposition header; send one such as Content-Disposition: form-data; name="),
        ([("Content-Disposition: form-data", b"z")], "lacks its name; send one such as Content-Disposition: form-data; name="),
        ([GOOD_PART] * 2000, "more than 1000 parts; send fewer"),
        ([('Content-Disposition: form-data; name="owners"', b"x" * 1_100_000)], "longer than 1 MB in all; shorten them"),
    ],
)
def test_message_about_a_refused_form_has_the_remedy(client: V3Client, parts: list[tuple[str, bytes]], words: str) -> None:
    assert_error(post(client, parts), 400, None, words)


def test_message_about_a_part_name_that_is_not_utf8_has_the_remedy(client: V3Client) -> None:
    body = multipart([GOOD_PART]).replace(b'"url"', b'"\xff"')
    response = client.http.post("/v3/classify", content=body, headers={"Content-Type": MULTIPART_TYPE})
    assert_error(response, 400, "input_error", "The name of a part is not UTF-8; encode it as UTF-8.")


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("multipart/form-data", "lacks its boundary; let the HTTP library write this header"),
        ("multipart/form-data; boundary=other", "has another boundary; let the HTTP library write this header"),
        (
            f"multipart/form-data; boundary={'x' * 300}",
            "The boundary in Content-Type is too long; use one of at most 70 characters",
        ),
    ],
)
def test_message_about_a_wrong_content_type_has_the_remedy(client: V3Client, content_type: str, words: str) -> None:
    assert_error(post(client, [GOOD_PART], content_type=content_type), 400, "input_error", words)


def test_message_about_a_form_that_is_cut_off_has_the_remedy(client: V3Client) -> None:
    body = multipart([GOOD_PART], closed=False)
    response = client.http.post("/v3/classify", content=body, headers={"Content-Type": MULTIPART_TYPE})
    assert_error(response, 400, "input_error", "cut off before its closing boundary; send it again")


def test_message_about_a_body_that_is_cut_off_has_the_remedy(gateway: GatewayInstance) -> None:
    request = head("POST", "/v3/classify" + QUERY, f"Content-Type: {URLENCODED}", "Content-Length: 94")
    answer = exchange(gateway, request + b"x" * 93, finish=True)
    assert body_of(answer)["error"] == "The request body is cut off: 93 of 94 bytes arrived; send it again."


def test_message_about_a_body_that_is_too_large_has_the_remedy(gateway: GatewayInstance) -> None:
    request = head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 9999999999")
    answer = exchange(gateway, request)
    assert (status_of(answer), body_of(answer)["error"]) == (
        413,
        "The request body is larger than 256 MB; send a smaller one.",
    )


def test_message_about_a_token_without_a_key_has_the_remedy(gateway: GatewayInstance) -> None:
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey"}
    assert_error(
        httpx.post(f"{gateway.address}/identity/token", data=form), 400, None, '"apikey" is missing or blank; give the API key.'
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"url": 1}, 'of the wrong type for "url"; give a text.'),
        ({"classifier_ids": {}}, 'of the wrong type for "classifier_ids"; give a text or a list of texts.'),
        ({"owner": [1]}, 'of the wrong type for "owner"; give a text or a list of texts.'),
        ({"threshold": []}, 'of the wrong type for "threshold"; give a number, or a text that holds one.'),
        ({"classifier_ids": "\ud83d"}, "is not Unicode text; remove the lone surrogates."),
        ([], 'The field "parameters" is not a JSON object; give one such as'),
        ({"threshold": float("nan")}, "NaN is not a number in JSON; give an object such as"),
    ],
)
def test_message_about_parameters_of_another_type_names_the_allowed_ones(
    client: V3Client, document: object, words: str
) -> None:
    parts = [('Content-Disposition: form-data; name="parameters"', json.dumps(document).encode())]
    assert_error(post(client, parts), 400, "parameter_error", words)


@pytest.mark.parametrize("name", ["a\x00b", "a\x07b", "a\x1bb", "a\x7fb", "a\x9fb"])
def test_name_of_a_classifier_with_a_control_character_is_refused(client: V3Client, name: str) -> None:
    code = f"U+{ord(name[1]):04X}"
    assert_error(
        client.create(name), 400, "parameter_error", f'The field "name" contains the control character {code}; leave it out.'
    )


def test_line_break_at_the_end_of_a_classifiers_name_is_removed(client: V3Client) -> None:
    assert client.create("owls\r\n").json()["name"] == "owls"
