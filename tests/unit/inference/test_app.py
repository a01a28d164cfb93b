"""The routes, in process, with a fixed head and an engine that waits if a test requires it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.types import Message, Scope

from ocelli_api.prediction import PREDICTIONS_PATH, REVISION_HEADER, ImageFault
from ocelli_http.body_pace import BodyPace
from ocelli_inference import request_body
from ocelli_inference.admission import Admission, AdmissionLimits
from ocelli_inference.app import build_app, build_internal_app
from ocelli_inference.batching import BatchRules, FeatureBatcher
from ocelli_inference.metrics import Metrics
from ocelli_inference.predictor import Predictor, ServedClassifier
from ocelli_inference.service import DrainRules, InferenceService
from ocelli_storage.image_file import ImageError
from tests.unit.inference.gates import PATIENCE_SECONDS, GatedDecoder, GatedEngine, GatedImage, until

pytestmark = pytest.mark.anyio

CLASSIFIER_ID = "dogs_19"
REVISION = "0123456789"
INFER_PATH = f"/v2/models/{CLASSIFIER_ID}/infer"
NO_IMAGE = b"!"
DEFAULT_LIMITS = AdmissionLimits()


class TwoClasses:
    """Scores that identify their image: its byte over 300, and the rest."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([features / 300, 1 - features / 300], axis=1)


class FaultyDecoder(GatedDecoder):
    def open(self, data: bytes) -> GatedImage:
        if data == NO_IMAGE:
            raise ImageError(ImageFault.NOT_AN_IMAGE, "Invalid image data")
        return super().open(data)


