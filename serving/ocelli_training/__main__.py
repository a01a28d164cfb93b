"""`python -m ocelli_training`: the trainer, configured by its environment."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from ocelli_api.log_lines import configure_logging
from ocelli_api.outcome import ExitCode, Outcome, OutcomeReason
from ocelli_api.pod_environment import TerminationMessageSettings
from ocelli_api.pods import Environment
from ocelli_api.settings import SettingsError, load_settings
from ocelli_storage.object_store import StoreConfigurationError
from ocelli_storage.store_url import open_store
from ocelli_training.cloud_identity import forget_cloud_variables
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from ocelli_training.termination_message import write_termination_message
from ocelli_training.workers import FIRST_WORKER

_SIGNALLED = 128
_STORE_PATIENCE_SECONDS = 600.0
"""A training cannot continue without its store, and should survive an outage of some minutes."""
_TALKATIVE = ("onnx_ir", "onnxscript", "torch")
"""Libraries that log every step of a network's export."""

logger = logging.getLogger(__name__)


def main() -> int:
    """Run one attempt, or help with it as another worker, and return the exit code."""
    outcome: Outcome | None
    configure_logging("INFO", talkative=_TALKATIVE)
    try:
        settings = load_settings(TrainerSettings, os.environ)
        configure_logging(settings.log_level, talkative=_TALKATIVE)
        store = open_store(settings.store_url, retry_limit_seconds=_STORE_PATIENCE_SECONDS)
        forget_cloud_variables(os.environ)
        scratch = _make_scratch_folder(settings)
    except (SettingsError, StoreConfigurationError) as error:
        logger.error("settings.refused", extra={"error": str(error)})
        outcome, exit_code = _refuse(os.environ, error), ExitCode.MISCONFIGURED
    else:
        stop = _stop_at_signals(scratch)
        # NumPy's products round differently with another number of threads, and the artifact must not depend on the node or the
        # CPU limit. Feature extraction, the longest stage, has its own threads. NumPy reads this once, at its import.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        # A thread of PyTorch that waits for others would spin, and use up the CPU limit of the Pod.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        # Its warnings about a lost worker are pages of addresses in the library; ours name the worker.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        from ocelli_training.attempt import run_attempt, run_other_worker

        try:
            if settings.worker == FIRST_WORKER:
                outcome, exit_code = asyncio.run(run_attempt(settings, store, scratch, stop))
            else:
                outcome, exit_code = asyncio.run(run_other_worker(settings, store, scratch, stop))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if outcome is not None:
        write_termination_message(load_settings(TerminationMessageSettings, os.environ).termination_message_path, outcome)
    return exit_code


def _make_scratch_folder(settings: TrainerSettings) -> Path:
    try:
        settings.scratch_folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="training-", dir=settings.scratch_folder))
    except OSError as error:
        raise SettingsError(
            f"environment variable {Environment.SCRATCH_FOLDER}: {settings.scratch_folder} is not writable "
            f"({error.strerror}); set it to a folder for temporary files"
        ) from error


def _stop_at_signals(scratch: Path) -> StopRequest:
    """Stop when Kubernetes asks for it. An interrupted attempt has no outcome: the Job decides what follows."""

    process = os.getpid()

    def end(number: int) -> None:
        if os.getpid() != process:
            # A library has forked this process, and ends the child: the scratch folder is still in use.
            os._exit(_SIGNALLED + number)
        logger.warning("training.stopped", extra={"signal": signal.Signals(number).name})
        shutil.rmtree(scratch, ignore_errors=True)
        # An ordinary exit would wait for threads that are decoding an image.
        os._exit(_SIGNALLED + number)

    stop = StopRequest(end)

    def receive(number: int, frame: FrameType | None) -> None:
        stop.receive(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)
    return stop


def _refuse(environment: Mapping[str, str], error: Exception) -> Outcome:
    attempt = environment.get(Environment.ATTEMPT, "")
    return Outcome(
        reason=OutcomeReason.FAILED,
        message=f"Classifier {environment.get(Environment.CLASSIFIER, '')}: the trainer is misconfigured: {error}",
        revision=environment.get(Environment.REVISION, ""),
        attempt=int(attempt) if attempt.isascii() and attempt.isdigit() else 0,
    )


if __name__ == "__main__":
    sys.exit(main())
