"""10,000 mutated requests to a gateway that is a process of its own: no 5xx, no growth of memory, no file out of place."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.gateway.gateway_process import GatewayProcess
from tests.integration.gateway.mutations import Mutator, send_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(290)]

REQUESTS = 10_000
WARM_UP_REQUESTS = 3_000
GROWTH_MEGABYTES = 15
"""Far less than a leak of a kilobyte per request, and more than allocators keep."""


def resident_megabytes(gateway: GatewayProcess) -> float:
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_ten_thousand_mutated_requests_break_nothing(
    start_gateway: Callable[..., GatewayProcess], namespace: str, tmp_path: Path
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    gateway = start_gateway(
        namespace, OCELLI_UPLOAD_FOLDER=str(uploads), OCELLI_GATEWAY_BODY_TIMEOUT_SECONDS="5", OCELLI_LOG_LEVEL="WARNING"
    )
    gateway.wait_until_healthy()
    before = files_below(tmp_path)
    mutator = Mutator(seed=4)
    requests = [mutator.draw() for _ in range(REQUESTS)]
    answers = asyncio.run(send_all(gateway.port, requests[:WARM_UP_REQUESTS]))
    warm = resident_megabytes(gateway)
    answers += asyncio.run(send_all(gateway.port, requests[WARM_UP_REQUESTS:]))
    statuses = Counter(answers)
    grown = resident_megabytes(gateway) - warm
    print(f"{statuses.total()} requests: {dict(sorted(statuses.items()))}; memory {warm:.0f} MB, then {grown:+.1f} MB")
    strange = [
        path
        for path in files_below(tmp_path) - before
        if not re.fullmatch(
            rf"tenants/{namespace}/uploads/[A-Za-z0-9]+_\d+/[0-9a-f]{{64}}\.zip|probes/.*", os.path.relpath(path, gateway.store)
        )
    ]
    unanswered = [request for request, answer in zip(requests, answers, strict=True) if answer <= 0]
    assert [status for status in statuses if status >= 500] == []
    # A head without an end is not a request.
    assert [request[:300] for request in unanswered if b"\r\n\r\n" in request] == []
    assert statuses[200] > 500
    assert statuses[400] > 500
    assert strange == []
    assert list(uploads.iterdir()) == []
    assert grown < GROWTH_MEGABYTES
    assert gateway.health().status_code == 200
