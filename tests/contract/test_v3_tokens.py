"""Bearer tokens and the older api_key (sections 0.3 and B7 of the REST contract)."""

from __future__ import annotations

import base64
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest

from ocelli_cluster.resources import SECRETS
from ocelli_gateway.token_keys import TokenKey, TokenUse, parse_keys
from tests.gateway_harness.stage import OTHER_KEY, PASSWORD, SYSTEM_NAMESPACE, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, connect

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


def ask(gateway: GatewayInstance, **form: str) -> httpx.Response:
    fields = {"grant_type": GRANT, "apikey": PASSWORD, "response_type": "cloud_iam", **form}
    return httpx.post(f"{gateway.address}/identity/token", data=fields, timeout=30)


def token_of(gateway: GatewayInstance, api_key: str = PASSWORD) -> str:
    response = ask(gateway, apikey=api_key)
    assert response.status_code == 200, response.text
    token: str = response.json()["access_token"]
    return token


def status_with(gateway: GatewayInstance, token: str, path: str = "/v3/classifiers") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(gateway.address + path, params=VERSION, headers=headers, timeout=30).status_code


def signing_key(stage: Stage, use: TokenUse) -> TokenKey:
    keys = parse_keys(stage.call(lambda: stage.cluster.find(SECRETS, SYSTEM_NAMESPACE, "ocelli-token-keys")) or {})
    (key,) = [key for key in keys.values() if key.use is use]
    return key


@pytest.mark.contract_row("B7", "0.1/POST /identity/token", "0.3/Bearer token from /identity/token")
def test_answer_is_the_whole_object(gateway: GatewayInstance) -> None:
    before = int(time.time())
    body = ask(gateway).json()
    claims = jwt.decode(body.pop("access_token"), options={"verify_signature": False})
    assert before <= claims["iat"] <= time.time()
    refresh = jwt.decode(body.pop("refresh_token"), options={"verify_signature": False})
    assert refresh["exp"] - claims["exp"] >= 8 * 86_400
    assert body == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "expiration": claims["iat"] + 3600,
        "scope": "ibm openid",
    }
    assert claims["exp"] == body["expiration"]


@pytest.mark.contract_row("B7")
def test_token_logs_in_as_the_owner_of_its_key(stage: Stage, gateway: GatewayInstance, client: V3Client) -> None:
    identity = client.created("token")
    mine, others = token_of(gateway), token_of(gateway, OTHER_KEY)
    path = f"/v3/classifiers/{identity}"
    assert [status_with(gateway, token, path) for token in (mine, others)] == [200, 404]


@pytest.mark.contract_row("B7")
def test_token_works_on_every_replica_at_once(stage: Stage, gateway: GatewayInstance) -> None:
    other = stage.start_gateway()
    assert [status_with(other, token_of(gateway)), status_with(gateway, token_of(other))] == [200, 200]


@pytest.mark.contract_row("B7")
def test_unknown_key_is_400_with_the_identity_services_body(gateway: GatewayInstance) -> None:
    response = ask(gateway, apikey="wrong")
    assert_error(response, 400)
    body = response.json()
    assert (body["errorCode"], body["errorMessage"]) == ("BXNIM0415E", "Provided API key could not be found")


@pytest.mark.contract_row("B7")
@pytest.mark.parametrize(
    "form", [{"grant_type": "password"}, {"grant_type": ""}, {"apikey": ""}], ids=["other", "none", "no key"]
)
def test_other_forms_are_400(gateway: GatewayInstance, form: dict[str, str]) -> None:
    assert_error(ask(gateway, **form), 400, "parameter_error")


def test_form_of_more_than_16_kb_is_413(gateway: GatewayInstance) -> None:
    assert_error(ask(gateway, padding="x" * 16 * 1024), 413, "limit_exceeded", "16 KB")


def test_tokens_count_among_the_requests_of_the_tenant(stage: Stage) -> None:
    gateway = stage.start_gateway(quota_requests_per_second=1)
    refused: list[httpx.Response] = []

    def is_refused() -> bool:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: ask(gateway, apikey=OTHER_KEY), range(8)))
        refused.extend(answer for answer in answers if answer.status_code != 200)
        return bool(refused)

    # Even on a slow machine, one of the rounds ends within a second.
    wait_for(is_refused, "a token is refused", timeout_seconds=30)
    assert_error(refused[0], 429, "limit_exceeded", "quota of requests")


