"""How one tenant affects another: classify requests during the worst that a client can do, and during normal work.

`python -m tests.benchmarks.neighbours` prints both. Gateway, inference servers and clients are separate processes. The
hostile client combines everything that once affected others: pipelined requests without reading answers, slow bodies, zips
with directories of 50,000 entries, images of 100 megapixels, zips to unknown classifiers, and guessed passwords. The harmless
one has as many connections, and as many of them work without a pause.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ocelli_gateway.credential_sets import build_credential_set, build_credentials_secret
from tests.benchmarks.processes import find_processes, memory_megabytes
from tests.gateway_harness.v3_client import basic
from tests.hostile.pictures import hundred_megapixels
from tests.hostile.zips import many_entries, pack
from tests.product.instance import (
    VERSION,
    LocalOcelli,
    end_with_the_parent,
    running_ocelli,
    wait_for,
)
from tests.unit.inference.artifacts import make_jpeg

REQUESTS = 2_000
CONNECTIONS = 8
WARM_UP_REQUESTS = 200
SYSTEM_NAMESPACE = "ocelli-system"
TENANT = "neighbour"
"""User, namespace and owner of the other tenant."""
PASSWORD = "the neighbour's password"
PIPELINING, DRIPPING, UPLOADING_ZIPS, SENDING_PICTURES, ASKING_STRANGERS, GUESSING = 4, 44, 3, 2, 4, 4
"""Connections of the hostile client, by their behaviour."""
WORKING = PIPELINING + UPLOADING_ZIPS + SENDING_PICTURES + ASKING_STRANGERS + GUESSING
"""Connections that are always busy."""
SAMPLE_SECONDS = 0.5
SETTLE_SECONDS = 5.0
HEAD_START_SECONDS = 3.0
"""The other tenant's load runs when the measured requests begin."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Address:
    """The server and the credentials of a client."""

    host: str
    port: int
    user: str
    password: str
    classifier_id: str
    victim: str
    """Name of the user who must not be affected."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Side:
    """The figures during one kind of load."""

    failed: int
    median: float
    """Milliseconds of a request, as is the next."""
    percentile_99: float
    seconds: float
    cores: float
    """CPU cores that gateway and inference servers used."""
    memory: dict[str, tuple[float, float, float]]
    """By process: megabytes in the first half, in the second half, and at the end."""

    @property
    def growth(self) -> float:
        """Memory of the second half relative to the first one, for the process with the largest growth."""
        return max(second / first for first, second, _ in self.memory.values())


# Clients


async def classify_on(address: Address, count: int) -> tuple[list[float], int]:
    """Milliseconds of each request over a few connections, and the number of failures."""
    import aiohttp

    times: list[float] = []
    failed = 0
    left = iter(range(count))
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    headers = {"Authorization": basic(address.user, address.password)}
    timeout = aiohttp.ClientTimeout(total=60)
    image = make_jpeg(1, height=96, width=128)
    async with aiohttp.ClientSession(address.url, connector=connector, headers=headers, timeout=timeout) as session:

        async def client() -> None:
            nonlocal failed
            for _ in left:
                started = time.perf_counter()
                try:
                    answer = await classify(session, address, image)
                    good = answer["images_processed"] == 1 and len(answer["images"][0]["classifiers"]) == 2
                except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
                    good = False
                failed += not good
                times.append((time.perf_counter() - started) * 1000)

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return times, failed


async def classify(session: Any, address: Address, file: bytes, **fields: str) -> dict[str, Any]:
    """The answer of the user's own classifier and `default`, unless the fields say otherwise.

    Raises:
        ValueError: it is refused.
    """
    import aiohttp

    form = aiohttp.FormData()
    form.add_field("images_file", file, filename="a")
    for name, value in ({"classifier_ids": f"{address.classifier_id},default", "threshold": "0"} | fields).items():
        if value:
            form.add_field(name, value)
    async with session.post("/v3/classify", params=VERSION, data=form) as answer:
        body: dict[str, Any] = await answer.json()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {body}")
        return body


async def work_honestly(address: Address) -> None:
    """As many connections as the hostile client has: most rest and poll, the others classify pictures and zips."""
    import aiohttp

    image = make_jpeg(2, height=96, width=128)
    archive = pack([make_jpeg(seed, height=96, width=128) for seed in range(20)])
    headers = {"Authorization": basic(address.user, address.password)}
    timeout = aiohttp.ClientTimeout(total=60)

    async with aiohttp.ClientSession(
        address.url, connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=timeout
    ) as session:

        async def poll() -> None:
            async with session.get(f"/v3/classifiers/{address.classifier_id}", params=VERSION) as answer:
                await answer.read()
            await asyncio.sleep(1)

        async def ask(file: bytes) -> None:
            await classify(session, address, file)

        jobs = [forever(lambda: ask(image)) for _ in range(WORKING - UPLOADING_ZIPS)]
        jobs += [forever(lambda: ask(archive)) for _ in range(UPLOADING_ZIPS)]
        print("ready", flush=True)
        await asyncio.gather(*jobs, *(forever(poll) for _ in range(DRIPPING)))


async def do_the_worst(address: Address) -> None:
    """All attacks at the same time."""
    import aiohttp

    headers = {"Authorization": basic(address.user, address.password)}
    timeout = aiohttp.ClientTimeout(total=120)
    picture, directory = hundred_megapixels(), many_entries()
    archive = pack([make_jpeg(seed, height=96, width=128) for seed in range(20)])
    strangers = ",".join(f"stranger_{number}" for number in range(3000))

    async with (
        aiohttp.ClientSession(
            address.url, connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=timeout
        ) as session,
        aiohttp.ClientSession(address.url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as anonymous,
    ):

        async def upload() -> None:
            form = aiohttp.FormData()
            form.add_field("name", "harm")
            for part in ("a_positive_examples", "negative_examples"):
                form.add_field(part, directory, filename="a.zip")
            async with session.post("/v3/classifiers", params=VERSION, data=form) as answer:
                await answer.read()

        async def guess() -> None:
            key = random.randbytes(8).hex()
            user = random.choice(["apikey", address.victim, f"user-{key}"])
            async with anonymous.get("/v3/classifiers", params=VERSION, headers={"Authorization": basic(user, key)}) as answer:
                await answer.read()

        jobs: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        jobs += [lambda: send_on(address)] * PIPELINING
        jobs += [lambda: drip(address)] * DRIPPING
        jobs += [upload] * (UPLOADING_ZIPS - 1) + [lambda: classify(session, address, directory)]
        jobs += [lambda: classify(session, address, picture)] * SENDING_PICTURES
        jobs += [lambda: classify(session, address, archive, classifier_ids="", owners="me")] * (ASKING_STRANGERS // 2)
        jobs += [lambda: classify(session, address, archive, classifier_ids=strangers)] * (ASKING_STRANGERS // 2)
        jobs += [guess] * GUESSING
        print("ready", flush=True)
        await asyncio.gather(*(forever(job) for job in jobs))


async def forever(job: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Repeat an action, and ignore its errors."""
    import aiohttp

    while True:
        try:
            await job()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RuntimeError):
            # uvloop raises the last one where the gateway has closed the connection.
            await asyncio.sleep(0.01)


