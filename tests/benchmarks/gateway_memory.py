"""The memory that uploads take in the gateway: one of 250 MB, and ten concurrent ones.

`python -m tests.benchmarks.gateway_memory` prints both: the peak of the process's resident memory (VmHWM) above its value
before.
"""

from __future__ import annotations

import random
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from tests.benchmarks.processes import find_processes, memory_megabytes
from tests.product.instance import connect, start_ocelli, stop_ocelli

MEGABYTE = 1024 * 1024
ZIP_MEGABYTES = (99, 99, 52)
CONCURRENT = 10


@dataclass(frozen=True, kw_only=True)
class UploadMemory:
    """Megabytes that the gateway's peak rose by."""

    one: float
    ten: float


def write_zip(path: Path, seed: int, megabytes: int) -> None:
    """A zip of ten images that may be learned from and a file that is skipped, about so large."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(10):
            buffer = BytesIO()
            noise = np.random.default_rng(seed * 100 + index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(buffer, "PNG")
            archive.writestr(f"{index}.png", buffer.getvalue())
        archive.writestr("notes.bin", random.Random(seed).randbytes(megabytes * MEGABYTE))


def upload(address: str, auth: tuple[str, str], zips: list[Path], name: str) -> str:
    files = [(f"{path.stem}_positive_examples", (path.name, path.open("rb"))) for path in zips]
    with httpx.Client(base_url=address, auth=auth, params={"version": "2018-03-19"}, timeout=600) as client:
        response = client.post("/v3/classifiers", data={"name": name}, files=files)
    for _, (_, file) in files:
        file.close()
    if response.status_code != 200:
        raise RuntimeError(f"the upload was refused: {response.text[:500]}")
    identity: str = response.json()["classifier_id"]
    return identity


def measure() -> UploadMemory:
    """Start an instance and measure both."""
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as name:
        folder = Path(name)
        zips = [folder / f"class{index}.zip" for index in range(len(ZIP_MEGABYTES))]
        for seed, (path, megabytes) in enumerate(zip(zips, ZIP_MEGABYTES, strict=True)):
            write_zip(path, seed, megabytes)
        process = start_ocelli(folder / "state", folder / "run.log")
        try:
            instance = connect(folder / "state", process)
            (gateway,) = find_processes(instance.state_dir, "ocelli_gateway")
            auth = (instance.user, instance.password)
            rises = []
            for count in (1, CONCURRENT):
                # Writing 5 resets the peak to the current resident memory.
                Path(f"/proc/{gateway}/clear_refs").write_text("5")
                before = memory_megabytes(gateway, "VmRSS")
                with ThreadPoolExecutor(count) as threads:
                    identities = list(
                        threads.map(lambda index: upload(instance.address, auth, zips, f"memory {index}"), range(count))
                    )
                rises.append(memory_megabytes(gateway, "VmHWM") - before)
                with instance.client() as client:
                    for identity in identities:
                        client.delete(f"/v3/classifiers/{identity}")
            return UploadMemory(one=rises[0], ten=rises[1])
        finally:
            stop_ocelli(process)


if __name__ == "__main__":
    measured = measure()
    print(f"one upload of {sum(ZIP_MEGABYTES)} MB: +{measured.one:.1f} MB; {CONCURRENT} concurrent: +{measured.ten:.1f} MB")