class Rig:
    def __init__(self, metrics: Metrics, limits: AdmissionLimits) -> None:
        self.admission = Admission(limits, metrics)
        self.service = InferenceService(
            classifier_id=CLASSIFIER_ID, revision=REVISION, admission=self.admission, metrics=metrics
        )
        self.app = build_app(self.service)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url="http://inference"
        )
        self.internal = httpx.AsyncClient(
            transport=httpx.ASGITransport(build_internal_app(self.service)), base_url="http://inference"
        )
        self.engine = GatedEngine()
        self.decoder = FaultyDecoder()
        self.metrics = metrics

    async def predict(self, data: bytes, **headers: str) -> httpx.Response:
        return await self.client.post(PREDICTIONS_PATH, content=data, headers=headers)

    async def infer(self, *images: bytes, path: str = INFER_PATH) -> httpx.Response:
        data = [base64.b64encode(image).decode() for image in images]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}
        return await self.client.post(path, json={"inputs": [tensor]})

    def requests(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("ocelli_inference_requests_total", {"outcome": outcome})


@asynccontextmanager
async def open_rig(metrics: Metrics, limits: AdmissionLimits = DEFAULT_LIMITS, *, loaded: bool = True) -> AsyncIterator[Rig]:
    rig = Rig(metrics, limits)
    rules = BatchRules(limit_images=8, wait_seconds=PATIENCE_SECONDS)
    batcher = FeatureBatcher(
        open_image=rig.decoder.open, compute_features=rig.engine.features, decode_threads=2, rules=rules, metrics=metrics
    )
    classifier = ServedClassifier(
        classifier_id=CLASSIFIER_ID, revision=REVISION, class_names=("beagle", "husky"), head=TwoClasses()
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), rig.client, batcher:
            if loaded:
                rig.service.begin_serving(Predictor(classifier, batcher, engine_name="gated"))
            yield rig
    finally:
        rig.engine.gate.set()
        for event in rig.decoder.held.values():
            event.set()


@pytest.fixture
async def rig(metrics: Metrics) -> AsyncIterator[Rig]:
    async with open_rig(metrics) as rig:
        yield rig


async def test_a_prediction_has_every_class_with_six_decimals(rig: Rig) -> None:
    answer = await rig.predict(b"\x64")
    assert answer.status_code == 200
    assert answer.json() == {
        "classifierID": CLASSIFIER_ID,
        "revision": REVISION,
        "predictions": [{"class": "beagle", "score": 0.333333}, {"class": "husky", "score": 0.666667}],
    }


async def test_the_right_revision_is_answered(rig: Rig) -> None:
    assert (await rig.predict(b"\x64", **{REVISION_HEADER: REVISION})).status_code == 200


async def test_request_for_another_revision_is_refused(rig: Rig) -> None:
    answer = await rig.predict(b"\x64", **{REVISION_HEADER: "ffffffffff"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (421, "OtherRevision")


async def test_bytes_that_are_not_an_image_are_refused_with_the_fault(rig: Rig) -> None:
    answer = await rig.predict(NO_IMAGE)
    assert answer.status_code == 400
    assert answer.json() == {"error": {"kind": "NotAnImage", "message": "Invalid image data"}}


@pytest.mark.parametrize(
    ("pace", "message"),
    [
        (BodyPace(stall_seconds=0.2, least_bytes_per_second=1024), r"send at least 1 KB a second"),
        (BodyPace(stall_seconds=0.01, least_bytes_per_second=1), r"no data of the body for 0\.01 seconds; send it again"),
    ],
    ids=["slow", "stalled"],
)
async def test_slow_body_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch, pace: BodyPace, message: str) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(100):
            await asyncio.sleep(0.05)
            yield b"x"

    monkeypatch.setattr(request_body, "PACE", pace)
    answer = await rig.client.post(PREDICTIONS_PATH, content=drip())
    assert answer.status_code == 400
    assert re.search(message, answer.json()["error"]["message"])


async def test_before_it_is_loaded_it_is_alive_and_not_ready(metrics: Metrics) -> None:
    async with open_rig(metrics, loaded=False) as rig:
        assert (await rig.internal.get("/healthz")).status_code == 200
        assert (await rig.internal.get("/readyz")).status_code == 503
        assert (await rig.client.get("/v2/health/live")).json() == {"live": True}
        assert (await rig.client.get("/v2/health/ready")).status_code == 503
        assert (await rig.client.get(f"/v2/models/{CLASSIFIER_ID}/ready")).status_code == 503


async def test_before_it_is_loaded_a_prediction_may_be_tried_again(metrics: Metrics) -> None:
    async with open_rig(metrics, loaded=False) as rig:
        answer = await rig.predict(b"\x64")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "NotReady")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_once_loaded_it_is_ready(rig: Rig) -> None:
    assert (await rig.internal.get("/readyz")).status_code == 200
    assert (await rig.client.get("/v2/health/ready")).json() == {"ready": True}
    assert (await rig.client.get(f"/v2/models/{CLASSIFIER_ID}/ready")).json() == {"name": CLASSIFIER_ID, "ready": True}


async def test_a_full_queue_answers_429_with_retry_after(metrics: Metrics) -> None:
    async with open_rig(metrics, AdmissionLimits(images=1)) as rig:
        rig.engine.gate.clear()
        first = asyncio.create_task(rig.predict(b"\x01"))
        await until(lambda: rig.engine.batches == [1])
        answer = await rig.predict(b"\x02")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (429, "QueueFull")
        assert int(answer.headers["Retry-After"]) >= 1
        rig.engine.gate.set()
        assert (await first).status_code == 200


async def test_too_many_bytes_in_the_queue_answer_429(metrics: Metrics) -> None:
    async with open_rig(metrics, AdmissionLimits(bytes=10)) as rig:
        assert (await rig.predict(bytes(11))).status_code == 429


async def test_after_an_answer_its_place_in_the_queue_is_free(metrics: Metrics) -> None:
    async with open_rig(metrics, AdmissionLimits(images=1, bytes=1)) as rig:
        assert [(await rig.predict(b"\x01")).status_code for _ in range(3)] == [200, 200, 200]


async def test_a_declared_size_above_the_limit_is_refused_unread(rig: Rig) -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.disconnect"}

    started = await call(rig, receive, headers=[(b"content-length", b"10485761")])
    assert started["status"] == 400
    assert (b"connection", b"close") in started["headers"]
    assert received == 1  # only while the connection lingers after the answer


async def test_an_undeclared_body_is_read_up_to_the_limit_and_no_further(rig: Rig) -> None:
    received = 0
    chunk = bytes(1024 * 1024)

    async def endless() -> Message:
        nonlocal received
        received += 1
        if received > 11:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    started = await call(rig, endless)
    assert started["status"] == 400
    assert rig.requests("TooLarge") == 1


async def test_image_of_a_client_that_disconnects_leaves_the_queue(rig: Rig) -> None:
    rig.engine.gate.clear()
    first = asyncio.create_task(rig.predict(b"\x01"))
    await until(lambda: rig.engine.batches == [1])
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"\x02", "more_body": False})
    gone = asyncio.create_task(call(rig, messages.get))
    await until(lambda: len(rig.decoder.decoded) == 2)
    messages.put_nowait({"type": "http.disconnect"})
    await gone
    rig.engine.gate.set()
    await first
    assert rig.engine.batches == [1]
    assert rig.requests("ClientGone") == 1


