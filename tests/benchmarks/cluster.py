"""`make benchmark-cluster`: measures an operator with 5,000 Classifiers. Prints name, value, goal, and whether it is met.

It uses a real API server with etcd, the operator in a separate process with the rights of the shipped manifests, and stand-ins
for nodes and for the controllers of Jobs and Deployments (`cluster_stand_ins`). Every Classifier has two Pods (a finished
trainer, a server), a Job, a Deployment and a Service. The steps: Classifiers are created, as fast as the machine settles them;
the operator is restarted; nothing happens for a while; Classifiers are applied at a steady rate, up to the limit of concurrent
starts, while nodes are slow to start their Pods.

CLASSIFIERS, RATE (applies a second), NAMESPACES, SOURCES (of each Classifier) and QUIET_SECONDS scale it down. It fails only
if it cannot measure. The figures are valid for the machine that they were measured on, which also runs the control plane. The
delay is that of a burst within the start limit, not of a continuous 20 applies a second: two cores cannot sustain that together
with an API server and the stand-ins.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from ocelli_api.classifier import API_VERSION, Manifest
from ocelli_api.settings import load_settings
from ocelli_local.cluster import ClusterOptions, LocalCluster
from ocelli_operator.settings import ChildSettings
from tests.benchmarks.cluster_stand_ins import CLASSIFIERS, StandIns, follow, object_path
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.processes import memory_megabytes
from tests.integration.operator.operator_process import OperatorProcess
from tests.shipped_rights import NAMESPACE_FILE, load_rights

CHECKOUT = Path(__file__).resolve().parents[2]
SYSTEM_NAMESPACE = "ocelli-system"
STALL_SECONDS = 300.0
"""Without any progress for this long, the benchmark ends with an error."""
UNSETTLED_LIMIT = 40
PROGRESS_SECONDS = 30.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"^(ocelli_api_writes_total|ocelli_reconciles_total)\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    classifiers: int
    rate: float
    """Applies a second."""
    namespaces: int
    sources: int
    quiet_seconds: float

    @property
    def burst(self) -> int:
        """How many are applied at the rate: up to the limit of concurrent trainings."""
        return min(
            load_settings(ChildSettings, {"OCELLI_STORE_URL": "file:///store"}).trainings_starting_limit, self.classifiers // 2
        )

    @property
    def populated(self) -> int:
        return self.classifiers - self.burst

    @classmethod
    def from_environment(cls) -> Size:
        def number(name: str, default: float) -> float:
            return float(os.environ.get(name) or default)

        return cls(
            classifiers=int(number("CLASSIFIERS", 5000)),
            rate=number("RATE", 20),
            namespaces=int(number("NAMESPACES", 50)),
            sources=int(number("SOURCES", 10)),
            quiet_seconds=number("QUIET_SECONDS", 600),
        )


@dataclass(kw_only=True)
class Records:
    """The times of the observed events."""

    applied_at: dict[str, float] = field(default_factory=dict)
    """By namespace and name of the Classifier."""
    delays: list[float] = field(default_factory=list)
    """Seconds from sending the apply to the Job's event."""
    ready: set[str] = field(default_factory=set)

    def note_job(self, job: Manifest) -> None:
        metadata = job["metadata"]
        key = f"{metadata['namespace']}/{metadata['labels']['ocelli.dev/classifier']}"
        if key in self.applied_at:
            self.delays.append(time.monotonic() - self.applied_at[key])

    async def follow_classifiers(self, cluster: LocalCluster) -> None:
        async for _, manifest in follow(cluster.access.client, CLASSIFIERS):
            conditions = (manifest.get("status") or {}).get("conditions") or ()
            key = f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
            if any((item["type"], item["status"]) == ("Ready", "True") for item in conditions):
                self.ready.add(key)
            else:
                self.ready.discard(key)


