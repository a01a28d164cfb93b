"""The embedded store with tokens that a real API server reviews."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_storage.object_store import StoreUnavailableError
from tests.integration.store.store_process import StoreProcess, running_store_process

pytestmark = pytest.mark.cluster

QUOTA_BYTES = 4 * 1024 * 1024
STREAMS = 16
OWN = "tenants/default/artifacts/dogs_1/0123456789"
"""Where trainers of the namespace `default` write."""


@pytest.fixture
def store(local_cluster: SyncClusterAccess, namespace: str, tmp_path: Path) -> Iterator[StoreProcess]:
    """A store with a quota of a few megabytes per namespace."""
    quota = {"OCELLI_STORE_NAMESPACE_QUOTA": "4Mi"}
    with running_store_process(local_cluster, namespace, tmp_path, **quota) as store:
        yield store


def stream(store: StoreProcess, token: str, key: str, size_bytes: int) -> tuple[int, str]:
    """Send a body of undeclared length; status and text of the answer."""
    connection = http.client.HTTPConnection(urlsplit(store.url).netloc, timeout=60)
    pieces = (b"x" * 65536 for _ in range(size_bytes // 65536))
    headers = {"Authorization": f"Bearer {token}", "Transfer-Encoding": "chunked"}
    connection.request("PUT", f"/objects/{key}", pieces, headers, encode_chunked=True)
    with connection.getresponse() as answer:
        return answer.status, answer.read().decode()


def stored_bytes(store: StoreProcess) -> int:
    """All files on the volume, including unfinished writes."""
    total_bytes = 0
    for folder, _, names in os.walk(store.volume):
        for name in names:
            # It may be moved or deleted at this moment.
            with contextlib.suppress(FileNotFoundError):
                total_bytes += os.path.getsize(os.path.join(folder, name))
    return total_bytes


def test_a_namespaces_token_gives_access_to_its_part_only(store: StoreProcess) -> None:
    operator, tenant = store.open_as_administrator(), store.open_as("default")
    asyncio.run(operator.put("tenants/team-b/x", b"abc"))
    asyncio.run(tenant.put(f"{OWN}/x", b"abc"))
    with pytest.raises(StoreUnavailableError, match="403 system:serviceaccount:default:default is not allowed to read"):
        asyncio.run(tenant.get("tenants/team-b/x", limit_bytes=1 << 20))


def test_a_token_for_reading_cannot_write(store: StoreProcess) -> None:
    reader = store.open_as("default", audience="ocelli-store-read")
    with pytest.raises(StoreUnavailableError, match="403 "):
        asyncio.run(reader.put(f"{OWN}/x", b"abc"))


def test_a_token_for_the_api_server_gives_no_access(store: StoreProcess) -> None:
    stranger = store.open_as("default", audience="https://kubernetes.default.svc")
    with pytest.raises(StoreUnavailableError, match=r"401 .*another audience"):
        asyncio.run(stranger.get("tenants/default/x", limit_bytes=1 << 20))


def test_a_tenant_that_floods_the_store_stays_within_its_quota_while_another_writes(store: StoreProcess) -> None:
    tenant, other = store.open_as("default"), store.open_as(store.namespace)
    asyncio.run(tenant.put(f"{OWN}/before", b"abc"))
    token = store.save_token("default", "default").read_text().strip()
    with ThreadPoolExecutor(STREAMS) as threads:
        flood = [threads.submit(stream, store, token, f"{OWN}/{number}", 2 * QUOTA_BYTES) for number in range(STREAMS)]
        most_bytes = 0
        while not all(future.done() for future in flood):
            asyncio.run(other.put(OWN.replace("default", store.namespace) + "/x", b"x" * 100_000))
            most_bytes = max(most_bytes, stored_bytes(store))
    answers = [future.result() for future in flood]
    assert {status for status, _ in answers} == {413}
    assert all('namespace "default" exceeds its quota in the store' in words for _, words in answers)
    assert most_bytes <= QUOTA_BYTES + 200_000, "the other tenant's object, once more while it is replaced"
    # The quota that the flood used is free again.
    asyncio.run(tenant.put(f"{OWN}/after", b"x" * (QUOTA_BYTES // 2)))


def test_an_idle_connection_delays_the_end_of_a_store_by_a_few_seconds_only(store: StoreProcess) -> None:
    store.wait_until_ready()
    connection = http.client.HTTPConnection(urlsplit(store.url).netloc, timeout=60)
    with contextlib.closing(connection):
        token = store.save_token("default", "default").read_text().strip()
        connection.request("GET", f"/objects/{OWN}/x", headers={"Authorization": f"Bearer {token}"})
        connection.getresponse().read()
        store.process.terminate()
        assert store.process.wait(timeout=7) == 0
