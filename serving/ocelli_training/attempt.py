"""One attempt at a revision: the training with its progress file, and its outcome in the store, also after a failure."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ocelli_api.outcome import ExitCode, Outcome
from ocelli_api.pods import TrainingStep
from ocelli_api.times import format_time
from ocelli_storage.layout import CHECK_OUTCOME, OUTCOME, PROGRESS
from ocelli_storage.object_store import ObjectStore, ObjectStoreError, StoreQuotaError
from ocelli_training.data_check import DataCheck
from ocelli_training.failure import Failure, describe_failure
from ocelli_training.progress import Progress
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from ocelli_training.training import Training

logger = logging.getLogger(__name__)


async def run_attempt(
    settings: TrainerSettings, store: ObjectStore, scratch: Path, stop: StopRequest
) -> tuple[Outcome, ExitCode]:
    """Check the data of the revision, or train it; `scratch` is an empty folder.

    When this returns, the outcome is stored, with three exceptions: if the store does not answer, or a worker is lost, the
    exit code lets the Job try again; if the store's quota is exceeded, the operator reads the outcome from the termination
    message.
    """
    started = time.monotonic()
    location = settings.location
    is_check = settings.step is TrainingStep.CHECK
    outcome_key = location.training_key(settings.revision, settings.attempt, CHECK_OUTCOME if is_check else OUTCOME)
    progress_key = location.training_key(settings.revision, settings.attempt, PROGRESS)
    exit_code = ExitCode.SUCCEEDED
    try:
        # A Job may start a second Pod for an attempt: the first Pod's outcome must not count for the second.
        await store.delete(outcome_key)
        async with Progress(store, progress_key, now=_now) as progress:
            if is_check:
                outcome = await DataCheck(settings, store, scratch, progress).run()
            else:
                outcome = await Training(settings, store, scratch, progress, stop).run()
    except Exception as error:
        failure = describe_failure(settings.classifier, error)
        if not failure.expected:
            logger.exception("training.error")
        outcome, exit_code = _failed(settings, failure), failure.exit_code
    outcome = replace(outcome, finished_at=format_time(_now()))
    try:
        if exit_code is ExitCode.WORKER_LOST:
            # This attempt goes on.
            logger.warning("training.interrupted", extra={"text": outcome.message})
            return outcome, exit_code
        await store.put(outcome_key, json.dumps(outcome.to_json(), ensure_ascii=False).encode())
    except ObjectStoreError as error:
        logger.error("outcome.not_stored", extra={"error": str(error)})
        if not isinstance(error, StoreQuotaError):
            exit_code = ExitCode.FAILED
    level = logging.INFO if outcome.succeeded else logging.ERROR
    seconds = time.monotonic() - started
    logger.log(level, "training.ended", extra={"reason": outcome.reason, "text": outcome.message, "seconds": seconds})
    return outcome, exit_code


async def run_other_worker(
    settings: TrainerSettings, store: ObjectStore, scratch: Path, stop: StopRequest
) -> tuple[Outcome | None, ExitCode]:
    """Help the first worker of the training; `scratch` is an empty folder. Without a failure there is no outcome."""
    # Imported on demand: most trainers have no PyTorch.
    from ocelli_training.other_worker import OtherWorker

    try:
        await OtherWorker(settings, store, scratch, stop).run()
    except Exception as error:
        failure = describe_failure(settings.subject, error)
        if not failure.expected:
            logger.exception("training.error")
        logger.warning("worker.failed", extra={"text": failure.message})
        return _failed(settings, failure), failure.exit_code
    return None, ExitCode.SUCCEEDED


def _failed(settings: TrainerSettings, failure: Failure) -> Outcome:
    return Outcome(reason=failure.reason, message=failure.message, revision=settings.revision, attempt=settings.attempt)


def _now() -> datetime:
    return datetime.now(UTC)
