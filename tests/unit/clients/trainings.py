"""Trainings that end while a command waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tests.gateway_harness.stage import wait_for
from tests.gateway_harness.v3_client import V3Client


def after_creation(client: V3Client, name: str, end: Callable[[str], object]) -> Future[object]:
    """End a training as soon as the classifier of this name exists: `end` gets its id."""

    def wait() -> object:
        found: list[str] = []

        def exists() -> bool:
            listed = client.http.get("/v3/classifiers").json()["classifiers"]
            found.extend(item["classifier_id"] for item in listed if item["name"] == name)
            return bool(found)

        wait_for(exists, name, timeout_seconds=60)
        return end(found[0])

    return ThreadPoolExecutor(1).submit(wait)
