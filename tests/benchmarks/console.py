"""`make benchmark-console`: the figures that the web console promises. Prints name, value, goal, and whether it is met.

A real gateway on loopback, a browser, and a classifier that is really trained; the cluster is the fake of the gateway's tests. It
fails only if it cannot measure.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from ocelli_cluster.resources import CLASSIFIERS
from tests.benchmarks.measurement import Measurement
from tests.console.browser import find_browser
from tests.console.pages import log_in, open_page
from tests.console.trained import TrainedClassifier, shape_zips
from tests.gateway_harness.stage import NAMESPACE, GatewayInstance, Stage
from tests.gateway_harness.v3_client import connect

CLASSIFIER_COUNT = 1000
IMAGES_PER_CLASS = 110
RUNS = 5
STATUS_CHANGES = 10
WHEEL_PIXELS = 240
WHEEL_PAUSE_MILLISECONDS = 30
TIMEOUT_MILLISECONDS = 20_000
LONG_TASK_MILLISECONDS = 50.0
"""Browsers report tasks of the main thread that are longer."""
"""Installed before the page's scripts."""
OBSERVE_LONG_TASKS = """
    window.longTasks = [];
    new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration)))
        .observe({ type: "longtask", buffered: true });
"""
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
"""After the next frame is painted, the milliseconds since the log-in button was pressed."""
LIST_PAINTED = """() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - window.pressed))))"""
COMPRESSED_BYTES = """() => performance.getEntriesByType("resource")
    .filter((entry) => /\\.(js|css)$/.test(new URL(entry.name).pathname))
    .reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""


def put_classifiers(stage: Stage) -> None:
    """A thousand classifiers of one tenant, all served."""
    for number in range(CLASSIFIER_COUNT):
        stage.put_classifier(classifier_manifest(number))


def classifier_manifest(number: int, reason: str = "Served") -> dict[str, Any]:
    classes = [{"name": name, "examples": [{"url": f"https://example.org/{name}.zip"}]} for name in ("cat", "dog")]
    return {
        "metadata": {"name": f"animals-{number}", "creationTimestamp": "2026-05-04T11:50:00Z"},
        "spec": {"displayName": f"Animals {number}", "classes": classes},
        "status": {
            "classifierID": f"animals_{number}",
            "servedRevision": f"{number:010x}",
            "accuracy": "0.9476",
            "accuracyInterval": {"lower": "0.8847", "upper": "0.9576"},
            "judgedImages": 86,
            "conditions": [{"type": "Ready", "status": str(reason == "Served"), "reason": reason}],
        },
    }


def measure_first_paint(browser: Browser, gateway: GatewayInstance) -> list[Measurement]:
    """Medians of several fresh browsers: the page, then the whole list after the log-in."""
    paints, lists, size = [], [], 0.0
    for _ in range(RUNS):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{gateway.address}/console/")
        page.evaluate("() => addEventListener('submit', () => { window.pressed = performance.now() }, true)")
        log_in(page)
        page.get_by_role("link", name="Animals 999", exact=True).wait_for(state="attached", timeout=TIMEOUT_MILLISECONDS)
        lists.append(float(page.evaluate(LIST_PAINTED)))
        paints.append(float(page.evaluate(FIRST_PAINT)))
        size = float(page.evaluate(COMPRESSED_BYTES))
        context.close()
    return [
        Measurement(what="Console: first paint, seconds", value=median(paints) / 1000, goal=1.0, unit="s"),
        Measurement(what="Console: 1,000 classifiers painted after the log-in", value=median(lists) / 1000, goal=1.0, unit="s"),
        Measurement(what="Console: scripts and styles, compressed", value=size / 1000, goal=150.0, unit="kB"),
    ]
