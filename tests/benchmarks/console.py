"""`make benchmark-console`: the figures that the web console promises. Prints name, value, goal, and whether it is met.

A real gateway on loopback, a browser, and a classifier that is really trained; the cluster is the fake of the gateway's tests.
It fails only if it cannot measure.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect

from ocelli_api.classifier import API_VERSION, CLASSIFIER_ID_LABEL, CREATED_BY_GATEWAY, CREATED_BY_LABEL, KIND, parse_classifier
from ocelli_api.revision import spec_revision
from ocelli_gateway.console_files import FOLDER
from tests.benchmarks.measurement import Measurement
from tests.console.browser import MISSING, find_browser, running_browser
from tests.console.trained import TrainedClassifier, noise_zip, shape_zips
from tests.console.window import open_window
from tests.gateway_harness.stage import NAMESPACE, PASSWORD, USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import connect

CLASSIFIERS = 1000
IMAGES_OF_A_CLASS = 110
RUNS = 5
STATUS_CHANGES = 10
GRID_IMAGES = 300
WHEEL_PIXELS = 200
WHEEL_PAUSE_MILLISECONDS = 40
TIMEOUT_MILLISECONDS = 20_000

FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
# `pressed` is when the log-in was sent; the frame after the next one shows what was drawn before.
WATCH_LOG_IN = "addEventListener('submit', () => { window.pressed = performance.now() }, true)"
SINCE_LOG_IN = """() => new Promise((resolve) =>
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - window.pressed))))"""
# The transfer of a response includes its headers; one from a cache transfers nothing.
LOADED = """performance.getEntriesByType('resource')
    .filter((entry) => /[.](js|css)$/.test(new URL(entry.name).pathname))
    .map(({ name, startTime, encodedBodySize, transferSize }) => ({ name, startTime, encodedBodySize, transferSize }))"""
SCRIPTS_AND_STYLES = frozenset({".js", ".css"})
# Each change of the row, at the time of the page's clock.
WATCH_BADGE = """(id) => {
    window.changes = [];
    const row = document.querySelector(`a[href$="${id}"]`).closest("li");
    new MutationObserver(() => window.changes.push([Date.now(), row.querySelector(".badge").textContent]))
        .observe(row, { childList: true, subtree: true, characterData: true });
}"""
WATCH_LONG_TASKS = """() => {
    window.longTasks = [];
    window.watcher = new PerformanceObserver((list) =>
        window.longTasks.push(...list.getEntries().map((entry) => entry.duration)));
    window.watcher.observe({ type: "longtask" });
}"""
READ_LONG_TASKS = "[...window.longTasks, ...window.watcher.takeRecords().map((entry) => entry.duration)]"


def build_classifier(number: int, *, failed: bool = False) -> dict[str, Any]:
    """A served Classifier as the API server returns it; `failed`: its newest training failed."""
    conditions = {
        False: {"type": "Ready", "status": "True", "reason": "Served"},
        True: {"type": "Stalled", "status": "True", "reason": "TrainingFailed", "message": "The training failed."},
    }
    manifest: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": f"animals-{number}",
            "namespace": NAMESPACE,
            "labels": {CLASSIFIER_ID_LABEL: f"animals_{number}", CREATED_BY_LABEL: CREATED_BY_GATEWAY},
            "creationTimestamp": "2026-05-04T11:50:00Z",
        },
        "spec": {
            "displayName": f"Animals {number}",
            "classes": [{"name": name, "examples": [{"url": f"https://example.org/{name}.zip"}]} for name in ("cat", "dog")],
        },
    }
    revision = spec_revision(parse_classifier({**manifest, "status": {}}).spec)
    manifest["status"] = {
        "classifierID": f"animals_{number}",
        "servedRevision": revision,
        "failedRevision" if failed else "settledRevision": revision,
        "accuracy": "0.9476",
        "accuracyInterval": {"lower": "0.8847", "upper": "0.9576"},
        "judgedImages": 86,
        "conditions": [conditions[failed]],
    }
    return manifest


def measure_first_paint(browser: Browser, gateway: GatewayInstance) -> list[Measurement]:
    """Medians of several fresh windows: the page, and the list after the log-in, which a reload needs too."""
    paints, lists, sizes = [], [], []
    for _ in range(RUNS):
        with open_window(browser, gateway.address) as window:
            window.open("#/classifiers")
            sizes.append(read_first_bytes(window.page))
            window.page.evaluate(WATCH_LOG_IN)
            window.fill_log_in(USER, PASSWORD)
            window.page.locator(".list .row").first.wait_for(timeout=TIMEOUT_MILLISECONDS)
            lists.append(float(window.page.evaluate(SINCE_LOG_IN)))
            expect(window.page.get_by_text(f"{CLASSIFIERS + 1:,} classifiers", exact=True)).to_be_visible()
            paints.append(float(window.page.evaluate(FIRST_PAINT)))
    return [
        Measurement(what="console: first paint of the page", value=statistics.median(paints) / 1000, goal=1.0, unit="s"),
        Measurement(
            what=f"console: {CLASSIFIERS:,} classifiers painted after the log-in was sent",
            value=statistics.median(lists) / 1000,
            goal=1.0,
            unit="s",
        ),
        Measurement(
            what="console: scripts and styles of the first page, compressed",
            value=statistics.median(sizes) / 1000,
            goal=150.0,
            unit="kB",
        ),
    ]


def read_first_bytes(page: Page) -> float:
    """The compressed bytes of what the first paint needed. Raises RuntimeError where any of it was cached."""
    paint = page.wait_for_function(FIRST_PAINT).json_value()
    first = [entry for entry in page.evaluate(LOADED) if entry["startTime"] <= paint]
    cached = [entry["name"] for entry in first if entry["transferSize"] <= entry["encodedBodySize"]]
    if cached or not first:
        raise RuntimeError(f"the window was not fresh: {cached or 'nothing was loaded'}")
    return float(sum(entry["encodedBodySize"] for entry in first))


def measure_all_files(gateway: GatewayInstance) -> Measurement:
    """Every script and style of the console, also those that no page has asked for yet, as the gateway sends them."""
    files = [path.relative_to(FOLDER) for path in sorted(FOLDER.rglob("*")) if path.suffix in SCRIPTS_AND_STYLES]
    size = 0
    with httpx.Client(base_url=f"{gateway.address}/console/", headers={"Accept-Encoding": "gzip"}) as client:
        found = re.search(r'src="([0-9a-f]+)/app[.]js"', client.get("").text)
        if found is None:
            raise RuntimeError("the page names no script")
        for path in files:
            with client.stream("GET", f"{found[1]}/{path.as_posix()}") as response:
                if response.status_code != 200 or response.headers.get("Content-Encoding") != "gzip":
                    raise RuntimeError(f"{path}: {response.status_code}, not compressed")
                size += sum(len(chunk) for chunk in response.iter_raw())
    what = f"console: all {len(files)} scripts and styles, compressed"
    return Measurement(what=what, value=size / 1000, goal=150.0, unit="kB")


def measure_live_status(browser: Browser, gateway: GatewayInstance, stage: Stage) -> Measurement:
    """The longest of several changes of a status, from the write in the cluster to the change of the list."""
    delays = []
    with open_window(browser, gateway.address) as window:
        window.log_in("#/classifiers?search=animals_7")
        window.page.locator(".live.on").wait_for()
        row = window.page.locator(".row", has=window.page.get_by_role("link", name="Animals 7", exact=True))
        row.wait_for()
        window.page.evaluate(WATCH_BADGE, "animals_7")
        for number in range(STATUS_CHANGES):
            failed = number % 2 == 0
            changed_at = time.time()
            stage.put_classifier(build_classifier(7, failed=failed))
            expect(row.locator(".badge")).to_have_text("Failed" if failed else "Ready", timeout=TIMEOUT_MILLISECONDS)
            seen_at = next(at for at, text in reversed(window.page.evaluate("window.changes")) if text)
            delays.append(seen_at / 1000 - changed_at)
    return Measurement(what=f"console: a status is shown, longest of {STATUS_CHANGES}", value=max(delays), goal=1.0, unit="s")


def measure_scrolling(browser: Browser, gateway: GatewayInstance, stage: Stage) -> Measurement:
    """The longest task of the page's main thread while all images of a grid are scrolled through, with their thumbnails."""
    client = connect(gateway, stage)
    with client.http:
        shapes = TrainedClassifier.create(client, "Shapes", shape_zips(IMAGES_OF_A_CLASS), noise_zip())
    with open_window(browser, gateway.address) as window:
        window.log_in(f"#/classifiers/{shapes.classifier_id}/quality")
        page = window.page
        grid = page.locator("#judged-images [role=option]")
        grid.first.scroll_into_view_if_needed()
        page.evaluate(WATCH_LONG_TASKS)
        scroll_to_the_end(page)
        if grid.count() < GRID_IMAGES:
            raise RuntimeError(f"the grid has {grid.count()} images only")
        durations = page.evaluate(READ_LONG_TASKS)
    what = f"console: longest task over 50 ms while {GRID_IMAGES} images scroll ({len(durations)} of them)"
    return Measurement(what=what, value=max(durations, default=0.0), goal=50.0, unit="ms")


def scroll_to_the_end(page: Page) -> None:
    """As with a wheel, until the page has no more."""
    page.mouse.move(600, 400)
    still = 0
    while still < 10:
        before = page.evaluate("scrollY")
        page.mouse.wheel(0, WHEEL_PIXELS)
        page.wait_for_timeout(WHEEL_PAUSE_MILLISECONDS)
        still = still + 1 if page.evaluate("scrollY") == before else 0


def main() -> int:
    program = find_browser()
    if program is None:
        print(f"benchmark-console: {MISSING}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, running_browser(program) as browser:
        stage = Stage(folder=Path(folder) / "stage")
        try:
            gateway = stage.start_gateway()
            print(measure_scrolling(browser, gateway, stage), flush=True)
            for number in range(CLASSIFIERS):
                stage.put_classifier(build_classifier(number))
            for measurement in measure_first_paint(browser, gateway):
                print(measurement, flush=True)
            print(measure_all_files(gateway), flush=True)
            print(measure_live_status(browser, gateway, stage), flush=True)
        finally:
            stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
