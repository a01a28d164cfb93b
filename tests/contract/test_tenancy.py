"""Tenants cannot see, change, exhaust or slow down what others own. A tenant is a namespace; anna and bert have one each."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ocelli_gateway.image_files import ImageFiles, ReadImage, _read_archive
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_storage.archive_inspection import Turn, TurnResult
from ocelli_storage.archives import ImageArchive
from ocelli_storage.object_store import StoreQuotaError
from tests.gateway_harness.images import build_zip, examples, png
from tests.gateway_harness.raw_http import MULTIPART_TYPE, head, multipart
from tests.gateway_harness.stage import OTHER_KEY, GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, basic, connect

QUERY = "?version=2018-03-19"


def padded(seed: int, padding_bytes: int) -> bytes:
    """A zip of examples that is this many bytes larger."""
    images = {f"{index}.png": png(seed * 1000 + index, (12, 12)) for index in range(10)}
    return build_zip({**images, "notes.txt": random.Random(seed).randbytes(padding_bytes)})


def padded_sets(padding_bytes: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [(f"{name}_positive_examples", (name, padded(seed, padding_bytes))) for seed, name in enumerate(("heron", "owl"))]


DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio's executor."""
STORK = [("stork_positive_examples", ("stork.zip", examples(31)))]


@dataclass(frozen=True, kw_only=True)
class Tenants:
    """Two tenants of one gateway; anna has a classifier that answers."""

    stage: Stage
    gateway: GatewayInstance
    anna: V3Client
    bert: V3Client
    annas: str


@pytest.fixture(scope="module")
def tenants(stage: Stage, gateway: GatewayInstance) -> Iterator[Tenants]:
    anna, bert = connect(gateway, stage), connect(gateway, stage, "bert", "other")
    yield Tenants(stage=stage, gateway=gateway, anna=anna, bert=bert, annas=anna.ready("annas"))
    anna.http.close()
    bert.http.close()


CALLS: dict[str, Callable[[V3Client, str], httpx.Response]] = {
    "details": lambda client, identity: client.get(identity),
    "retrain": lambda client, identity: client.retrain(identity, STORK),
    "delete": lambda client, identity: client.delete(identity),
    "core_ml_model": lambda client, identity: client.http.get(f"/v3/classifiers/{identity}/core_ml_model"),
    "onnx_model": lambda client, identity: client.http.get(f"/v3/classifiers/{identity}/onnx_model"),
    "report": lambda client, identity: client.http.get(f"/v3/classifiers/{identity}/report"),
    "bom": lambda client, identity: client.http.get(f"/v3/classifiers/{identity}/bom"),
    "classify": lambda client, identity: client.classify(("a.png", png()), classifier_ids=identity),
    "classify by GET": lambda client, identity: client.http.get(
        "/v3/classify", params={**VERSION, "url": "http://example.org/", "classifier_ids": identity}
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_classifier_of_another_tenant_is_answered_like_a_missing_one(tenants: Tenants, call: str) -> None:
    of_another, of_unknown = CALLS[call](tenants.bert, tenants.annas), CALLS[call](tenants.bert, "annas_1")
    assert of_another.status_code == of_unknown.status_code == 404
    assert of_another.text.replace(tenants.annas, "ID") == of_unknown.text.replace("annas_1", "ID")


def test_calls_of_another_tenant_change_nothing(tenants: Tenants) -> None:
    before = tenants.stage.classifier(tenants.annas)
    for call in CALLS.values():
        call(tenants.bert, tenants.annas)
    assert tenants.stage.classifier(tenants.annas) == before


def test_list_and_owner_me_contain_nothing_of_another_tenant(tenants: Tenants) -> None:
    assert tenants.bert.http.get("/v3/classifiers").json() == {"classifiers": []}
    assert tenants.bert.classify(("a.png", png()), owners="me").status_code == 404


def test_create_uses_the_callers_namespace_in_cluster_and_store(tenants: Tenants) -> None:
    identity = tenants.bert.created("berts")
    assert tenants.stage.classifier(identity, "team-b")["metadata"]["namespace"] == "team-b"
    assert {path.split("/")[1] for path in tenants.stage.stored_uploads() if identity in path} == {"team-b"}


def test_user_data_of_another_tenant_stays(tenants: Tenants) -> None:
    identity = tenants.anna.create(headers={"X-Watson-Metadata": "customer_id=c"}).json()["classifier_id"]
    tenants.bert.http.delete("/v3/user_data", params={**VERSION, "customer_id": "c"})
    assert tenants.anna.get(identity).status_code == 200


def test_token_of_one_tenant_gives_no_access_to_another(tenants: Tenants) -> None:
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": OTHER_KEY}
    token = httpx.post(f"{tenants.gateway.address}/identity/token", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{tenants.gateway.address}/v3/classifiers/{tenants.annas}"
    assert httpx.get(url, params=VERSION, headers=headers).status_code == 404


def test_same_zip_of_two_tenants_is_stored_for_each(tenants: Tenants) -> None:
    identities = [tenants.anna.created("twice"), tenants.bert.created("twice")]
    stored = [path for path in tenants.stage.stored_uploads() if any(identity in path for identity in identities)]
    assert len({path.rsplit("/", 1)[1] for path in stored}) * 2 == len(stored)


# Quotas


def limited(stage: Stage, **settings: int) -> V3Client:
    return connect(stage.start_gateway(**settings), stage, "bert", "other")


@pytest.mark.contract_row("C1/a quota of classifiers is used up: waiting does not help")
def test_quota_of_classifiers_is_429_that_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("classifiers"))) as own:
        client = limited(own, quota_classifiers=2)
        assert [client.create().status_code for _ in range(2)] == [200, 200]
        response = client.create()
        assert_error(response, 429, "limit_exceeded", "quota of classifiers", "2 of 2")
        # Waiting does not help; after a delete, the tenant can create again.
        assert "retry-after" not in response.headers
        client.delete(client.http.get("/v3/classifiers").json()["classifiers"][0]["classifier_id"])
        assert client.create().status_code == 200


def test_quota_of_classifiers_applies_to_concurrent_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("at-once"))) as own:
        client = limited(own, quota_classifiers=3)
        with ThreadPoolExecutor(8) as threads:
            statuses = list(threads.map(lambda _: client.create().status_code, range(8)))
        assert (statuses.count(200), statuses.count(429)) == (3, 5)


