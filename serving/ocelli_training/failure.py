"""Failed trainings: reason, exit code and message for every error."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_model.backbone import BackboneError
from ocelli_model.signature import SigningKeyError
from ocelli_storage.object_store import ObjectStoreError, StoreQuotaError
from ocelli_training.backbone_choice import BackboneNotInstalledError
from ocelli_training.data_check import DataCheckError
from ocelli_training.dataset import DatasetError
from ocelli_training.reading import SourcesError
from ocelli_training.revision_store import DefinitionError
from ocelli_training.tuning_recipe import DivergedError, GpuMemoryError, TuningError
from ocelli_training.workers import (
    WorkerLostError,
    WorkersDisconnectedError,
    WorkersMissingError,
    WorkersNotConnectedError,
)

_TUNING_REASONS: Mapping[type[TuningError], OutcomeReason] = {
    DivergedError: OutcomeReason.TRAINING_DIVERGED,
    GpuMemoryError: OutcomeReason.GPU_OUT_OF_MEMORY,
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a training failed."""

    reason: OutcomeReason
    exit_code: ExitCode
    message: str
    """Object, fact, remedy."""
    expected: bool = True
    """False: an error in Ocelli, whose traceback is logged."""


def describe_failure(classifier: str, error: Exception) -> Failure:
    """The failure that an error causes; `classifier` is its `namespace/name`."""
    match error:
        case SourcesError():
            exit_code = ExitCode.FAILED if error.first.transient else ExitCode.INVALID_DATA
            return Failure(reason=error.first.reason, exit_code=exit_code, message=str(error))
        case DataCheckError():
            return Failure(reason=error.reason, exit_code=error.exit_code, message=str(error))
        case DatasetError():
            return Failure(reason=OutcomeReason.INVALID_DATA, exit_code=ExitCode.INVALID_DATA, message=str(error))
        case BackboneError() | BackboneNotInstalledError():
            message = f"Classifier {classifier}: {error}"
            return Failure(reason=OutcomeReason.BACKBONE_UNAVAILABLE, exit_code=ExitCode.MISCONFIGURED, message=message)
        case WorkerLostError():
            return _failed(f"Classifier {classifier}: {error}", exit_code=ExitCode.WORKER_LOST)
        case WorkersMissingError() | WorkersNotConnectedError() | WorkersDisconnectedError():
            return _failed(f"Classifier {classifier}: {error}")
        case SigningKeyError():
            message = f"Classifier {classifier}: {error}; then raise spec.retrainNonce to train again"
            return Failure(reason=OutcomeReason.FAILED, exit_code=ExitCode.MISCONFIGURED, message=message)
        case TuningError():
            # The same steps would end in the same way.
            reason = _TUNING_REASONS.get(type(error), OutcomeReason.FAILED)
            return Failure(reason=reason, exit_code=ExitCode.MISCONFIGURED, message=f"Classifier {classifier}: {error}")
        case StoreQuotaError():
            remedy = "then raise spec.retrainNonce to train again, or send the examples by REST again"
            message = f"Classifier {classifier}: {error}; {remedy}"
            return Failure(reason=OutcomeReason.FAILED, exit_code=ExitCode.MISCONFIGURED, message=message)
        case DefinitionError() | ObjectStoreError():
            return _failed(f"Classifier {classifier}: {error}")
        case OSError(errno=errno.ENOSPC):
            return _failed(
                f"Classifier {classifier}: the trainer's scratch folder is full; free disk space on its node, or use another"
            )
        case MemoryError():
            return _failed(f"Classifier {classifier}: the trainer ran out of memory; raise memory in spec.training.resources")
    return _failed(
        f"Classifier {classifier}: the trainer failed unexpectedly; report this with the trainer's log", expected=False
    )


def _failed(message: str, *, expected: bool = True, exit_code: ExitCode = ExitCode.FAILED) -> Failure:
    return Failure(reason=OutcomeReason.FAILED, exit_code=exit_code, message=message, expected=expected)
