"""`make benchmark`: what the project promises in numbers, measured. Prints what, value, goal, and whether it was met.

It fails only where it cannot measure. The figures hold for the machine they were taken on.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ocelli_quickstart.digits import Digits
from tests.benchmarks import gateway_memory, gateway_status
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.trainer_process import TrainerProcess
from tests.product.instance import CHECKOUT, connect, start_ocelli, stop_ocelli

PHOTOGRAPHS = CHECKOUT.parent / "shared" / "data"
TRAINER_RUNS = 5
START_RUNS = 3


def photographs(folder: Path) -> tuple[str, dict[str, Path]]:
    """What the hundred images are, and a zip for each of two classes."""
    if (PHOTOGRAPHS / "cars.zip").exists():
        return "100 photographs", {"car": PHOTOGRAPHS / "cars.zip", "truck": PHOTOGRAPHS / "trucks.zip"}
    digits = Digits()
    zips = {"zero": folder / "zero.zip", "one": folder / "one.zip"}
    for digit, path in enumerate(zips.values()):
        digits.write_zip(path, [digit], range(50))
    return "100 digits (no photographs at hand)", zips


@contextmanager
def running(state_dir: Path, log: Path) -> Iterator[httpx.Client]:
    process = start_ocelli(state_dir, log)
    try:
        with connect(state_dir, process).client() as client:
            yield client
    finally:
        stop_ocelli(process)


def measure_start(state_dir: Path, log: Path) -> float:
    """Seconds from a warm `make run` to a gateway that answers `/healthz` with 200, median."""
    taken = []
    for _ in range(START_RUNS):
        started = time.monotonic()
        with running(state_dir, log):
            taken.append(time.monotonic() - started)
    return statistics.median(taken)


def measure_create_to_ready(client: httpx.Client, zips: dict[str, Path]) -> float:
    """Seconds from sending a create to the first `ready`."""
    files = {f"{name}_positive_examples": path.read_bytes() for name, path in zips.items()}
    started = time.monotonic()
    answer = client.post("/v3/classifiers", data={"name": "benchmark"}, files=files)
    identity = answer.json()["classifier_id"]
    while True:
        details = client.get(f"/v3/classifiers/{identity}").json()
        if details["status"] == "ready":
            return time.monotonic() - started
        if details["status"] == "failed":
            raise RuntimeError(f"{identity} failed: {details}")
        time.sleep(0.05)


def measure_trainer(folder: Path, zips: dict[str, Path]) -> float:
    """Seconds of the trainer's whole process on two cores, median of some runs."""
    trainer = TrainerProcess.prepare(folder, zips, cores=2)
    taken = []
    for number in range(1, TRAINER_RUNS + 1):
        started = time.monotonic()
        trainer.run(number)
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def main() -> int:
    measurements = []

    def add(measurement: Measurement) -> None:
        measurements.append(measurement)
        print(measurement, flush=True)

    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        folder = Path(name)
        images, zips = photographs(folder)
        add(Measurement(what=f"trainer, whole process, {images}", value=measure_trainer(folder, zips), goal=6, unit="s"))
        log = folder / "run.log"
        with running(folder / "state", log):
            pass
        add(
            Measurement(
                what="warm make run to a gateway that answers", value=measure_start(folder / "state", log), goal=15, unit="s"
            )
        )
        with running(folder / "state", log) as client:
            seconds = measure_create_to_ready(client, zips)
            add(Measurement(what=f"create to ready, {images}", value=seconds, goal=15, unit="s"))
    memory = gateway_memory.measure()
    add(Measurement(what="gateway's memory, one upload of 250 MB", value=memory.one, goal=50, unit="MB"))
    add(Measurement(what="gateway's memory, ten uploads of 250 MB at once", value=memory.ten, goal=200, unit="MB"))
    alone, beside = gateway_status.measure()
    print(f"status at 200 requests a second, alone: median {alone.median:.2f} ms, 99th percentile {alone.percentile_99:.2f} ms")
    add(Measurement(what="status at 200/s beside a training, median", value=beside.median, goal=3, unit="ms"))
    add(Measurement(what="status at 200/s beside a training, 99th percentile", value=beside.percentile_99, goal=15, unit="ms"))
    met = sum(measurement.met for measurement in measurements)
    print(f"{met} met, {len(measurements) - met} missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
