"""Pages of other sites cannot change anything with a password that the browser keeps for this one."""

from __future__ import annotations

import httpx
import pytest

from tests.gateway_harness.stage import GatewayInstance
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://other.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://sibling.example.org"},
    {"Origin": "https://other.example"},
    {"Origin": "null"},
    {"Origin": "https://[broken"},
]


@pytest.fixture(scope="module")
def classifier_id(client: V3Client) -> str:
    return client.created("kept")


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_changes_nothing_with_a_stored_password(
    client: V3Client, classifier_id: str, headers: dict[str, str]
) -> None:
    for path in ("/ocelli/v1/uploads", f"/ocelli/v1/classifiers/{classifier_id}/suspend", "/v3/classify"):
        refused = client.http.post(path, params=VERSION, headers={**headers, "Content-Type": "text/plain"}, content="{}")
        assert_error(refused, 400, "input_error", "comes from a page of another site")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_page_of_this_site_may_use_a_stored_password(client: V3Client, site: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Origin": "https://seen-by-a-proxy.example.org"}
    assert client.http.post("/ocelli/v1/uploads", headers=headers, json={"name": "birds"}).status_code == 200


def test_a_page_without_tls_may_use_a_stored_password_of_its_own_site(gateway: GatewayInstance, client: V3Client) -> None:
    headers = {"Origin": gateway.address}
    assert client.http.post("/ocelli/v1/uploads", headers=headers, json={"name": "birds"}).status_code == 200


def test_a_bearer_token_is_accepted_from_any_page(gateway: GatewayInstance, client: V3Client) -> None:
    form = {"grant_type": "client_credentials"}
    # The console behind a proxy that changes the host logs in by this request.
    tokens = client.http.post("/identity/token", data=form, headers={"Origin": "https://proxy.example.org"}).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}", "Sec-Fetch-Site": "cross-site"}
    answer = httpx.post(f"{gateway.address}/ocelli/v1/uploads", headers=headers, json={"name": "birds"})
    assert answer.status_code == 200
