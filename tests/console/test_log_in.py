"""Logging in: by password or key, again without losing what was typed, and never kept in the browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.console.photographs import write_folders
from tests.console.test_new_page import CREATED, choose_folder, create
from tests.console.window import Window
from tests.gateway_harness.stage import OTHER_KEY, PASSWORD, USER, GatewayInstance, Stage, wait_for

PASSWORD_GRANT = {"grant_type": "client_credentials"}
CARLA = "carla"


@pytest.fixture
def carla(stage: Stage) -> Iterator[Callable[[str], None]]:
    """A user of her own, and the function that changes her password, which ends all her log-ins."""

    def change(password: str) -> None:
        stage.write_credentials("carla.json", user=CARLA, password=password, namespace="team-c", owner="owner-c")

    change("first")
    yield change
    (stage.credentials_folder / "carla.json").unlink()


def log_in_when_known(window: Window, path: str) -> None:
    """The gateway reads new credentials a moment later."""
    wait_for(lambda: token_status(window.address, "first") == 200, "the new user is known")
    window.log_in(path, user=CARLA, password="first")


def token_status(address: str, password: str) -> int:
    return httpx.post(f"{address}/identity/token", data=PASSWORD_GRANT, auth=(CARLA, password)).status_code


@pytest.mark.parametrize("password", ["wrong", ""])
def test_password_is_exchanged_for_a_token_only_if_it_is_right(gateway: GatewayInstance, password: str) -> None:
    address = f"{gateway.address}/identity/token"
    assert httpx.post(address, data=PASSWORD_GRANT, auth=(USER, PASSWORD)).json()["token_type"] == "Bearer"
    refused = httpx.post(address, data=PASSWORD_GRANT, auth=(USER, password))
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "BXNIM0602E")


def test_token_is_not_exchanged_for_another_one(gateway: GatewayInstance) -> None:
    address = f"{gateway.address}/identity/token"
    token = httpx.post(address, data=PASSWORD_GRANT, auth=(USER, PASSWORD)).json()["access_token"]
    refused = httpx.post(address, data=PASSWORD_GRANT, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "BXNIM0602E")


def test_refused_token_gets_no_challenge_that_browsers_answer_with_a_dialog(gateway: GatewayInstance) -> None:
    refused = httpx.get(f"{gateway.address}/ocelli/v1/session", headers={"Authorization": "Bearer expired"})
    assert refused.headers["www-authenticate"].startswith("Bearer ")


def test_wrong_password_is_said_in_words_and_the_name_stays(window: Window) -> None:
    window.open()
    window.fill_log_in(USER, "wrong")
    expect(window.page.get_by_role("alert")).to_contain_text("The user name or the password is wrong")
    expect(window.page.get_by_label("User name")).to_have_value(USER)


def test_api_key_logs_in(window: Window) -> None:
    window.open()
    window.page.locator("label", has_text="API key").first.click()
    window.page.get_by_role("textbox", name="API key").fill(OTHER_KEY)
    window.page.get_by_role("button", name="Log in").click()
    expect(window.page.get_by_text("bert in team-b")).to_be_visible()


def test_log_in_leads_to_the_page_of_the_address(window: Window) -> None:
    window.log_in("#/new?name=Dogs")
    expect(window.page.get_by_role("heading", name="New classifier")).to_be_visible()
    expect(window.page.get_by_label("Name")).to_have_value("Dogs")


def test_nothing_that_logs_in_is_kept_in_the_browser(window: Window) -> None:
    window.log_in()
    kept = window.page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    assert json.loads(kept) == ["", {}, {}]
    assert window.page.context.cookies() == []
    window.page.reload()
    expect(window.page.get_by_role("button", name="Log in")).to_be_visible()


def test_ended_log_in_asks_again_over_the_page_and_nothing_typed_is_lost(
    window: Window, carla: Callable[[str], None], tmp_path: Path
) -> None:
    log_in_when_known(window, "#/new?name=Marks")
    page = window.page
    choose_folder(page, write_folders(tmp_path / "data"))
    expect(page.get_by_text("Ready: 24 images")).to_be_visible()
    carla("second")
    wait_for(lambda: token_status(window.address, "second") == 200, "the new password is known")
    create(page)
    dialog = page.get_by_role("dialog", name="Log in again")
    expect(dialog).to_contain_text("Everything on this page is kept")
    expect(dialog.get_by_label("User name")).to_have_value(CARLA)
    log_in_again(page, CARLA, "first")
    expect(dialog.get_by_role("alert")).to_contain_text("is wrong")
    log_in_again(page, USER, PASSWORD)
    expect(dialog.get_by_role("alert")).to_contain_text("This page belongs to carla")
    log_in_again(page, CARLA, "second")
    expect(page.get_by_role("heading", name="Marks")).to_be_visible(timeout=CREATED)


def log_in_again(page: Page, user: str, password: str) -> None:
    dialog = page.get_by_role("dialog", name="Log in again")
    dialog.get_by_label("User name").fill(user)
    dialog.locator("input[type=password]:enabled").fill(password)
    dialog.get_by_role("button", name="Log in").click()


def test_logging_out_forgets_the_token(window: Window) -> None:
    window.log_in()
    requests: list[str] = []
    window.page.get_by_role("button", name="Log out").click()
    window.page.on("request", lambda request: requests.append(request.url) if "/ocelli/" in request.url else None)
    window.go("#/new")
    expect(window.page.get_by_role("button", name="Log in")).to_be_visible()
    assert requests == []


def test_page_of_another_origin_cannot_show_the_console(window: Window, gateway: GatewayInstance, stage: Stage) -> None:
    async def frame(_: Request) -> HTMLResponse:
        return HTMLResponse(f'<iframe src="{gateway.address}/console/"></iframe>')

    other = stage.start_web_server(Starlette(routes=[Route("/", frame)]))
    window.page.goto(other)
    window.page.wait_for_load_state("networkidle")
    framed = window.page.frames[1]
    assert framed.url == "chrome-error://chromewebdata/"
    # The browser reports the refusal, and the page of the other origin is another host.
    assert all("frame" in fault.lower() or other in fault for fault in window.faults)
    window.faults.clear()


@pytest.mark.parametrize("path", ["/ocelli/v1/classifiers/birds_1/retrain", "/v3/classifiers/birds_1"])
def test_form_of_another_site_changes_nothing(gateway: GatewayInstance, path: str) -> None:
    headers = {"Origin": "https://other.example", "Cookie": "token=anything", "Content-Type": "text/plain"}
    response = httpx.post(gateway.address + path, headers=headers, content="{}", params={"version": "2018-03-19"})
    assert response.status_code == 401
    assert "access-control-allow-origin" not in response.headers
