"""Who a worker is, from the settings of its process, and how its process ends when it must not wait for anything."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from ocelli_api.outcome import Outcome
from ocelli_storage.object_store import ObjectStore
from ocelli_training.failure import describe_failure
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from ocelli_training.termination_message import write_termination_message
from ocelli_training.worker_group import Membership
from ocelli_training.workers import ADDRESS

logger = logging.getLogger(__name__)


def describe_membership(settings: TrainerSettings, store: ObjectStore, scratch: Path, stop: StopRequest) -> Membership:
    """The worker that this process is. `scratch` is its folder, which goes when the process ends."""

    def abort(error: Exception) -> None:
        failure = describe_failure(settings.subject, error)
        outcome = Outcome(reason=failure.reason, message=failure.message, revision=settings.revision, attempt=settings.attempt)
        logger.error("worker.aborted", extra={"text": failure.message})
        write_termination_message(settings.termination_message_path, outcome)
        shutil.rmtree(scratch, ignore_errors=True)
        # The training waits for a worker that is lost.
        os._exit(failure.exit_code)

    return Membership(
        worker=settings.worker,
        workers=settings.workers,
        host=settings.worker_address,
        store=store,
        key=settings.location.training_key(settings.revision, settings.attempt, ADDRESS),
        stop=stop,
        abort=abort,
    )
