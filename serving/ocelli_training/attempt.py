"""One attempt at a revision: the training with its progress file, and its outcome in the store whatever happened."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ocelli_api.outcome import ExitCode, Outcome
from ocelli_api.times import format_time
from ocelli_storage.layout import OUTCOME, PROGRESS
from ocelli_storage.object_store import ObjectStore, ObjectStoreError, StoreQuotaError
from ocelli_training.ending import judge_error
from ocelli_training.progress import Progress
from ocelli_training.settings import Settings
from ocelli_training.training import Training

logger = logging.getLogger(__name__)


async def run_attempt(settings: Settings, store: ObjectStore, scratch: Path) -> tuple[Outcome, ExitCode]:
    """Learn the revision; `scratch` is an empty folder.

    The outcome lies in the store when this returns, unless the store does not answer: then the exit code is one at which the
    Job may try again; or has no room for it: then the operator has it from the termination message.
    """
    started = time.monotonic()
    location = settings.location
    outcome_key = location.training_key(settings.revision, settings.attempt, OUTCOME)
    progress_key = location.training_key(settings.revision, settings.attempt, PROGRESS)
    exit_code = ExitCode.SUCCEEDED
    try:
        # A Job may start a second Pod for an attempt: what the first one left must not be taken for its end.
        await store.delete(outcome_key)
        async with Progress(store, progress_key, now=_now) as progress:
            outcome = await Training(settings, store, scratch, progress).run()
    except Exception as error:
        ending = judge_error(settings.classifier, error)
        if not ending.expected:
            logger.exception("training.error")
        exit_code = ending.exit_code
        outcome = Outcome(reason=ending.reason, message=ending.message, revision=settings.revision, attempt=settings.attempt)
    outcome = replace(outcome, finished_at=format_time(_now()))
    try:
        await store.put(outcome_key, json.dumps(outcome.to_json(), ensure_ascii=False).encode())
    except ObjectStoreError as error:
        logger.error("outcome.not_stored", extra={"error": str(error)})
        if not isinstance(error, StoreQuotaError):
            exit_code = ExitCode.FAILED
    level = logging.INFO if outcome.succeeded else logging.ERROR
    seconds = time.monotonic() - started
    logger.log(level, "training.ended", extra={"reason": outcome.reason, "text": outcome.message, "seconds": seconds})
    return outcome, exit_code


def _now() -> datetime:
    return datetime.now(UTC)