def test_body_that_is_not_a_form_is_400(gateway: GatewayInstance) -> None:
    assert_error(httpx.post(f"{gateway.address}/identity/token", json={"apikey": PASSWORD}), 400, "parameter_error")


def altered(token: str, **claims: Any) -> str:
    """The same token with other claims, under its old signature."""
    head, body, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(body + "==")) | claims
    changed = base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


@pytest.mark.contract_row("B7")
@pytest.mark.parametrize("what", ["altered", "cut off", "unsigned", "of another key", "expired", "from the future", "no token"])
def test_invalid_token_is_401(stage: Stage, gateway: GatewayInstance, what: str) -> None:
    good = token_of(gateway)
    claims = jwt.decode(good, options={"verify_signature": False})
    key = signing_key(stage, TokenUse.ACCESS)
    headers = {"kid": key.identity}
    now = int(time.time())
    token = {
        "altered": altered(good, sub="bert"),
        "cut off": good[:-4],
        "unsigned": jwt.encode(claims, None, algorithm="none", headers=headers),
        "of another key": jwt.encode(claims, b"x" * 32, algorithm="HS256", headers=headers),
        "expired": jwt.encode({**claims, "iat": now - 3700, "exp": now - 100}, key.secret, headers=headers),
        "from the future": jwt.encode({**claims, "iat": now + 900, "exp": now + 4000}, key.secret, headers=headers),
        "no token": "eyJ",
    }[what]
    assert (status_with(gateway, good), status_with(gateway, token)) == (200, 401)


def test_token_is_invalid_after_a_change_of_its_password(stage: Stage, gateway: GatewayInstance) -> None:
    values = {"user": "carla", "namespace": "team-carla", "owner": "carla"}
    stage.write_credentials("carla.json", password="first", **values)
    wait_for(lambda: ask(gateway, apikey="first").status_code == 200, "the set is read")
    token = token_of(gateway, "first")
    stage.write_credentials("carla.json", password="second", **values)
    wait_for(lambda: status_with(gateway, token) == 401, "the token is worth nothing any more")


def pair_of(gateway: GatewayInstance, api_key: str = PASSWORD) -> tuple[str, str]:
    body = ask(gateway, apikey=api_key).json()
    return body["access_token"], body["refresh_token"]


