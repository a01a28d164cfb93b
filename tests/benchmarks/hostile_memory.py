"""Whether hostile requests leave memory behind in the gateway: 6,000 of them, damaged zips and pictures among them.

`python -m tests.benchmarks.hostile_memory` prints the gateway's resident memory before, after each thousand, and again when it
had nothing to do for a while. It takes longer than `make benchmark` may.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.processes import find_processes, memory_megabytes
from tests.gateway_harness.v3_client import basic
from tests.integration.gateway.mutations import Mutator, send_all
from tests.product.instance import connect, start_ocelli, stop_ocelli

REQUESTS = 6_000
STEPS = 6
IDLE_SECONDS = 45
"""Freed memory is given back every 20 seconds."""
SEED = 11


def main() -> None:
    """Start an instance, and measure."""
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        state_dir = Path(name) / "state"
        process = start_ocelli(state_dir, Path(name) / "run.log")
        try:
            instance = connect(state_dir, process)
            (gateway,) = find_processes(instance.state_dir, "ocelli_gateway")
            port = urlsplit(instance.address).port
            assert port is not None
            mutator = Mutator(SEED, basic(instance.user, instance.password))
            statuses: Counter[int] = Counter()
            began = time.monotonic()

            def show(what: str) -> None:
                seconds = time.monotonic() - began
                print(f"{what}: {memory_megabytes(gateway, 'VmRSS'):.0f} MB resident, {seconds:.0f} s", flush=True)

            show("before")
            for step in range(1, STEPS + 1):
                requests = [mutator.draw() for _ in range(REQUESTS // STEPS)]
                statuses.update(asyncio.run(send_all(port, requests)))
                show(f"{step * len(requests)} requests")
            time.sleep(IDLE_SECONDS)
            show(f"{IDLE_SECONDS} s later")
            print("answers:", dict(sorted(statuses.items())))
        finally:
            stop_ocelli(process)


if __name__ == "__main__":
    main()
