"""When batches are started, what they return, and what cancelling and closing do. The test controls decoder and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_inference.batching import BatcherClosedError, BatchFailedError, BatchRules, FeatureBatcher
from ocelli_inference.metrics import Metrics
from tests.unit.inference.gates import PATIENCE_SECONDS, GatedDecoder, GatedEngine, until

pytestmark = pytest.mark.anyio


class Rig:
    def __init__(self, batcher: FeatureBatcher, engine: GatedEngine, decoder: GatedDecoder) -> None:
        self.batcher = batcher
        self.engine = engine
        self.decoder = decoder

    def submit(self, data: bytes) -> asyncio.Task[NDArray[np.float32]]:
        return asyncio.create_task(self.batcher.features(data))


@asynccontextmanager
async def open_rig(
    metrics: Metrics, *, limit_images: int = 4, wait_seconds: float = 30.0, threads: int = 4
) -> AsyncIterator[Rig]:
    engine, decoder = GatedEngine(), GatedDecoder()
    rules = BatchRules(limit_images=limit_images, wait_seconds=wait_seconds)
    batcher = FeatureBatcher(
        open_image=decoder.open, compute_features=engine.features, decode_threads=threads, rules=rules, metrics=metrics
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), batcher:
            yield Rig(batcher, engine, decoder)
    finally:
        engine.gate.set()
        for event in decoder.held.values():
            event.set()


async def test_a_lone_image_does_not_wait_for_the_deadline(metrics: Metrics) -> None:
    async with open_rig(metrics, wait_seconds=3600) as rig:
        assert (await rig.submit(b"\x07")).tolist() == [7.0]


async def test_images_that_arrive_while_the_backbone_is_busy_form_the_next_batch(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        rig.engine.gate.clear()
        first = rig.submit(b"\x01")
        await until(lambda: rig.engine.batches == [1])
        rest = [rig.submit(bytes([number])) for number in (2, 3, 4)]
        await until(lambda: len(rig.decoder.decoded) == 4)
        rig.engine.gate.set()
        assert [(await task)[0] for task in (first, *rest)] == [1.0, 2.0, 3.0, 4.0]
        assert rig.engine.batches == [1, 3]


async def test_no_batch_exceeds_the_limit(metrics: Metrics) -> None:
    async with open_rig(metrics, limit_images=4) as rig:
        rig.engine.gate.clear()
        tasks = [rig.submit(b"\x01")]
        await until(lambda: rig.engine.batches == [1])
        tasks += [rig.submit(b"\x01") for _ in range(10)]
        await until(lambda: len(rig.decoder.decoded) == 11)
        rig.engine.gate.set()
        await asyncio.gather(*tasks)
        assert rig.engine.batches == [1, 4, 4, 2]


async def test_an_idle_backbone_waits_for_images_that_are_being_decoded(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        slow = rig.decoder.hold(b"\x02")
        tasks = [rig.submit(b"\x01"), rig.submit(b"\x02")]
        await until(lambda: rig.decoder.decoded == [b"\x01"])
        slow.set()
        await asyncio.gather(*tasks)
        assert rig.engine.batches == [2]


async def test_the_deadline_ends_the_wait_for_an_image_that_decodes_slowly(metrics: Metrics) -> None:
    async with open_rig(metrics, wait_seconds=0.01) as rig:
        slow = rig.decoder.hold(b"\x02")
        late = rig.submit(b"\x02")
        assert (await rig.submit(b"\x01")).tolist() == [1.0]
        assert not late.done()
        slow.set()
        await late
        assert rig.engine.batches == [1, 1]


async def test_image_that_cannot_be_decoded_does_not_delay_others(metrics: Metrics) -> None:
    async with open_rig(metrics, wait_seconds=3600) as rig:
        bad_gate = rig.decoder.hold(b"!")
        bad = rig.submit(b"!")
        good = rig.submit(b"\x05")
        await until(lambda: rig.decoder.decoded == [b"\x05"])
        bad_gate.set()
        assert (await good).tolist() == [5.0]
        with pytest.raises(ValueError, match="not decodable"):
            await bad


async def test_a_cancelled_image_never_reaches_the_backbone(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        rig.engine.gate.clear()
        first = rig.submit(b"\x01")
        await until(lambda: rig.engine.batches == [1])
        kept, dropped = rig.submit(b"\x02"), rig.submit(b"\x03")
        await until(lambda: len(rig.decoder.decoded) == 3)
        dropped.cancel()
        await asyncio.wait([dropped])
        rig.engine.gate.set()
        await asyncio.gather(first, kept)
        assert rig.engine.batches == [1, 1]


async def test_a_small_image_does_not_wait_for_large_ones(metrics: Metrics) -> None:
    async with open_rig(metrics, threads=1, wait_seconds=0.001) as rig:
        gates = [rig.decoder.hold(data) for data in (b"\xf1", b"\xf2")]
        large = [rig.submit(b"\xf1"), rig.submit(b"\xf2")]

        assert (await rig.submit(b"\x01")).tolist() == [1.0]

        for gate in gates:
            gate.set()
        assert [(await task)[0] for task in large] == [241.0, 242.0]


async def test_a_cancelled_image_that_waits_for_a_decoder_is_not_decoded(metrics: Metrics) -> None:
    async with open_rig(metrics, threads=1) as rig:
        gate = rig.decoder.hold(b"\x01")
        first, dropped = rig.submit(b"\x01"), rig.submit(b"\x02")
        await asyncio.sleep(0)
        dropped.cancel()
        await asyncio.wait([dropped])
        gate.set()
        await first
        assert (await rig.submit(b"\x03")).tolist() == [3.0]
        assert rig.decoder.decoded == [b"\x01", b"\x03"]


async def test_cancelling_an_image_of_the_running_batch_leaves_the_others_their_answers(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        rig.engine.gate.clear()
        first = rig.submit(b"\x01")
        await until(lambda: rig.engine.batches == [1])
        dropped, kept = rig.submit(b"\x02"), rig.submit(b"\x03")
        await until(lambda: len(rig.decoder.decoded) == 3)
        rig.engine.gate.set()
        await first
        dropped.cancel()
        assert (await kept).tolist() == [3.0]


async def test_a_failing_backbone_fails_its_batch_and_not_the_next(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        rig.engine.failure = RuntimeError("out of memory")
        with pytest.raises(BatchFailedError):
            await rig.submit(b"\x01")
        rig.engine.failure = None
        assert (await rig.submit(b"\x02")).tolist() == [2.0]


async def test_closing_answers_waiting_callers(metrics: Metrics) -> None:
    async with open_rig(metrics, threads=1) as rig:
        rig.engine.gate.clear()
        running = rig.submit(b"\x01")
        await until(lambda: rig.engine.batches == [1])
        waiting = rig.submit(b"\x02")
        await until(lambda: len(rig.decoder.decoded) == 2)
        gate = rig.decoder.hold(b"\x03")
        decoding, queued = rig.submit(b"\x03"), rig.submit(b"\x04")
        await asyncio.sleep(0)
        await rig.batcher.__aexit__(None, None, None)
        gate.set()
        results = await asyncio.gather(running, waiting, decoding, queued, return_exceptions=True)
        assert [type(result) for result in results] == [BatcherClosedError] * 4


async def test_a_closed_batcher_refuses(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        await rig.batcher.__aexit__(None, None, None)
        with pytest.raises(BatcherClosedError):
            await rig.batcher.features(b"\x01")


async def test_batch_sizes_are_measured(metrics: Metrics) -> None:
    async with open_rig(metrics) as rig:
        await rig.submit(b"\x01")
        assert metrics.registry.get_sample_value("ocelli_inference_batch_images_sum") == 1.0
