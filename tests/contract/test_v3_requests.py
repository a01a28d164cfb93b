"""Rules for every request: addresses, version, credentials, headers, errors (sections 0 and C1 of the REST contract)."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from tests.gateway_harness.images import png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, body_of, exchange, head, multipart, status_of
from tests.gateway_harness.stage import NAMESPACE, OTHER_KEY, OTHER_USER, PASSWORD, USER, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import TWO_SETS, VERSION, V3Client, assert_error, basic, connect

QUERY = "?version=2018-03-19"


# 0.1 Addresses


@pytest.mark.contract_row("0.1")
@pytest.mark.parametrize(
    "path",
    [
        "/v3/classifiers/",
        "/visual-recognition/api/v3/classifiers",
        "/visual-recognition/api/v3/classifiers/",
        "/visual-recognition/api//v3/classifiers",
    ],
)
def test_prefix_and_slashes_make_no_difference(client: V3Client, path: str) -> None:
    assert client.http.post(path, data={"name": "prefix"}, files=list(TWO_SETS)).status_code == 200


@pytest.mark.parametrize("path", ["//v3/classifiers", "//visual-recognition/api//v3//classifiers//"])
def test_base_address_with_a_trailing_slash_makes_no_difference(gateway: GatewayInstance, path: str) -> None:
    assert status_of(exchange(gateway, head("GET", path + QUERY, "Connection: close"))) == 200


@pytest.mark.contract_row("0.1")
@pytest.mark.parametrize(
    "path",
    [
        "/v3",
        "/v3/nothing",
        "/v3/classifiers/a_1/b",
        "/v3/detect_faces",
        "/v3/collections",
        "/v3/recognize_text",
        "/v3/classifiers/a_1/core_ml_model",
        "/v4/classifiers",
        "/",
        "/V3/classifiers",
    ],
)
def test_unknown_path_is_404(client: V3Client, path: str) -> None:
    assert_error(client.http.get(path), 404, "not_found")


@pytest.mark.contract_row("0.1")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v3/detect_faces", "Face detection"),
        ("/visual-recognition/api/v3/detect_faces/", "Face detection"),
        ("/v3/collections", "Collections"),
        ("/v3/collections/a/images", "Collections"),
        ("/v3/recognize_text", "Text recognition"),
    ],
)
def test_withdrawn_call_says_that_it_is_withdrawn(client: V3Client, method: str, path: str, word: str) -> None:
    response = client.http.request(method, path)
    assert_error(response, 404, "not_found", word, "withdrawn")
    assert "below /v3" not in response.json()["error"]


def test_unknown_address_below_v3_is_not_said_to_be_elsewhere(client: V3Client) -> None:
    assert "below /v3" not in client.http.get("/v3/nothing").json()["error"]


@pytest.mark.parametrize("path", ["/", "/oidc/token", "/visual-recognition/api"])
def test_unknown_address_says_where_tokens_are(gateway: GatewayInstance, path: str) -> None:
    response = httpx.post(gateway.address + path, data={"apikey": PASSWORD})
    assert_error(response, 404, "not_found", "/identity/token", "/v3")


@pytest.mark.parametrize(
    ("path", "words"),
    [("/v3/classifiers/{}", "example"), ("/v3/classify", "No images were specified"), ("/v3/classifiers", "name")],
    ids=["retrain", "classify", "create"],
)
def test_empty_multipart_body_is_a_form_without_parts(client: V3Client, path: str, words: str) -> None:
    identity = client.ready("empty") if "{}" in path else ""
    response = client.http.post(path.format(identity), headers={"Content-Type": MULTIPART_TYPE, "Content-Length": "0"})
    assert_error(response, 400)
    assert words in response.json()["error"]
    assert "cut off" not in response.json()["error"]


@pytest.mark.contract_row("0.1")
@pytest.mark.parametrize("method", ["BREW", "PROPFINDER", "X", "brew", "get", "M-SEARCH", "GET2", "b.R_e~w!#$%&'*+^`|"])
def test_unknown_method_is_405_with_allow(gateway: GatewayInstance, method: str) -> None:
    answer = exchange(gateway, head(method, "/v3/classifiers" + QUERY, "Connection: close"))
    assert status_of(answer) == 405
    assert b"allow: GET, HEAD, POST\r\n" in answer
    assert f"The method {method} is not allowed at this address;" in body_of(answer)["error"]


def test_unknown_method_without_credentials_is_401(gateway: GatewayInstance) -> None:
    answer = exchange(gateway, head("BREW", "/v3/classifiers" + QUERY, "Connection: close", password="wrong"))
    assert status_of(answer) == 401


@pytest.mark.parametrize("method", ["B=W", "B(W)", "\x00", "A" * 40])
def test_invalid_method_is_400(gateway: GatewayInstance, method: str) -> None:
    assert status_of(exchange(gateway, head(method, "/v3/classifiers" + QUERY, "Connection: close"))) == 400


@pytest.mark.contract_row("0.1")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v3/classifiers", "GET, HEAD, POST"),
        ("PUT", "/v3/classifiers/a_1", "DELETE, GET, HEAD, POST"),
        ("PATCH", "/v3/classifiers/a_1", "DELETE, GET, HEAD, POST"),
        ("DELETE", "/v3/classify", "GET, HEAD, POST"),
        ("OPTIONS", "/v3/classify/", "GET, HEAD, POST"),
        ("GET", "/v3/user_data", "DELETE"),
        ("GET", "/identity/token", "POST"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
def test_known_path_with_another_method_is_405_with_allow(client: V3Client, method: str, path: str, allow: str) -> None:
    response = client.http.request(method, path)
    assert_error(response, 405)
    assert response.headers["allow"] == allow


def test_head_answers_like_get_without_a_body(client: V3Client) -> None:
    classifier_id = client.created("head")
    response = client.http.head(f"/v3/classifiers/{classifier_id}")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len(client.get(classifier_id).content)


@pytest.mark.parametrize(
    "target",
    [
        "/v3/classifiers/ü_1",
        "/v3/classifiers/..%2Fx",
        "/v3/classifiers/%00",
        "/v3/classifiers/" + "a" * 5000 + "_1",
        "/v3/classifiers/%FF%FE",
        "/v3/classifiers/a_1%2Fcore_ml_model",
        "/v3/classifiers/a_1%2fonnx_model",
        "/visual-recognition/api/v3/classifiers/%2F",
        "/v3/classifiers/a_1%252Fcore_ml_model",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_id_of_strange_form_is_404(gateway: GatewayInstance, method: str, target: str) -> None:
    request = head(method, target + QUERY, "Content-Length: 0", "Connection: close")
    assert status_of(exchange(gateway, request)) == 404


# 0.2 Version


@pytest.mark.contract_row("0.2")
@pytest.mark.parametrize("version", ["2016-05-17", "2018-03-19", "9999-12-31", "2020-02-29"])
def test_any_real_date_is_a_version(client: V3Client, version: str) -> None:
    response = client.http.get("/v3/classifiers/none_1", params={"version": version})
    assert_error(response, 404)


@pytest.mark.contract_row("0.2")
@pytest.mark.parametrize(
    "version",
    ["", "2018-13-45", "2018-02-30", "20180319", "2018-3-19", "latest", "0000-01-01", "2018-03-19T00:00:00", "٢٠١٨-٠٣-١٩"],
)
def test_version_that_is_not_a_date_is_400(client: V3Client, version: str) -> None:
    assert_error(client.http.get("/v3/classifiers/none_1", params={"version": version}), 400, "parameter_error", "version")


@pytest.mark.contract_row("0.2")
def test_missing_version_is_400(gateway: GatewayInstance) -> None:
    response = httpx.get(f"{gateway.address}/v3/classifiers/none_1", auth=(USER, PASSWORD))
    assert_error(response, 400, "parameter_error", "version")


# 0.3 Credentials


@pytest.mark.contract_row("0.3")
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic " + "QQ==",
        "Basic //79",
        basic("anna", "wrong"),
        basic("nobody", PASSWORD),
        basic("apikey", "wrong"),
        basic("ANNA", PASSWORD),
        basic("anna", PASSWORD + " "),
        basic("bert", OTHER_KEY),
        basic("anna", "x" * 5000),
        "Digest " + PASSWORD,
    ],
)
def test_no_or_wrong_credentials_are_401(gateway: GatewayInstance, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{gateway.address}/v3/classifiers/none_1", params=VERSION, headers=headers)
    assert_error(response, 401)
    assert response.json() == {"code": 401, "error": "Unauthorized", "error_id": "unauthorized"}
    assert response.headers["www-authenticate"].startswith('Basic realm="')


@pytest.mark.contract_row("0.3/Basic, user name and password", "0.3/Basic, user name apikey")
@pytest.mark.parametrize(
    ("user", "password"),
    [("anna", PASSWORD), ("apikey", PASSWORD), (OTHER_USER, "other"), ("apikey", OTHER_KEY)],
    ids=["password with a colon", "password as api key", "password next to a key", "separate api key"],
)
def test_basic_credentials_are_accepted(gateway: GatewayInstance, user: str, password: str) -> None:
    headers = {"Authorization": basic(user, password)}
    response = httpx.get(f"{gateway.address}/v3/classifiers/none_1", params=VERSION, headers=headers)
    assert response.status_code == 404


def test_password_next_to_a_separate_key_is_not_an_api_key(gateway: GatewayInstance) -> None:
    headers = {"Authorization": basic("apikey", "other")}
    assert httpx.get(f"{gateway.address}/v3/classifiers/none_1", params=VERSION, headers=headers).status_code == 401


@pytest.mark.contract_row("0.3")
def test_user_names_and_passwords_are_utf_8(stage: Stage, gateway: GatewayInstance) -> None:
    stage.write_credentials("utf8.json", user="jürgen", password="pässwörd✓", namespace="team-c", owner="c")
    headers = {"Authorization": basic("jürgen", "pässwörd✓")}

    def accepted() -> bool:
        return httpx.get(f"{gateway.address}/v3/classifiers/none_1", params=VERSION, headers=headers).status_code == 404

    wait_for(accepted, "the new credential set is used without a restart")


@pytest.mark.contract_row("0.3")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3/classifiers/x_1?version=nonsense"),
        ("GET", "/v3/nothing"),
        ("PUT", "/v3/classify"),
        ("POST", "/v3/classifiers"),
    ],
    ids=["bad version", "unknown path", "other method", "body of another kind"],
)
def test_credentials_are_looked_at_before_anything_else(gateway: GatewayInstance, method: str, path: str) -> None:
    assert httpx.request(method, gateway.address + path, content=b"x").status_code == 401


@pytest.mark.contract_row("0.3")
def test_classifiers_of_another_owner_are_absent(stage: Stage, gateway: GatewayInstance, client: V3Client) -> None:
    classifier_id = client.ready("mine")
    other = connect(gateway, stage, OTHER_USER, "other")
    statuses = [
        other.get(classifier_id).status_code,
        other.retrain(classifier_id, TWO_SETS).status_code,
        other.delete(classifier_id).status_code,
        other.classify(("a.png", png()), classifier_ids=classifier_id).status_code,
    ]
    assert statuses == [404, 404, 404, 404]


# 0.4 Headers and ids


@pytest.mark.contract_row("0.4/Every answer, errors too, carries X-Global-Transaction-Id")
def test_every_answer_has_a_different_transaction_id(client: V3Client) -> None:
    responses = [client.get("none_1"), client.http.get("/v3/nothing"), client.http.get("/livez"), client.create()]
    seen = [response.headers["x-global-transaction-id"] for response in responses]
    assert len(set(filter(None, seen))) == len(seen)


@pytest.mark.contract_row("0.4/classifier_id is {stem}_{number} and matches")
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Dog Breeds", "DogBreeds"),
        ("sdk-test", "sdkxtest"),
        ("ünïcode", "xnxcode"),
        ("日本", "xx"),
        ("a\tb", "ab"),
        ("2018", "2018"),
        ("n" * 100, "n" * 36),
    ],
)
def test_classifier_id_is_derived_from_the_name(client: V3Client, name: str, stem: str) -> None:
    classifier_id = client.created(name)
    assert re.fullmatch(r"[A-Za-z0-9]+_[0-9]{1,10}", classifier_id)
    assert classifier_id.rpartition("_")[0] == stem
    assert 0 < int(classifier_id.rpartition("_")[2]) < 2**31


@pytest.mark.contract_row("0.4/classifier_id is {stem}_{number} and matches")
def test_ids_are_case_sensitive(client: V3Client) -> None:
    classifier_id = client.ready("Case")
    assert client.get(classifier_id.swapcase()).status_code == 404
    assert client.classify(("a.png", png()), classifier_ids=classifier_id.lower()).status_code == 404


@pytest.mark.contract_row("0.4/Unknown query parameters, form fields, JSON keys and")
def test_unknown_parameters_fields_and_headers_are_ignored(client: V3Client) -> None:
    response = client.http.post(
        "/v3/classifiers",
        params={**VERSION, "verbose": "perhaps"},
        data={"name": "unknown", "color": "red"},
        files=[*TWO_SETS, ("readme", ("readme.txt", b"text"))],
        headers={"X-Watson-Test": "1", "X-IBMCloud-SDK-Analytics": "service_name=watson_vision_combined"},
    )
    assert response.status_code == 200


# C1 Any request


@pytest.mark.contract_row("0.5")
@pytest.mark.parametrize("path", ["/v3/classifiers", "/v3/classify"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--x\r\n"),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nbirds'),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nbirds\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nbirds\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nbirds\r\n--x--\r\n'),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken header\r\n\r\n--x--\r\n"),
    ],
    ids=[
        "another type",
        "no boundary",
        "empty boundary",
        "endless boundary",
        "other boundary in the body",
        "cut off",
        "part without a name",
        "part without headers",
        "name that is not UTF-8",
        "broken header",
    ],
)
def test_body_that_is_not_a_multipart_form_is_400(client: V3Client, path: str, content_type: str, body: bytes) -> None:
    assert_error(client.http.post(path, content=body, headers={"Content-Type": content_type}), 400)


def test_body_shorter_than_its_declared_length_is_400(gateway: GatewayInstance) -> None:
    request = head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 5000")
    answer = exchange(gateway, request + multipart([('Content-Disposition: form-data; name="name"', b"birds")]), finish=True)
    assert status_of(answer) == 400


@pytest.mark.parametrize("path", ["/v3/classify", "/identity/token"])
def test_length_of_thousands_of_digits_is_read_as_the_number_that_it_is(gateway: GatewayInstance, path: str) -> None:
    length = "Content-Length: " + "0" * 5000 + "5"
    request = head("POST", path + QUERY, "Content-Type: application/x-www-form-urlencoded", length)
    assert status_of(exchange(gateway, request + b"a=b&c")) == 400


@pytest.mark.contract_row("C1/declared Content-Length above the limit of the call (256")
@pytest.mark.parametrize("length", [2**64, 10**30, 10**300])
def test_excessively_large_length_is_413_like_any_other(gateway: GatewayInstance, length: int) -> None:
    answer = exchange(
        gateway, head("POST", "/v3/classify" + QUERY, f"Content-Type: {MULTIPART_TYPE}", f"Content-Length: {length}")
    )
    assert (status_of(answer), body_of(answer)["error_id"]) == (413, "limit_exceeded")


def test_refused_length_of_a_create_does_not_count_against_the_quota(stage: Stage) -> None:
    gateway = stage.start_gateway(quota_upload_megabytes_per_hour=1)
    request = head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 100000000000000")
    assert status_of(exchange(gateway, request)) == 413
    assert connect(gateway, stage).create().status_code == 200


@pytest.mark.contract_row("0.4/Megabytes are 1024 × 1024 bytes")
@pytest.mark.parametrize(("path", "megabytes"), [("/v3/classifiers", 256), ("/v3/classify", 110)])
@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]], ids=["plain", "expecting 100"])
def test_declared_length_above_the_limit_is_413_without_reading_on(
    gateway: GatewayInstance, path: str, megabytes: int, expect: list[str]
) -> None:
    length = f"Content-Length: {megabytes * 1024 * 1024 + 1}"
    answer = exchange(gateway, head("POST", path + QUERY, f"Content-Type: {MULTIPART_TYPE}", length, *expect))
    assert status_of(answer) == 413
    assert body_of(answer)["error_id"] == "limit_exceeded"


def test_body_of_undeclared_length_that_grows_past_the_limit_is_413(gateway: GatewayInstance, client: V3Client) -> None:
    def body() -> Any:
        # Unknown parts: only the body as a whole is too large.
        for index in range(4):
            yield f'--BOUNDARY\r\nContent-Disposition: form-data; name="other{index}"\r\n\r\n'.encode()
            for _ in range(40):
                yield bytes(1024 * 1024)
            yield b"\r\n"

    response = client.http.post("/v3/classify", content=body(), headers={"Content-Type": MULTIPART_TYPE})
    assert_error(response, 413, "limit_exceeded")


def test_more_than_1000_parts_are_400(client: V3Client) -> None:
    parts = [(f'Content-Disposition: form-data; name="p{index}"', b"x") for index in range(1001)]
    response = client.http.post("/v3/classify", content=multipart(parts), headers={"Content-Type": MULTIPART_TYPE})
    assert_error(response, 400, "limit_exceeded", "1000")


def test_more_than_1000_urlencoded_fields_are_400(client: V3Client) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = client.http.post("/v3/classify", content=b"a&" * 500_000, headers=headers)
    assert_error(response, 400, "limit_exceeded", "1000")


def test_more_than_1000_query_parameters_are_400(gateway: GatewayInstance) -> None:
    answer = exchange(gateway, head("GET", "/v3/classifiers" + QUERY + "&a=%41" * 1000))
    assert (status_of(answer), body_of(answer)["error_id"]) == (400, "limit_exceeded")


def test_chunked_form_without_its_last_chunk_is_400_that_says_so(gateway: GatewayInstance) -> None:
    headers = ("Content-Type: application/x-www-form-urlencoded", "Transfer-Encoding: chunked")
    request = head("POST", "/v3/classify" + QUERY, *headers)
    answer = exchange(gateway, request + b"a\r\nurl=http:/\r\n", finish=True)
    assert (status_of(answer), "cut off" in body_of(answer)["error"]) == (400, True)


def test_body_that_stops_arriving_is_400(stage: Stage) -> None:
    impatient = stage.start_gateway(body_timeout_seconds=0.2)
    request = head(
        "POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 500", "Connection: close"
    )
    started = time.monotonic()
    assert status_of(exchange(impatient, request + b"--BOUNDARY\r\n")) == 400
    assert time.monotonic() - started < 8


@pytest.mark.contract_row("0.5")
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /v3 HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET " + b"/" + b"x" * 100_000,
        b"GET /v3 HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
    ids=["no HTTP", "broken header", "endless address", "length that is not a number"],
)
def test_bytes_that_are_not_http_get_a_json_400(gateway: GatewayInstance, request_bytes: bytes) -> None:
    answer = exchange(gateway, request_bytes)
    assert status_of(answer) == 400
    assert body_of(answer)["code"] == 400
    assert b"x-global-transaction-id: " in answer


def test_kubernetes_that_does_not_answer_is_503_with_retry_after(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("unreachable")
    stage.cluster.reachable = False
    try:
        response = client.get(classifier_id)
    finally:
        stage.cluster.reachable = True
    assert_error(response, 503, "unavailable")
    assert response.headers["retry-after"].isdigit()


def test_healthz_says_why_a_create_would_not_succeed(tmp_path_factory: pytest.TempPathFactory) -> None:
    stage = Stage(folder=tmp_path_factory.mktemp("unhealthy"))
    try:
        instance = stage.start_gateway()
        for file in stage.credentials_folder.iterdir():
            file.unlink()
        # A positive result is cached for some seconds, but not longer.
        wait_for(
            lambda: httpx.get(f"{instance.internal_address}/healthz").status_code == 503, "not healthy without credentials", 15
        )
        assert "credential" in httpx.get(f"{instance.internal_address}/healthz").json()["error"]
    finally:
        stage.close()


def test_healthz_names_an_upload_folder_that_cannot_be_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    stage = Stage(folder=tmp_path_factory.mktemp("full"))
    try:
        instance = stage.start_gateway()
        stage.upload_folder.rmdir()
        wait_for(
            lambda: httpx.get(f"{instance.internal_address}/healthz").status_code == 503, "not healthy without its folder", 15
        )
        assert str(stage.upload_folder) in httpx.get(f"{instance.internal_address}/healthz").json()["error"]
    finally:
        stage.close()


def test_metrics_count_answers_by_route_and_code(gateway: GatewayInstance, client: V3Client) -> None:
    client.get("metrics_1")
    text = httpx.get(f"{gateway.internal_address}/metrics").text
    assert re.search(
        r'ocelli_gateway_requests_total\{code="404",method="GET",route="/v3/classifiers/\{classifier_id\}"\} [1-9]', text
    )


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("prefix", ["", "/visual-recognition/api"])
def test_probes_and_metrics_are_not_at_the_public_port(client: V3Client, prefix: str, path: str) -> None:
    assert_error(client.http.get(prefix + path), 404, "not_found")


def test_livez_answers_without_credentials(gateway: GatewayInstance) -> None:
    assert httpx.get(f"{gateway.address}/livez").status_code == 200


def test_object_is_in_the_namespace_of_the_caller(stage: Stage, client: V3Client) -> None:
    assert stage.classifier(client.created("placed"))["metadata"]["namespace"] == NAMESPACE


def test_unused_address_names_the_address_of_the_api(client: V3Client) -> None:
    assert_error(client.http.get("/"), 404, "not_found", "the API is below /v3, tokens are at /identity/token")


def test_unknown_methods_do_not_create_metrics(gateway: GatewayInstance) -> None:
    exchange(gateway, head("BREWED", "/v3/classifiers" + QUERY, "Connection: close"))
    assert "BREWED" not in httpx.get(f"{gateway.internal_address}/metrics").text