def test_quota_of_stored_bytes_is_413_that_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    large = padded_sets(700_000)
    with closing(Stage(folder=tmp_path_factory.mktemp("bytes"))) as own:
        client = limited(own, quota_stored_megabytes=2)
        assert client.create("first", large).status_code == 200
        assert_error(client.create("second", large), 413, "limit_exceeded", "quota of stored examples", "2 MB")
        assert len(own.stored_uploads()) == 2


def test_quota_of_stored_bytes_applies_to_a_retrain(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("retrain"))) as own:
        client = limited(own, quota_stored_megabytes=1)
        identity = client.created("small")
        manifest = own.classifier(identity, "team-b")
        manifest["status"] = {"classifierID": identity, "servedRevision": "0" * 10, "settledRevision": "0" * 10}
        manifest["spec"]["pinnedRevision"] = "0" * 10
        own.put_classifier(manifest, "team-b")
        response = client.retrain(identity, [("stork_positive_examples", ("stork.zip", padded(3, 1_100_000)))])
        assert_error(response, 413, "limit_exceeded", "quota of stored examples")


@pytest.fixture
def full_store(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in which anna's quota is used up."""
    put = tenants.stage.objects.put

    async def put_where_there_is_room(key: str, data: bytes | Path) -> None:
        if key.startswith("tenants/team-a/"):
            raise StoreQuotaError(key, 'namespace "team-a" has no room in the store for 3.0 MiB more; delete classifiers')
        await put(key, data)

    monkeypatch.setattr(tenants.stage.objects, "put", put_where_there_is_room)


@pytest.mark.usefixtures("full_store")
def test_create_over_the_quota_of_the_store_is_413_with_the_stores_message(tenants: Tenants) -> None:
    words = 'Namespace "team-a" has no room in the store for 3.0 MiB more; delete classifiers.'
    assert_error(tenants.anna.create("large"), 413, "limit_exceeded", words)


@pytest.mark.usefixtures("full_store")
def test_retrain_over_the_quota_of_the_store_is_413_and_changes_nothing(tenants: Tenants) -> None:
    before = tenants.stage.classifier(tenants.annas)
    assert_error(tenants.anna.retrain(tenants.annas, STORK), 413, "limit_exceeded", "no room in the store")
    assert tenants.stage.classifier(tenants.annas) == before


def test_quota_of_uploads_is_429_before_the_body_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("rate"))) as own:
        client = limited(own, quota_upload_megabytes_per_hour=1)
        large = padded_sets(450_000)
        assert client.create("first", large).status_code == 200
        response = client.create("second", large)
        assert_error(response, 429, "limit_exceeded", "quota of uploads", "1 MB per hour")
        assert int(response.headers["retry-after"]) > 60


