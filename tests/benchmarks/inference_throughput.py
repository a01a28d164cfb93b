"""`python -m tests.benchmarks.inference_throughput`: the throughput of one inference server on two cores, including the client.

Prints lines of name and value. The server is the program itself, over an artifact of the default backbone; the clients keep
their connections and share the cores with it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from ocelli_api.pods import INFERENCE_PORT, INTERNAL_PORT, Environment
from ocelli_api.prediction import PREDICTIONS_PATH
from tests.unit.inference.artifacts import CLASSIFIER_ID, NAMESPACE, REVISION, install_artifact, make_jpeg

CORES = 2
SIZES = ((320, 213), (1920, 1280))
CLIENTS = (1, 2, 16)
WARM_UP_SECONDS = 1.0
MEASURED_SECONDS = 5.0
START_SECONDS = 60.0


def show(what: str, value: float, unit: str) -> None:
    print(f"{what:48} {value:9.2f} {unit}", flush=True)


async def wait_until_ready(session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                async with session.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.01)


async def batches(session: aiohttp.ClientSession) -> tuple[float, float]:
    """How many batches there were, and how many images in all of them."""
    async with session.get("/metrics") as answer:
        text = await answer.text()
    count, images = (
        float(re.findall(rf"^ocelli_inference_batch_images_{name} (\S+)$", text, re.MULTILINE)[0]) for name in ("count", "sum")
    )
    return count, images


async def measure(session: aiohttp.ClientSession, image: bytes, clients: int) -> tuple[float, list[float]]:
    """Requests a second, and the seconds that each took."""
    taken: list[float] = []
    begin = time.perf_counter() + WARM_UP_SECONDS
    end = begin + MEASURED_SECONDS

    async def predict_until_the_end() -> None:
        while (started := time.perf_counter()) < end:
            async with session.post(PREDICTIONS_PATH, data=image) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"the server answered {answer.status}")
            if started >= begin:
                taken.append(time.perf_counter() - started)

    await asyncio.gather(*(predict_until_the_end() for _ in range(clients)))
    return len(taken) / MEASURED_SECONDS, taken


async def run(address: str, started: float, process_id: int) -> None:
    async with (
        aiohttp.ClientSession(base_url=f"http://{address}:{INFERENCE_PORT}") as session,
        aiohttp.ClientSession(base_url=f"http://{address}:{INTERNAL_PORT}") as internal,
    ):
        await wait_until_ready(internal)
        show("start of the process to ready", time.monotonic() - started, "s")
        show("memory when ready", resident_mib(process_id), "MiB")
        for width, height in SIZES:
            image = make_jpeg(1, height=height, width=width)
            for clients in CLIENTS:
                what = f"{width}x{height} JPEG, {clients} clients"
                before = await batches(internal)
                rate, taken = await measure(session, image, clients)
                after = await batches(internal)
                percentiles = statistics.quantiles(taken, n=100)
                show(f"{what}, rate", rate, "/s")
                show(f"{what}, p50", percentiles[49] * 1000, "ms")
                show(f"{what}, p99", percentiles[98] * 1000, "ms")
                show(f"{what}, images in a batch", (after[1] - before[1]) / (after[0] - before[0]), "")
        show("memory at the end", resident_mib(process_id), "MiB")


def resident_mib(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024**2


def main() -> int:
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    address = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as folder:
        environment: dict[str, str] = {
            Environment.STORE_URL: install_artifact(Path(folder) / "store"),
            Environment.CLASSIFIER: "benchmark/dogs",
            Environment.NAMESPACE: NAMESPACE,
            Environment.CLASSIFIER_ID: CLASSIFIER_ID,
            Environment.REVISION: REVISION,
            Environment.BIND_ADDRESS: address,
            Environment.TERMINATION_MESSAGE_PATH: f"{folder}/termination-message",
            Environment.LOG_LEVEL: "WARNING",
        }
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "ocelli_inference"], env={**os.environ, **environment})
        try:
            asyncio.run(run(address, started, process.pid))
        finally:
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
