"""How a training learns: linear heads, or these and then the whole network (`spec.model.strategy`)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ocelli_api.classifier import Accelerator, ClassifierSpec, Strategy
from ocelli_api.outcome import Stage
from ocelli_model.backbone import BackboneMetadata, load_backbone
from ocelli_model.engine import available_device, device_for, needed_files
from ocelli_storage.object_store import ObjectStore, StoreQuotaError
from ocelli_training.fit import View, fit_heads
from ocelli_training.learned import Learned, conclude_tuning
from ocelli_training.progress import Progress
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from ocelli_training.training_data import TrainingData
from ocelli_training.tuning_recipe import PyTorchMissingError, TuningRecipe

if TYPE_CHECKING:
    from ocelli_training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Learns by the strategy of a definition."""

    settings: TrainerSettings
    store: ObjectStore
    scratch: Path
    """A folder."""
    progress: Progress
    stop: StopRequest

    def prepare(self, definition: ClassifierSpec) -> None:
        """Check what the strategy needs, before any source is read.

        Raises:
            PyTorchMissingError: see there.
        """
        if definition.model.strategy is not Strategy.FINE_TUNE:
            return
        if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision")):
            raise PyTorchMissingError
        self.progress.expect_fine_tuning()

    async def gather_workers(self, definition: ClassifierSpec, metadata: BackboneMetadata) -> WorkerGroup | None:
        """The other workers, before any source is read, once all have started; None: this one trains alone.

        Raises:
            WorkersMissingError, WorkerLostError, BackboneError, ObjectStoreError: see there.
        """
        if self.settings.workers == 1 or definition.model.strategy is not Strategy.FINE_TUNE:
            return None
        # Imported on demand, see `_fine_tune`.
        from ocelli_training.worker_group import gather_workers
        from ocelli_training.worker_membership import describe_membership

        membership = describe_membership(self.settings, self.store, self.scratch, self.stop)
        return await gather_workers(membership, await self._choose_device(metadata))

    async def learn(
        self,
        definition: ClassifierSpec,
        metadata: BackboneMetadata,
        description: str,
        data: TrainingData,
        group: WorkerGroup | None = None,
    ) -> Learned:
        """Heads for the features of an installed backbone, or for a network of their own that began as this backbone.

        Raises:
            TuningError, WorkerLostError, BackboneError, ObjectStoreError: see there.
        """
        await self.progress.begin(Stage.FITTING)
        tunes = definition.model.strategy is Strategy.FINE_TUNE
        linear = await self._fit(metadata, description, data, reports=not tunes)
        return await self._fine_tune(definition, linear, data, group) if tunes else linear

    async def store_results(
        self, definition: ClassifierSpec, save: Callable[[], Awaitable[None]], group: WorkerGroup | None
    ) -> None:
        """`save` the results, delete what another process would have continued from, and let other workers end.

        Where the quota has no room for the results, they take that of the checkpoint, which has up to five times the size of a
        network.

        Raises:
            StoreQuotaError: there is no room for the results without the checkpoint, either.
            ObjectStoreError: see there.
        """
        tunes = definition.model.strategy is Strategy.FINE_TUNE
        try:
            await save()
        except StoreQuotaError:
            if not tunes:
                raise
            await self._delete_checkpoint()
            await save()
        else:
            if tunes:
                await self._delete_checkpoint()
        if group is not None:
            await group.finish()

    async def _delete_checkpoint(self) -> None:
        # Imported on demand, see `_fine_tune`.
        from ocelli_training.tuning_checkpoint import delete_checkpoint

        settings = self.settings
        await delete_checkpoint(self.store, partial(settings.location.training_key, settings.revision, settings.attempt))

    async def _fit(self, metadata: BackboneMetadata, description: str, data: TrainingData, *, reports: bool) -> Learned:
        """Linear heads. Without `reports`, their progress is not worth a report: fine-tuning takes nearly all of the stage."""
        started = time.monotonic()
        report = self.progress.report if reports else lambda part: None
        fit = await asyncio.to_thread(fit_heads, data.examples, report, threads=self.settings.cpu_count)
        logger.info(
            "heads.fitted",
            extra={"views": fit.recipe.views, "penalty": fit.recipe.penalty, "seconds": time.monotonic() - started},
        )
        return Learned(
            fit=fit,
            metadata=metadata,
            features=data.examples.features,
            test=data.test,
            description=description,
            message=f"Trained on {len(data.dataset.examples)} images{data.corrections.describe_unknown()}",
        )

    async def _choose_device(self, metadata: BackboneMetadata) -> Accelerator:
        return device_for(metadata, await asyncio.to_thread(available_device, self.settings.accelerator))

    async def _fine_tune(
        self, definition: ClassifierSpec, linear: Learned, data: TrainingData, group: WorkerGroup | None
    ) -> Learned:
        # Imported on demand: PyTorch takes seconds, and most trainers do not have it.
        from ocelli_training.fine_tuning import TuningTask, fine_tune
        from ocelli_training.tuning_run import TuningImages

        recipe = TuningRecipe.complete(definition.model, mirror=View.MIRRORED in linear.fit.recipe.views)
        metadata = linear.metadata
        backbone = await load_backbone(
            self.store, metadata.digest, cache=self.scratch / "backbones", files=needed_files(Accelerator.GPU)
        )
        tested = () if data.test is None else data.test.test_set.examples
        task = TuningTask(
            backbone=backbone,
            examples=data.examples,
            linear=linear.fit,
            images=TuningImages(
                pixels=data.pixels,
                numbers=[data.numbers[example.digest] for example in data.dataset.examples],
                digests=[example.digest for example in data.dataset.examples],
                membership=data.examples.membership,
            ),
            test_numbers=[data.numbers[image.digest] for image in tested],
            recipe=recipe,
            device=await self._choose_device(metadata),
            threads=self.settings.cpu_count,
            scratch=self.scratch,
            group=group,
        )
        outcome = await fine_tune(task, self.settings, self.store, self.stop, self.progress)
        return conclude_tuning(linear, recipe, outcome)
