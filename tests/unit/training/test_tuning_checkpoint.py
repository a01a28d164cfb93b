"""Checkpoints in the store, and a training that continues from one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch

from ocelli_storage.object_store import ObjectStore, StoreUnavailableError
from ocelli_storage.store_url import open_store
from ocelli_training.tuning_checkpoint import POINTER, Checkpoint, CheckpointStore, delete_checkpoint

CHECKPOINT = Checkpoint(document={"bestEpochs": [2]}, tensors={"average.head": torch.arange(6.0)})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


class Opened:
    """Checkpoints of one attempt, as a new process opens them."""

    def __init__(self, store: ObjectStore, loop: asyncio.AbstractEventLoop, scratch: Path) -> None:
        self.store, self.loop, self.scratch = store, loop, scratch

    def __call__(self, inputs: str = "a") -> CheckpointStore:
        return CheckpointStore(
            store=self.store,
            key=lambda file: f"attempt/{file}",
            inputs=inputs,
            scratch=self.scratch,
            loop=self.loop,
            interval_seconds=30,
        )

    def stored_keys(self) -> list[str]:
        return sorted(item.key for item in asyncio.run(self.store.list_objects("attempt")))


@pytest.fixture
def opened(store: ObjectStore, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Opened:
    (tmp_path / "scratch").mkdir()
    return Opened(store, loop, tmp_path / "scratch")


def test_another_process_loads_what_was_saved(opened: Opened) -> None:
    opened().save(CHECKPOINT)
    loaded = opened().load()
    assert loaded is not None
    assert loaded.document == CHECKPOINT.document
    assert torch.equal(loaded.tensors["average.head"], CHECKPOINT.tensors["average.head"])


def test_without_a_checkpoint_there_is_nothing_to_load(opened: Opened) -> None:
    assert opened().load() is None


def test_a_checkpoint_of_other_inputs_is_not_used(opened: Opened) -> None:
    opened("a").save(CHECKPOINT)
    assert opened("b").load() is None


def test_a_checkpoint_of_other_inputs_is_replaced(opened: Opened) -> None:
    opened().save(CHECKPOINT)
    other = opened("b")
    other.load()
    other.save(Checkpoint(document={"bestEpochs": [3]}, tensors={"average.head": torch.arange(5.0)}))
    assert len(opened.stored_keys()) == 2


def test_a_damaged_file_is_not_used(opened: Opened) -> None:
    opened().save(CHECKPOINT)
    tensors = next(key for key in opened.stored_keys() if key.endswith(".safetensors"))
    asyncio.run(opened.store.put(tensors, b"damaged"))
    assert opened().load() is None


@pytest.mark.parametrize("pointer", [b"[]", b"{}", b'{"formatVersion": 1, "inputs": "a", "file": "../x", "sha256": ""}'])
def test_a_damaged_pointer_is_not_used(opened: Opened, pointer: bytes) -> None:
    asyncio.run(opened.store.put(f"attempt/{POINTER}", pointer))
    assert opened().load() is None


def test_the_file_of_the_checkpoint_before_is_deleted(opened: Opened) -> None:
    checkpoints = opened()
    checkpoints.save(CHECKPOINT)
    checkpoints.save(Checkpoint(document={"bestEpochs": []}, tensors={"average.head": torch.zeros(2)}))
    assert len(opened.stored_keys()) == 2


def test_the_pointer_is_written_after_the_file_that_it_names(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put = opened.store.put

    async def note(key: str, data: bytes | Path) -> None:
        written.append(key)
        await put(key, data)

    monkeypatch.setattr(opened.store, "put", note)
    opened().save(CHECKPOINT)
    assert [key.endswith(POINTER) for key in written] == [False, True]
    pointer = json.loads(asyncio.run(opened.store.get(written[1], limit_bytes=10_000)))
    assert written[0].endswith(pointer["file"])


def test_a_store_that_does_not_answer_does_not_end_the_training(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(key: str, data: bytes | Path) -> None:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(opened.store, "put", refuse)
    opened().save(CHECKPOINT)
    assert opened.stored_keys() == []


def test_everything_is_deleted_when_the_results_are_stored(opened: Opened) -> None:
    opened().save(CHECKPOINT)
    asyncio.run(delete_checkpoint(opened.store, lambda file: f"attempt/{file}"))
    assert opened.stored_keys() == []


def test_without_a_checkpoint_there_is_nothing_to_delete(opened: Opened) -> None:
    asyncio.run(delete_checkpoint(opened.store, lambda file: f"attempt/{file}"))
    assert opened.stored_keys() == []


def test_a_damaged_pointer_deletes_nothing_else(opened: Opened) -> None:
    asyncio.run(opened.store.put("x", b"kept"))
    asyncio.run(opened.store.put(f"attempt/{POINTER}", b'{"file": "../x"}'))
    asyncio.run(delete_checkpoint(opened.store, lambda file: f"attempt/{file}"))
    assert asyncio.run(opened.store.exists("x"))


def test_the_scratch_folder_is_left_empty(opened: Opened) -> None:
    opened().save(CHECKPOINT)
    opened().load()
    assert list(opened.scratch.iterdir()) == []