@dataclass(frozen=True, kw_only=True)
class OperatorFigures:
    """Figures from the operator's metrics and from the kernel."""

    writes_by_kind: dict[str, float]
    """Write requests except those for the Lease, by the labels of their metric."""
    passes: float
    waiting: float
    processor_seconds: float
    peak_megabytes: float

    @property
    def writes(self) -> float:
        return sum(self.writes_by_kind.values())

    @classmethod
    def read(cls, operator: OperatorProcess) -> OperatorFigures:
        assert operator.process is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        samples = [(name, labels, float(value)) for name, labels, value in _SAMPLE.findall(text)]
        fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        (waiting,) = re.findall(r"^ocelli_queue_length ([0-9.e+]+)$", text, re.MULTILINE)
        return cls(
            writes_by_kind={
                labels: value for name, labels, value in samples if "writes" in name and 'resource="leases"' not in labels
            },
            passes=sum(value for name, _, value in samples if "reconciles" in name),
            waiting=float(waiting),
            processor_seconds=(int(fields[11]) + int(fields[12])) / CLOCK_TICKS,
            peak_megabytes=memory_megabytes(operator.process.pid, "VmHWM"),
        )


def build_classifier(number: int, size: Size) -> Manifest:
    digest = f"{number:064x}"
    classes = [
        {
            "name": f"class {index}",
            "examples": [
                {"url": f"https://data.example.com/{number}/{index}-{source}.zip", "sha256": digest}
                for source in range(max(size.sources // 2, 1))
            ],
        }
        for index in range(2)
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "Classifier",
        "metadata": {"name": f"classifier-{number}", "namespace": f"tenant-{number % size.namespaces}"},
        "spec": {"classes": classes},
    }


async def apply(cluster: LocalCluster, number: int, size: Size, records: Records) -> None:
    manifest = build_classifier(number, size)
    records.applied_at[f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"] = time.monotonic()
    await cluster.access.client.apply(object_path(CLASSIFIERS, manifest), manifest, field_manager="benchmark")


async def populate(cluster: LocalCluster, size: Size, records: Records) -> None:
    """Make all but those of the burst, and wait until they are Ready."""
    started, progressed_at, seen = time.monotonic(), time.monotonic(), -1
    made = 0
    while len(records.ready) < size.populated:
        if len(records.ready) != seen:
            seen, progressed_at = len(records.ready), time.monotonic()
        if time.monotonic() - progressed_at > STALL_SECONDS:
            raise RuntimeError(f"{seen} of {size.populated} Classifiers are Ready, and no more for {STALL_SECONDS:.0f} s")
        while made < size.populated and made - len(records.ready) < UNSETTLED_LIMIT:
            await apply(cluster, made, size, records)
            made += 1
        await asyncio.sleep(0.05)
    print(f"{size.populated} Classifiers are Ready after {time.monotonic() - started:.0f} s", flush=True)


async def burst(cluster: LocalCluster, size: Size, records: Records) -> list[float]:
    """Apply the rest at the rate; the seconds from each apply to its Job, in their order."""
    records.delays.clear()
    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(size.burst):
            await asyncio.sleep(max(started + number / size.rate - time.monotonic(), 0.0))
            tasks.create_task(apply(cluster, size.populated + number, size, records))
    print(f"applied {size.burst} Classifiers at {size.burst / (time.monotonic() - started):.1f} a second", flush=True)
    deadline = time.monotonic() + STALL_SECONDS
    while len(records.delays) < size.burst:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(records.delays)} of {size.burst} Classifiers have a Job after {STALL_SECONDS:.0f} s")
        await asyncio.sleep(0.05)
    return sorted(records.delays)


async def tell_progress(records: Records) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        print(f"applied {len(records.applied_at)}, Ready {len(records.ready)}; load {os.getloadavg()[0]:.1f}", flush=True)


async def wait_until_passed(operator: OperatorProcess, count: int) -> OperatorFigures:
    """Until every Classifier was reconciled and none waits."""
    deadline = time.monotonic() + STALL_SECONDS
    while time.monotonic() < deadline:
        if await asyncio.to_thread(operator.is_leading):
            figures = await asyncio.to_thread(OperatorFigures.read, operator)
            if figures.passes >= count and figures.waiting == 0:
                return figures
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the operator does not settle within {STALL_SECONDS:.0f} s; see {operator.log}")


async def prepare(cluster: LocalCluster, size: Size) -> Path:
    """Install what the operator needs; the kubeconfig with its rights."""
    await cluster.access.apply(CHECKOUT / "crds" / "classifier.yaml")
    await cluster.access.apply(NAMESPACE_FILE)
    await cluster.access.apply(load_rights("operator"))
    names = [f"tenant-{number}" for number in range(size.namespaces)]
    await cluster.access.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names])
    for name in names:

        async def has_account(namespace: str = name) -> Manifest | None:
            return await cluster.access.get("v1", "ServiceAccount", "default", namespace=namespace)

        await cluster.access.wait_for(f"namespace {name} has its ServiceAccount", has_account)
    kubeconfig = await cluster.access.service_account_kubeconfig(SYSTEM_NAMESPACE, "ocelli-operator")
    # From here on the stand-ins replace them.
    for component in ("kube-controller-manager", "kube-scheduler"):
        await cluster.control_plane.components[component].stop()
    return kubeconfig