def renew(gateway: GatewayInstance, refresh_token: str) -> httpx.Response:
    """As SDKs of 2018 and 2019 do; their Authorization header has no meaning."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    headers = {"Authorization": "Basic Yng6Yng="}
    return httpx.post(f"{gateway.address}/identity/token", data=form, headers=headers, timeout=30)


@pytest.mark.contract_row("B7")
def test_refresh_token_gives_a_new_usable_pair(stage: Stage, gateway: GatewayInstance, client: V3Client) -> None:
    path = f"/v3/classifiers/{client.created('renewed')}"
    _, refresh_token = pair_of(gateway)
    for _ in range(3):
        answer = renew(gateway, refresh_token)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == ask(gateway).json().keys()
        assert status_with(gateway, answer.json()["access_token"], path) == 200
        refresh_token = answer.json()["refresh_token"]


@pytest.mark.contract_row("B7")
def test_refresh_token_works_on_every_replica_at_once(stage: Stage, gateway: GatewayInstance) -> None:
    other = stage.start_gateway()
    assert renew(other, pair_of(gateway)[1]).status_code == 200
    assert renew(gateway, pair_of(other)[1]).status_code == 200


@pytest.mark.contract_row("B7")
@pytest.mark.parametrize(
    "what",
    [
        "altered",
        "cut off",
        "unsigned",
        "of another key",
        "expired",
        "an access token",
        "as access",
        "not_supported",
        "no token",
    ],
)
def test_invalid_refresh_token_is_400(stage: Stage, gateway: GatewayInstance, what: str) -> None:
    access, good = pair_of(gateway)
    claims = jwt.decode(good, options={"verify_signature": False})
    key = signing_key(stage, TokenUse.REFRESH)
    headers, now = {"kid": key.identity}, int(time.time())
    token = {
        "altered": altered(good, sub="bert"),
        "cut off": good[:-4],
        "unsigned": jwt.encode(claims, None, algorithm="none", headers=headers),
        "of another key": jwt.encode(claims, b"x" * 32, algorithm="HS256", headers=headers),
        "expired": jwt.encode({**claims, "iat": now - 900_000, "exp": now - 100}, key.secret, headers=headers),
        "an access token": access,
        "as access": jwt.encode(claims, signing_key(stage, TokenUse.ACCESS).secret, headers=headers),
        "not_supported": "not_supported",
        "no token": "\U0001f436",
    }[what]
    assert renew(gateway, good).status_code == 200
    response = renew(gateway, token)
    assert_error(response, 400)
    assert response.json()["errorCode"] == "BXNIM0407E"


def test_refresh_without_a_token_is_400(gateway: GatewayInstance) -> None:
    response = renew(gateway, " ")
    assert_error(response, 400, "parameter_error", "refresh_token")
    assert response.json()["errorCode"] == "BXNIM0407E"


def test_refresh_token_is_not_a_bearer_token(gateway: GatewayInstance) -> None:
    assert status_with(gateway, pair_of(gateway)[1]) == 401


@pytest.mark.contract_row("B7")
def test_refresh_token_is_invalid_after_a_change_of_its_password(stage: Stage, gateway: GatewayInstance) -> None:
    values = {"user": "dora", "namespace": "team-dora", "owner": "dora"}
    stage.write_credentials("dora.json", password="first", **values)
    wait_for(lambda: ask(gateway, apikey="first").status_code == 200, "the set is read")
    _, refresh_token = pair_of(gateway, "first")
    stage.write_credentials("dora.json", password="second", **values)
    wait_for(lambda: renew(gateway, refresh_token).status_code == 400, "the token is worth nothing any more")


def test_tokens_are_never_logged(gateway: GatewayInstance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        tokens = [*pair_of(gateway), "not_supported_by_anybody"]
        for token in tokens:
            renew(gateway, token)
        lines = [str(vars(record)) for record in caplog.records if record.name.startswith("ocelli")]
    assert lines
    assert not [line for line in lines if any(token in line for token in tokens)]


def test_signing_keys_survive_an_outage_of_the_cluster(stage: Stage) -> None:
    own = stage.start_gateway()
    token = token_of(own)
    stage.cluster.reachable = False
    try:
        # The token is valid; the classifier does not exist.
        assert status_with(own, token) == 503
        assert ask(own).status_code == 200
    finally:
        stage.cluster.reachable = True


@pytest.mark.contract_row("0.3/Query, old clients only")
@pytest.mark.parametrize("parameter", ["api_key", "apikey"])
def test_api_key_in_the_query_logs_in(gateway: GatewayInstance, parameter: str) -> None:
    response = httpx.get(f"{gateway.address}/v3/classifiers", params={**VERSION, parameter: OTHER_KEY})
    assert response.status_code == 200


@pytest.mark.parametrize("parameter", ["api_key", "apikey"])
def test_wrong_api_key_in_the_query_is_401(gateway: GatewayInstance, parameter: str) -> None:
    response = httpx.get(f"{gateway.address}/v3/classifiers", params={**VERSION, parameter: "wrong"})
    assert_error(response, 401, "unauthorized")


@pytest.mark.parametrize("parameter", ["api_key", "apikey"])
@pytest.mark.parametrize(
    "path", ["/v3/classifiers", "/v3/none", "/v3/classifiers/x_1/core_ml_model", "/none", "/identity/token"]
)
def test_api_key_in_the_query_is_never_logged(
    gateway: GatewayInstance, caplog: pytest.LogCaptureFixture, parameter: str, path: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        for key in (OTHER_KEY, "a-wrong-key-of-somebody"):
            httpx.get(gateway.address + path, params={**VERSION, parameter: key})
        # The client's own lines name what it sends; uvicorn's access log is off, and pytest's handlers alone hear it.
        others = ("http", "uvicorn.access")
        lines = [str(vars(record)) for record in caplog.records if not record.name.startswith(others)]
    assert lines
    assert not [line for line in lines if OTHER_KEY in line or "a-wrong-key" in line]


@pytest.mark.parametrize("parameter", ["api_key", "apikey"])
def test_api_key_that_is_not_text_is_401(gateway: GatewayInstance, parameter: str) -> None:
    assert_error(httpx.get(f"{gateway.address}/v3/classifiers?version=2018-03-19&{parameter}=%ED%A0%BD%00"), 401)


def test_credentials_in_the_header_take_precedence_over_the_query(
    stage: Stage, gateway: GatewayInstance, client: V3Client
) -> None:
    identity = client.created("header")
    response = connect(gateway, stage).http.get(f"/v3/classifiers/{identity}", params={**VERSION, "api_key": OTHER_KEY})
    assert response.status_code == 200
