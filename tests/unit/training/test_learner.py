"""Results that take the place of what an interrupted training would have continued from."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from ocelli_api.classifier import ClassifierSpec, parse_spec
from ocelli_api.pods import Environment
from ocelli_api.settings import load_settings
from ocelli_storage.object_store import StoreQuotaError
from ocelli_training.learner import Learner
from ocelli_training.progress import Progress
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from tests.unit.training.conftest import Trainer

CHECKPOINT = ("checkpoint.json", b'{"file": "checkpoint-1.safetensors"}'), ("checkpoint-1.safetensors", b"tensors")
FULL = StoreQuotaError("artifacts/dogs_1/heads.safetensors", 'namespace "team-a" has no room in the store')


class Training:
    """The checkpoint of an attempt, and a store with room for its results once there are at most `kept` objects of it."""

    def __init__(self, trainer: Trainer, *, kept: int) -> None:
        self.store, self.kept = trainer.store, kept
        settings = load_settings(TrainerSettings, {**trainer.environment, Environment.CPU_LIMIT: "1"})
        for file, data in CHECKPOINT:
            trainer.put(trainer.location.training_key(trainer.revision, 1, file), data)
        progress = Progress(self.store, "progress.json", now=lambda: datetime.now(UTC))
        stop = StopRequest(lambda number: pytest.fail("nothing asked it to stop"))
        self.learner = Learner(settings=settings, store=self.store, scratch=trainer.scratch, progress=progress, stop=stop)

    def run(self, definition: ClassifierSpec) -> None:
        asyncio.run(self.learner.store_results(definition, self._save, None))

    def keys(self) -> list[str]:
        return asyncio.run(self._list())

    async def _list(self) -> list[str]:
        return [item.key.rpartition("/")[2] for item in await self.store.list_objects("tenants")]

    async def _save(self) -> None:
        if len(await self._list()) > self.kept:
            raise FULL
        await self.store.put("tenants/results", b"")


def make_definition(strategy: str) -> ClassifierSpec:
    return parse_spec({"classes": [{"name": "cat", "examples": []}], "model": {"strategy": strategy}})


@pytest.mark.parametrize("kept", [2, 0], ids=["with room for both", "with room for one"])
def test_the_results_take_the_place_of_the_checkpoint(trainer: Trainer, kept: int) -> None:
    training = Training(trainer, kept=kept)

    training.run(make_definition("FineTune"))

    assert training.keys() == ["results"]


def test_a_quota_without_room_for_the_results_fails_the_training(trainer: Trainer) -> None:
    training = Training(trainer, kept=-1)

    with pytest.raises(StoreQuotaError):
        training.run(make_definition("FineTune"))


def test_linear_heads_are_saved_once(trainer: Trainer) -> None:
    training = Training(trainer, kept=0)

    with pytest.raises(StoreQuotaError):
        training.run(make_definition("LinearProbe"))

    assert sorted(training.keys()) == ["checkpoint-1.safetensors", "checkpoint.json"]
