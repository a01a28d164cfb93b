"""What the end of a training means to whoever started it: reason, exit code and message of every error."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_model.backbone import BackboneError
from ocelli_storage.object_store import ObjectStoreError, StoreQuotaError
from ocelli_training.backbone_choice import BackboneNotInstalledError
from ocelli_training.dataset import DatasetError
from ocelli_training.reading import SourcesError
from ocelli_training.training import DefinitionError


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a training ended that did not succeed."""

    reason: OutcomeReason
    exit_code: ExitCode
    message: str
    """Object, fact, remedy."""
    expected: bool = True
    """False: a fault of the program, whose traceback belongs into the log."""


def judge_error(classifier: str, error: Exception) -> Ending:
    """What an error means; `classifier` is its `namespace/name`."""
    match error:
        case SourcesError():
            exit_code = ExitCode.FAILED if error.first.transient else ExitCode.INVALID_DATA
            return Ending(reason=error.first.reason, exit_code=exit_code, message=str(error))
        case DatasetError():
            return Ending(reason=OutcomeReason.INVALID_DATA, exit_code=ExitCode.INVALID_DATA, message=str(error))
        case BackboneError() | BackboneNotInstalledError():
            message = f"Classifier {classifier}: {error}"
            return Ending(reason=OutcomeReason.BACKBONE_UNAVAILABLE, exit_code=ExitCode.MISCONFIGURED, message=message)
        case StoreQuotaError():
            remedy = "then raise spec.retrainNonce to train again, or send the examples by REST again"
            message = f"Classifier {classifier}: {error}; {remedy}"
            return Ending(reason=OutcomeReason.FAILED, exit_code=ExitCode.MISCONFIGURED, message=message)
        case DefinitionError() | ObjectStoreError():
            return _failed(f"Classifier {classifier}: {error}")
        case OSError(errno=errno.ENOSPC):
            return _failed(
                f"Classifier {classifier}: the trainer's scratch folder is full; give its Pod more ephemeral storage"
            )
        case MemoryError():
            return _failed(f"Classifier {classifier}: the trainer ran out of memory; raise it in spec.training.resources")
    fact = "the training failed through a fault of the trainer"
    return _failed(f"Classifier {classifier}: {fact}; report it with the log of the trainer", expected=False)


def _failed(message: str, *, expected: bool = True) -> Ending:
    return Ending(reason=OutcomeReason.FAILED, exit_code=ExitCode.FAILED, message=message, expected=expected)