def test_upload_of_undeclared_length_counts_its_received_bytes(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("chunked"))) as own:
        client = limited(own, quota_upload_megabytes_per_hour=1)
        disposition = 'Content-Disposition: form-data; name="{}"; filename="a.zip"'
        parts = [(disposition.format(name), data) for name, (_, data) in padded_sets(1)]
        body = multipart([('Content-Disposition: form-data; name="name"', b"chunked"), *parts])
        headers = {"Content-Type": MULTIPART_TYPE}
        for _ in range(2):
            response = client.http.post("/v3/classifiers", content=iter([body]), headers=headers)
            assert response.status_code == 200, response.text


def test_quota_of_requests_is_429_that_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("requests"))) as own:
        client = limited(own, quota_requests_per_second=3)
        responses = [client.get("none_1") for _ in range(10)]
        refused = [response for response in responses if response.status_code == 429]
        assert refused
        assert_error(refused[0], 429, "limit_exceeded", "quota of requests", "3 per second")
        assert int(refused[0].headers["retry-after"]) >= 1


def test_quota_of_one_tenant_does_not_limit_another(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("apart"))) as own:
        gateway = own.start_gateway(quota_classifiers=1)
        anna, bert = connect(gateway, own), connect(gateway, own, "bert", "other")
        assert [client.create().status_code for client in (anna, bert, anna)] == [200, 200, 429]


def test_credential_set_can_have_its_own_quota(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Stage(folder=tmp_path_factory.mktemp("own-quota"))) as own:
        own.write_credentials(
            "bert.json", user="bert", password="other", namespace="team-b", owner="b", quota={"classifiers": 0}
        )
        gateway = own.start_gateway(quota_classifiers=1)
        bert = connect(gateway, own, "bert", "other")
        assert [bert.create().status_code for _ in range(3)] == [200, 200, 200]


# Floods


def median_seconds(client: V3Client, identity: str, count: int = 40) -> float:
    """Of a status request."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        assert client.get(identity).status_code in (200, 404)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def hold_uploads(gateway: GatewayInstance, count: int) -> list[socket.socket]:
    """Uploads of anna's that never end."""
    held = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", gateway.port))
        connection.sendall(head("POST", "/v3/classifiers" + QUERY, f"Content-Type: {MULTIPART_TYPE}", "Content-Length: 900"))
        connection.sendall(b"--BOUNDARY\r\n")
        held.append(connection)
    return held