async def test_error_of_a_failing_backbone_has_no_internal_details(rig: Rig) -> None:
    rig.engine.failure = RuntimeError("secret")
    answer = await rig.predict(b"\x01")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_requests_are_counted_by_outcome(rig: Rig) -> None:
    await rig.predict(b"\x01")
    await rig.predict(NO_IMAGE)
    assert (rig.requests("Predicted"), rig.requests("NotAnImage")) == (1, 1)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_probes_and_metrics_are_not_on_the_port_of_predictions(rig: Rig, path: str) -> None:
    assert (await rig.client.get(path)).status_code == 404


async def test_metrics_are_in_prometheus_s_text_format(rig: Rig) -> None:
    await rig.predict(b"\x01")
    answer = await rig.internal.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'ocelli_inference_requests_total{outcome="Predicted"} 1.0' in answer.text


async def test_a_draining_server_is_not_ready_and_still_answers(rig: Rig) -> None:
    drain = asyncio.create_task(rig.service.drain(DrainRules(quiet_seconds=3600, limit_seconds=3600)))
    await asyncio.sleep(0)
    assert (await rig.internal.get("/readyz")).status_code == 503
    answer = await rig.predict(b"\x01")
    assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
    drain.cancel()


async def test_a_drain_lasts_until_the_last_request_is_answered(rig: Rig) -> None:
    rig.engine.gate.clear()
    request = asyncio.create_task(rig.predict(b"\x01"))
    await until(lambda: rig.engine.batches == [1])
    drain = asyncio.create_task(rig.service.drain(DrainRules(quiet_seconds=0, limit_seconds=3600)))
    done, _ = await asyncio.wait([drain], timeout=0.2)
    assert not done
    rig.engine.gate.set()
    await drain
    assert (await request).status_code == 200


async def test_drain_ends_at_its_limit_although_requests_still_arrive(rig: Rig) -> None:
    await rig.service.drain(DrainRules(quiet_seconds=3600, limit_seconds=0.1))


async def test_the_model_is_described(rig: Rig) -> None:
    expected = {
        "name": CLASSIFIER_ID,
        "versions": [REVISION],
        "platform": "gated",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "classes", "datatype": "BYTES", "shape": [2]},
        ],
    }
    assert (await rig.client.get(f"/v2/models/{CLASSIFIER_ID}")).json() == expected
    assert (await rig.client.get(f"/v2/models/{CLASSIFIER_ID}/versions/{REVISION}")).json() == expected


async def test_the_server_is_described(rig: Rig) -> None:
    assert (await rig.client.get("/v2")).json()["name"] == "ocelli"


async def test_images_of_one_request_come_back_in_order(rig: Rig) -> None:
    answer = (await rig.infer(b"\x1e", b"\x3c", b"\x5a")).json()
    assert answer["outputs"][0]["data"] == [0.1, 0.9, 0.2, 0.8, 0.3, 0.7]


@pytest.mark.parametrize("path", ["/v2/models/cats_1/infer", f"/v2/models/{CLASSIFIER_ID}/versions/ffffffffff/infer"])
async def test_another_model_or_version_is_not_found(rig: Rig, path: str) -> None:
    answer = await rig.infer(b"\x01", path=path)
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)


async def test_a_version_may_be_named(rig: Rig) -> None:
    assert (await rig.infer(b"\x01", path=f"/v2/models/{CLASSIFIER_ID}/versions/{REVISION}/infer")).status_code == 200


async def test_one_bad_image_of_a_request_is_named(rig: Rig) -> None:
    answer = await rig.infer(b"\x01", NO_IMAGE)
    assert answer.status_code == 400
    assert answer.json() == {"error": "image 1 of 2, counted from 0: Invalid image data"}


async def test_a_bad_inference_request_is_a_400(rig: Rig) -> None:
    answer = await rig.client.post(INFER_PATH, content=b"{}")
    assert answer.status_code == 400
    assert "inputs" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/predictions", 405), ("GET", "/nowhere", 404)])
async def test_unknown_paths_answer_with_json(rig: Rig, method: str, path: str, status: int) -> None:
    answer = await rig.client.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]


async def call(rig: Rig, receive: Any, headers: list[tuple[bytes, bytes]] | None = None) -> Message:
    """One prediction call over bare ASGI; the start of its answer."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PREDICTIONS_PATH,
        "raw_path": PREDICTIONS_PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers or [],
        "server": ("inference", 80),
        "client": ("client", 1),
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await rig.app(scope, receive, send)
    assert sent[-1].get("more_body", False) is False
    json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
    return sent[0]
