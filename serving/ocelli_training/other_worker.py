"""What a worker does that is not the first one of its training: it computes its part of every batch until the results are
stored. It reads no source and writes nothing to the store."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import torch

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import Backbone, load_backbone
from ocelli_model.engine import available_device, needed_files
from ocelli_storage.object_store import ObjectStore
from ocelli_training.revision_store import RevisionStore
from ocelli_training.settings import TrainerSettings
from ocelli_training.shared_tuning import IMAGES, RUN, SharedTask, receive_images, receive_run
from ocelli_training.stop_request import StopRequest
from ocelli_training.tuning_recipe import DivergedError, GpuMemoryError
from ocelli_training.tuning_run import Step
from ocelli_training.worker_group import WorkerGroup, join_workers
from ocelli_training.worker_membership import describe_membership

logger = logging.getLogger(__name__)


class OtherWorker:
    """One process of a worker other than the first."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore, scratch: Path, stop: StopRequest) -> None:
        """`scratch` is an empty folder."""
        self._settings, self._store, self._scratch, self._stop = settings, store, scratch, stop

    async def run(self) -> None:
        """Work until the results of the training are stored.

        Raises:
            WorkersMissingError, WorkerLostError: see there.
            BackboneError, ObjectStoreError, OSError, TuningError: what this worker lacks, or what ended the training.
        """
        settings = self._settings
        logger.info("worker.started", extra={"classifier": settings.classifier, "worker": settings.worker})
        group = await join_workers(describe_membership(settings, self._store, self._scratch, self._stop), self._is_done)
        if group is None:
            logger.info("artifact.found")
            return
        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._work, group, loop)
        except Exception as error:
            group.announce_end(f"failed: {error}")
            raise
        group.confirm_end()
        logger.info("worker.ended")

    async def _is_done(self) -> bool:
        """Whether an earlier process of the first worker has stored the artifact."""
        return await RevisionStore(self._settings, self._store).find_artifact() is not None

    def _work(self, group: WorkerGroup, loop: asyncio.AbstractEventLoop) -> None:
        # The first worker decides for all: an accelerator that is not here is an error.
        device = torch.device("cuda" if available_device(group.device) is Accelerator.GPU else "cpu")
        torch.set_num_threads(self._settings.cpu_count)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        task: SharedTask | None = None
        backbone: Backbone | None = None
        with ExitStack() as stack, self._stop.resumable():
            while (command := group.wait_for_command()) is not None:
                if command == IMAGES:
                    task, pixels = receive_images(group, self._scratch / "pixels")
                    stack.enter_context(pixels)
                    loading = self._load(task.backbone_digest)
                    backbone = asyncio.run_coroutine_threadsafe(loading, loop).result()
                elif command == RUN and task is not None and backbone is not None:
                    run = receive_run(group, task, backbone, device=device, threads=self._settings.cpu_count)
                    # All workers have the same error. The first one reports it, and ends; so does this one then.
                    with suppress(DivergedError, GpuMemoryError):
                        run.train(partial(self._after_step, group))

    def _after_step(self, group: WorkerGroup, step: Step) -> None:
        group.watch.check()
        if group.is_stopping:
            # All workers know it after the same step, and the first one saves a checkpoint.
            self._stop.end()
            group.check_stopped()

    async def _load(self, digest: str) -> Backbone:
        return await load_backbone(self._store, digest, cache=self._scratch / "backbones", files=needed_files(Accelerator.GPU))