def test_endless_uploads_occupy_only_the_share_of_their_tenant(tenants: Tenants) -> None:
    gateway = tenants.stage.start_gateway(max_concurrent_uploads=4)
    bert = connect(gateway, tenants.stage, "bert", "other")
    held = hold_uploads(gateway, 20)
    try:
        assert bert.create("next to a flood").status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_slow_checks_of_zips_do_not_delay_another_tenant(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    may_check = threading.Event()
    take_turn = ZipInspector._take_turn
    turns: list[Turn] = []

    async def take_turn_when_it_may(zips: ZipInspector, turn: Turn) -> TurnResult:
        turns.append(turn)
        if len(turns) == 1:
            await asyncio.to_thread(may_check.wait)
        return await take_turn(zips, turn)

    monkeypatch.setattr(ZipInspector, "_take_turn", take_turn_when_it_may)
    slow = [("slow_positive_examples", ("slow.zip", examples(1))), ("owl_positive_examples", ("owl.zip", examples(2)))]
    # More zips than are inspected concurrently: they use the whole share of a tenant.
    with ThreadPoolExecutor(DEFAULT_THREADS) as threads:
        flood = [threads.submit(tenants.anna.create, "slow", slow) for _ in range(DEFAULT_THREADS)]
        try:
            wait_for(lambda: bool(turns), "one is looked into")
            assert tenants.bert.create("next to slow zips").status_code == 200
            assert not any(future.done() for future in flood)
        finally:
            may_check.set()
        assert {future.result().status_code for future in flood} == {200}


def assert_a_flood_of_zips_does_not_delay_others(tenants: Tenants, may_go_on: threading.Event) -> None:
    """One tenant's `slow.zip`s, which wait for the event, do not delay images of the other one."""
    slow = ("slow.zip", build_zip({"a.png": png()}))
    with ThreadPoolExecutor(DEFAULT_THREADS) as threads:
        flood = [threads.submit(tenants.anna.classify, slow) for _ in range(DEFAULT_THREADS)]
        try:
            assert tenants.bert.classify(("a.png", png())).status_code == 200
            assert not any(future.done() for future in flood)
        finally:
            may_go_on.set()
        assert {future.result().status_code for future in flood} == {200}


def test_zips_that_open_slowly_do_not_delay_classify_of_another_tenant(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open = threading.Event()

    def open_when_it_may(files: Sequence[SpooledFile]) -> ImageFiles:
        if files[0].filename == "slow.zip":
            may_open.wait()
        return ImageFiles(files)

    monkeypatch.setattr("ocelli_gateway.classify.ImageFiles", open_when_it_may)
    assert_a_flood_of_zips_does_not_delay_others(tenants, may_open)


def test_zips_that_read_slowly_do_not_delay_classify_of_another_tenant(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read = threading.Event()

    def read_when_it_may(name: str, archive: ImageArchive) -> Iterator[ReadImage]:
        may_read.wait()
        yield from _read_archive(name, archive)

    monkeypatch.setattr("ocelli_gateway.image_files._read_archive", read_when_it_may)
    assert_a_flood_of_zips_does_not_delay_others(tenants, may_read)


def test_hanging_predictions_occupy_only_the_share_of_their_tenant(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocelli_gateway.gateway.MAX_CONCURRENT_PREDICTIONS", 4)
    stage = tenants.stage
    gateway = stage.start_gateway(prediction_timeout_seconds=60)
    anna, bert = connect(gateway, stage), connect(gateway, stage, "bert", "other")
    hanging, healthy = anna.created("hanging"), bert.created("healthy")
    (stub,) = stage.finish_training(hanging)
    stub.may_answer = asyncio.Event()
    stage.finish_training(healthy, namespace="team-b")
    images = [(f"{index}.png", png(index)) for index in range(8)]
    with ThreadPoolExecutor(1) as threads:
        flood = threads.submit(anna.classify, *images, classifier_ids=hanging)
        try:
            wait_for(lambda: stub.asked >= 2, "anna's predictions have begun")
            assert bert.classify(("a.png", png()), classifier_ids=healthy).status_code == 200
            assert not flood.done()
        finally:
            stage.call(stub.may_answer.set)
        assert flood.result().status_code == 200


@pytest.mark.parametrize("flood", ["status", "classify", "wrong keys"])
def test_flood_of_one_tenant_does_not_slow_another(tenants: Tenants, flood: str) -> None:
    gateway = tenants.stage.start_gateway(max_concurrent_tenant_requests=4)
    bert = connect(gateway, tenants.stage, "bert", "other")
    quiet = median_seconds(bert, "none_1")
    stop = threading.Event()
    sends: dict[str, Callable[[httpx.Client], object]] = {
        "status": lambda http: http.get(f"/v3/classifiers/{tenants.annas}"),
        "classify": lambda http: http.post(
            "/v3/classify", data={"classifier_ids": tenants.annas}, files=[("images_file", ("a.png", png()))]
        ),
        "wrong keys": lambda http: http.get(
            "/v3/classifiers", headers={"Authorization": basic("anna", str(time.perf_counter_ns()))}
        ),
    }

    def send_on() -> None:
        with connect(gateway, tenants.stage).http as http:
            while not stop.is_set():
                sends[flood](http)

    threads = [threading.Thread(target=send_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        flooded = median_seconds(bert, "none_1")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # Clients and gateway share one process here, so that both sides wait for it: the ratio is far below what a queue behind
    # the flood would cost.
    assert flooded < max(40 * quiet, 0.5), f"{flooded * 1000:.1f} ms during the flood, {quiet * 1000:.1f} ms without"
