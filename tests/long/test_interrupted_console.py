"""A gateway that is killed, and a connection that is cut, in the middle of 200 MB that the console sends.

The gateway is a process of its own, over a real API server. The page has to say what happened, and to go on by itself: it sends
nothing twice apart from the zip in flight, and loses nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Request, Response, expect

from tests.console.browser import needed_browser
from tests.console.line import Line
from tests.console.photographs import large_png
from tests.console.test_new_page import drop
from tests.console.window import open_window
from tests.gateway_harness.stage import wait_for
from tests.integration.gateway.gateway_process import PASSWORD, USER, GatewayProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CLASSES = ("one", "two", "three")
IMAGES_OF_A_CLASS = 10
INTERRUPTED_AT_BYTES = 100_000_000
"""In the middle of the second of three zips of 68 MB."""
SLOW_MILLISECONDS = 180_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 203 MB in all."""
    folder = tmp_path_factory.mktemp("large") / "data"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for seed in range(IMAGES_OF_A_CLASS):
            (folder / name / f"{seed}.png").write_bytes(large_png(100 * number + seed))
    return folder


@pytest.fixture
def gateway(namespace: str, start_gateway: Callable[..., GatewayProcess]) -> GatewayProcess:
    started = start_gateway(namespace)
    started.wait_until_healthy()
    return started


@pytest.fixture
def line(gateway: GatewayProcess) -> Iterator[Line]:
    opened = Line(port=gateway.port)
    yield opened
    opened.close()


def kill(gateway: GatewayProcess, line: Line) -> Callable[[], None]:
    """Kill the gateway in the middle. Returns what starts it again, on the same port."""
    wait_for(lambda: line.sent_bytes > INTERRUPTED_AT_BYTES, "half of the images are sent", timeout_seconds=120)
    assert gateway.process is not None
    gateway.process.kill()
    gateway.process.wait()
    return gateway.start


def cut(gateway: GatewayProcess, line: Line) -> Callable[[], None]:
    """Cut the connection in the middle. Returns what restores it."""
    wait_for(lambda: line.is_cut, "the connection is cut", timeout_seconds=120)
    return line.restore


@pytest.mark.parametrize("interrupt", [kill, cut], ids=["killed", "cut"])
def test_page_goes_on_by_itself_and_sends_only_the_zip_in_flight_again(
    gateway: GatewayProcess, line: Line, folder: Path, interrupt: Callable[[GatewayProcess, Line], Callable[[], None]]
) -> None:
    with needed_browser() as browser, open_window(browser, line.address) as window:
        window.log_in("#/new?name=Large", user=USER, password=PASSWORD)
        page = window.page
        sent, answered = count_uploads(page)
        drop(page, folder)
        expect(page.get_by_text("Ready: 30 images")).to_be_visible(timeout=SLOW_MILLISECONDS)
        line.cut_after(INTERRUPTED_AT_BYTES if interrupt is cut else 1 << 40)
        page.get_by_role("button", name="Create and train").click()
        restore = interrupt(gateway, line)
        received = line.sent_bytes
        expect(page.get_by_text("The service cannot be reached.")).to_be_visible(timeout=SLOW_MILLISECONDS)
        expect(page.get_by_text("1 of 3 zips stored;")).to_be_visible()
        words = page.locator(".sending").inner_text()
        restore()
        expect(page.get_by_role("heading", name="Large")).to_be_visible(timeout=SLOW_MILLISECONDS)
        classifier_id = page.url.split("/")[-1]
        assert window.faults == []
    print(f"\n{received / 1e6:.0f} MB sent, then: {' '.join(words.split())}\nsent {dict(sent)}, stored {dict(answered)}")
    with gateway.client() as client:
        assert read_classes(client, classifier_id) == dict.fromkeys(CLASSES, 1)
        stored = {item["sha256"]: item["bytes"] for item in client.get(f"/ocelli/v1/uploads/{classifier_id}").json()["uploads"]}
        [card] = client.get("/ocelli/v1/classifiers").json()["classifiers"]
    assert card["classifier_id"] == classifier_id
    assert answered == dict.fromkeys(stored, 1)
    # The one in flight, as often as the page tried until the service was back.
    assert sorted(sent.values())[:2] == [1, 1]
    assert set(stored) == set(sent)
    # Less than that zip reached the service twice.
    assert line.sent_bytes - sum(stored.values()) < max(stored.values())


def count_uploads(page: Page) -> tuple[Counter[str], Counter[str]]:
    """How often each zip is sent, and how often it is answered with success, by digest."""
    sent: Counter[str] = Counter()
    answered: Counter[str] = Counter()

    def find_digest(request: Request) -> str | None:
        found = re.search("/ocelli/v1/uploads/[^/]+/([0-9a-f]{64})$", request.url)
        return found[1] if found and request.method == "PUT" else None

    def note_request(request: Request) -> None:
        if digest := find_digest(request):
            sent[digest] += 1

    def note_response(response: Response) -> None:
        if (digest := find_digest(response.request)) and response.ok:
            answered[digest] += 1

    page.on("request", note_request)
    page.on("response", note_response)
    return sent, answered


def read_classes(client: httpx.Client, classifier_id: str) -> dict[str, int]:
    """The number of sources of each class."""
    details = client.get(f"/ocelli/v1/classifiers/{classifier_id}").json()
    return {item["class"]: len(item["sources"]) for item in details["classes"]}
