"""How long `GET /v3/classifiers/{id}` takes at 200 requests a second while a training limited to one core runs.

`python -m tests.benchmarks.gateway_status` prints the percentiles, with and without the training. The load is open: each
request has a scheduled time and is measured from it, even if earlier ones are not answered yet.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.trainer_process import TrainerProcess
from tests.gateway_harness.v3_client import basic
from tests.product.instance import running_ocelli, wait_for

REQUESTS_PER_SECOND = 200
SECONDS = 20
CONNECTIONS = 20
WARM_UP_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class StatusTimes:
    """Milliseconds."""

    median: float
    percentile_99: float


async def load(address: str, auth: tuple[str, str], path: str, seconds: float) -> list[float]:
    """Milliseconds of each request, over kept-alive connections."""
    import aiohttp

    times: list[float] = []
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    headers = {"Authorization": basic(*auth)}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def send(at: float) -> None:
            async with session.get(f"{address}{path}?version=2018-03-19") as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"status {response.status}")
            times.append((time.perf_counter() - at) * 1000)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for index in range(round(seconds * REQUESTS_PER_SECOND)):
                at = started + index / REQUESTS_PER_SECOND
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                tasks.create_task(send(at))
    return times


def run_load(address: str, auth: tuple[str, str], path: str) -> StatusTimes:
    """The load in a separate process, on an event loop like the gateway's."""
    options = json.dumps({"address": address, "auth": auth, "path": path})
    command = [sys.executable, "-m", "tests.benchmarks.gateway_status", options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return StatusTimes(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def training(folder: Path, samples: Path) -> Iterator[None]:
    """Trainings on one core, one after the other, for as long as the context lasts."""
    zips = {name: samples / f"{name}.zip" for name in ("zero", "one", "two")}
    trainer = TrainerProcess.prepare(folder, zips, cores=1)
    stop = threading.Event()

    def train_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            trainer.run(number)

    thread = threading.Thread(target=train_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure() -> tuple[StatusTimes, StatusTimes]:
    """Without and with a concurrent training."""
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        folder = Path(name)
        with running_ocelli(folder) as instance:
            auth = (instance.user, instance.password)
            with instance.client() as client:
                files = [
                    (f"{part}_positive_examples", (instance.samples / f"{part}.zip").read_bytes()) for part in ("zero", "one")
                ]
                identity = client.post("/v3/classifiers", data={"name": "status"}, files=files).json()["classifier_id"]
                path = f"/v3/classifiers/{identity}"
                wait_for("it is ready", lambda: client.get(path).json()["status"] == "ready")
                alone = run_load(instance.address, auth, path)
                with training(folder, instance.samples):
                    during_training = run_load(instance.address, auth, path)
            return alone, during_training


def main() -> None:
    if len(sys.argv) > 1:
        import uvloop

        options = json.loads(sys.argv[1])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            auth = (options["auth"][0], options["auth"][1])
            runner.run(load(options["address"], auth, options["path"], WARM_UP_SECONDS))
            times = runner.run(load(options["address"], auth, options["path"], SECONDS))
        print(json.dumps({"median": statistics.median(times), "percentile_99": statistics.quantiles(times, n=100)[98]}))
        return
    for what, times in zip(("alone", "during a training"), measure(), strict=True):
        print(f"status requests {what}: median {times.median:.2f} ms, 99th percentile {times.percentile_99:.2f} ms")


if __name__ == "__main__":
    main()