async def send_on(address: Address) -> None:
    """Requests, without an answer read."""
    _, writer = await asyncio.open_connection(address.host, address.port, limit=1)
    writer.transport.set_write_buffer_limits(0)
    try:
        async with asyncio.timeout(5):
            while True:
                writer.write(b"GET / HTTP/1.1\r\n\r\n" * 5_000)
                await writer.drain()
    finally:
        writer.transport.abort()


async def drip(address: Address) -> None:
    """A byte from time to time, of a head without credentials or of an upload."""
    kind = random.randrange(3)
    head = (
        b""
        if kind == 0
        else (
            f"POST /v3/{'classify' if kind == 1 else 'classifiers'}?version=2018-03-19 HTTP/1.1\r\nHost: gateway\r\n"
            f"Authorization: {basic(address.user, address.password)}\r\nContent-Length: 100000\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        ).encode()
    )
    _, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(head)
        for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 1000 if kind == 0 else b"--B\r\n" + b"x" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.5)
    finally:
        writer.transport.abort()


LOADS = {"harmless": work_honestly, "hostile": do_the_worst}


def run_client(arguments: list[str]) -> None:
    import uvloop

    kind, address = arguments[0], Address(**json.loads(arguments[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if kind in LOADS:
            runner.run(LOADS[kind](address))
        else:
            runner.run(classify_on(address, WARM_UP_REQUESTS))
            begun = time.perf_counter()
            times, failed = runner.run(classify_on(address, REQUESTS))
            print(json.dumps({"times": times, "failed": failed, "seconds": time.perf_counter() - begun}))


# The measurement


@dataclass(kw_only=True)
class Watch:
    """Memory and processor time of the servers."""

    processes: dict[str, int]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def processor_seconds(self) -> float:
        """Of all of them, including their child processes."""
        return sum(_processor_seconds(process) for process in self.processes.values())

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample their memory while the context lasts."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_SECONDS):
                for name, process in self.processes.items():
                    self.samples.setdefault(name, []).append(memory_megabytes(process, "VmRSS"))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def memory(self) -> dict[str, tuple[float, float, float]]:
        """As in `Side`."""
        return {
            name: (
                statistics.mean(samples[: len(samples) // 2]),
                statistics.mean(samples[len(samples) // 2 :]),
                memory_megabytes(self.processes[name], "VmRSS"),
            )
            for name, samples in self.samples.items()
        }


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / CLOCK_TICKS


def measure_side(kind: str, watch: Watch, victim: Address, neighbour: Address) -> Side:
    """The victim's requests during one kind of load."""
    command = [sys.executable, "-m", "tests.benchmarks.neighbours"]
    load = subprocess.Popen(
        [*command, kind, json.dumps(asdict(neighbour))], stdout=subprocess.PIPE, text=True, preexec_fn=end_with_the_parent
    )
    try:
        # It reports when all its requests are prepared.
        assert load.stdout is not None
        load.stdout.readline()
        time.sleep(HEAD_START_SECONDS)
        before, begun = watch.processor_seconds(), time.monotonic()
        with watch.sampling():
            done = subprocess.run(
                [*command, "requests", json.dumps(asdict(victim))], stdout=subprocess.PIPE, text=True, check=True
            )
        busy = (watch.processor_seconds() - before) / (time.monotonic() - begun)
        if load.poll() is not None:
            raise RuntimeError(f"the {kind} client ended with {load.returncode}")
    finally:
        load.kill()
        load.wait()
    time.sleep(SETTLE_SECONDS)
    measured = json.loads(done.stdout.splitlines()[-1])
    return Side(
        failed=measured["failed"],
        median=statistics.median(measured["times"]),
        percentile_99=statistics.quantiles(measured["times"], n=100)[98],
        seconds=measured["seconds"],
        cores=busy,
        memory=watch.memory(),
    )


def add_tenant(instance: LocalOcelli) -> None:
    """Another user, with its own namespace."""
    instance.kubectl("create", "namespace", TENANT)
    credentials = build_credential_set(user=TENANT, password=PASSWORD, namespace=TENANT, owner=TENANT)
    patch = json.dumps({"stringData": build_credentials_secret([credentials])["stringData"]})
    instance.kubectl("-n", SYSTEM_NAMESPACE, "patch", "secret", "ocelli-credentials", "-p", patch)
    # A mounted Secret is updated only once a minute.
    selector = "app.kubernetes.io/name=ocelli-gateway"
    instance.kubectl("-n", SYSTEM_NAMESPACE, "delete", "pod", "-l", selector, "--now")

    def knows_tenant() -> bool:
        try:
            return httpx.get(f"{instance.address}/v3/classifiers", auth=(TENANT, PASSWORD), params=VERSION).status_code == 200
        except httpx.TransportError:
            return False

    wait_for("the gateway knows the other tenant", knows_tenant, 90)


def create_classifier(instance: LocalOcelli, user: str, password: str) -> str:
    """The id of a classifier that is ready."""
    files = [(f"{part}_positive_examples", (instance.samples / f"{part}.zip").read_bytes()) for part in ("zero", "one")]
    with httpx.Client(base_url=instance.address, auth=(user, password), params=VERSION, timeout=60) as client:
        identity: str = client.post("/v3/classifiers", data={"name": user}, files=files).json()["classifier_id"]
        wait_for("it is ready", lambda: client.get(f"/v3/classifiers/{identity}").json()["status"] == "ready")
    return identity


def measure() -> tuple[Side, Side]:
    """During harmless and during hostile load."""
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        folder = Path(name)
        with running_ocelli(folder) as instance:
            add_tenant(instance)
            url = httpx.URL(instance.address)
            users = {instance.user: instance.password, TENANT: PASSWORD}
            victim, neighbour = (
                Address(
                    host=url.host,
                    port=url.port or 80,
                    user=user,
                    password=password,
                    classifier_id=create_classifier(instance, user, password),
                    victim=instance.user,
                )
                for user, password in users.items()
            )
            (gateway,) = find_processes(instance.state_dir, "ocelli_gateway")
            servers = sorted(find_processes(instance.state_dir, "ocelli_inference"))
            processes = {"gateway": gateway} | {f"inference server {index + 1}": item for index, item in enumerate(servers)}
            harmless, hostile = (
                measure_side(kind, Watch(processes=processes), victim, neighbour) for kind in ("harmless", "hostile")
            )
            return harmless, hostile


def describe(kind: str, side: Side) -> str:
    """One side, as a line and one for each process."""
    lines = [
        f"{REQUESTS} classify requests during {kind} load: {side.failed} failed, median {side.median:.1f} ms, 99th percentile "
        f"{side.percentile_99:.1f} ms; {side.seconds:.0f} s, servers busy with {side.cores:.2f} cores"
    ]
    lines += [
        f"    {name}: {first:.0f} MB in the first half, {second:.0f} MB in the second, {settled:.0f} MB afterwards"
        for name, (first, second, settled) in side.memory.items()
    ]
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:
        run_client(sys.argv[1:])
        return
    for kind, side in zip(LOADS, measure(), strict=True):
        print(describe(kind, side))


if __name__ == "__main__":
    main()