async def measure(folder: Path, size: Size) -> list[Measurement]:
    measurements: list[Measurement] = []

    def add(what: str, value: float, goal: float, unit: str) -> None:
        measurements.append(Measurement(what=what, value=value, goal=goal, unit=unit))
        print(measurements[-1], flush=True)

    store_folder = folder / "store"
    store_folder.mkdir()
    records = Records()
    count = size.populated
    async with LocalCluster(ClusterOptions(state_dir=folder / "cluster", durable=False)) as cluster:
        kubeconfig = await prepare(cluster, size)
        operator = OperatorProcess(
            kubeconfig=kubeconfig,
            namespace=SYSTEM_NAMESPACE,
            log=folder / "operator.log",
            environment={
                "OCELLI_STORE_URL": store_folder.as_uri(),
                "OCELLI_NAMESPACES": "",
                "OCELLI_LOG_LEVEL": "WARNING",
            },
        )
        stand_ins = StandIns(client=cluster.access.client, store_folder=store_folder, on_job=records.note_job)
        operator.start()
        try:
            # If a stand-in fails, the benchmark fails: nothing works without it.
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(work)
                    for work in (stand_ins.run(), records.follow_classifiers(cluster), tell_progress(records))
                ]
                await wait_until_passed(operator, 0)
                await populate(cluster, size, records)
                grown = await wait_until_passed(operator, count)
                print(
                    f"of the operator: {grown.passes:.0f} passes, {grown.processor_seconds:.0f} s of processor time", flush=True
                )
                await asyncio.to_thread(operator.stop)
                started = time.monotonic()
                operator.start()
                restarted = await wait_until_passed(operator, count)
                add(f"restart to settled, {count} Classifiers", time.monotonic() - started, 60, "s")
                add("writes of the restart but Leases", restarted.writes, 0, "")
                if restarted.writes:
                    print(f"they were {restarted.writes_by_kind}", flush=True)
                before = OperatorFigures.read(operator)
                await asyncio.sleep(size.quiet_seconds)
                quiet = OperatorFigures.read(operator)
                add(f"writes but Leases in {size.quiet_seconds:.0f} quiet seconds", quiet.writes - before.writes, 0, "")
                used = (quiet.processor_seconds - before.processor_seconds) / size.quiet_seconds * 100
                add("processor time when quiet, of one core", used, 5, "%")
                stand_ins.nodes_start_pods.clear()
                delays = await burst(cluster, size, records)
                print(f"apply to Job: median {statistics.median(delays):.2f} s, most {delays[-1]:.2f} s", flush=True)
                percentile = delays[min(int(len(delays) * 0.99), len(delays) - 1)]
                add(f"apply to Job at {size.rate:.0f} applies a second, 99th percentile", percentile, 2, "s")
                after = OperatorFigures.read(operator)
                peaks = {"while they came": grown, "after the restart": quiet, "after the burst": after}
                print(f"memory: {', '.join(f'{figures.peak_megabytes:.0f} MB {when}' for when, figures in peaks.items())}")
                peak = max(figures.peak_megabytes for figures in peaks.values())
                add(f"operator's memory from start to settled, {count} Classifiers", peak, 400, "MB")
                for task in background:
                    task.cancel()
        finally:
            await asyncio.to_thread(operator.stop)
    return measurements


def main() -> int:
    size = Size.from_environment()
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        measurements = asyncio.run(measure(Path(name), size))
    met = sum(measurement.met for measurement in measurements)
    load = os.getloadavg()
    print(f"{met} met, {len(measurements) - met} missed; load of the machine at the end {load[0]:.1f}, {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
