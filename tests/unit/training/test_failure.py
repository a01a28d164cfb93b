"""The reason, exit code and message of every error."""

from __future__ import annotations

import errno

import pytest

from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_model.backbone import BackboneError
from ocelli_storage.object_store import StoreQuotaError, StoreUnavailableError
from ocelli_training.backbone_choice import BackboneNotInstalledError
from ocelli_training.dataset import DatasetError
from ocelli_training.failure import describe_failure
from ocelli_training.reading import SourcesError
from ocelli_training.revision_store import DefinitionError
from ocelli_training.sources import SourceError
from ocelli_training.tuning_recipe import DivergedError, GpuMemoryError, PyTorchMissingError
from ocelli_training.workers import WorkerLostError, WorkersDisconnectedError, WorkersMissingError, WorkersNotConnectedError


def sources_error(reason: OutcomeReason, *, transient: bool) -> SourcesError:
    return SourcesError("Classifier team-a/dogs: gone", SourceError("gone", reason=reason, transient=transient))


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (DatasetError("few"), OutcomeReason.INVALID_DATA, ExitCode.INVALID_DATA),
        (sources_error(OutcomeReason.INVALID_DATA, transient=False), OutcomeReason.INVALID_DATA, ExitCode.INVALID_DATA),
        (
            sources_error(OutcomeReason.SOURCE_UNREADABLE, transient=False),
            OutcomeReason.SOURCE_UNREADABLE,
            ExitCode.INVALID_DATA,
        ),
        (sources_error(OutcomeReason.SOURCE_UNREADABLE, transient=True), OutcomeReason.SOURCE_UNREADABLE, ExitCode.FAILED),
        (BackboneError("gone"), OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED),
        (BackboneNotInstalledError("gone"), OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED),
        (StoreUnavailableError("down"), OutcomeReason.FAILED, ExitCode.FAILED),
        (StoreQuotaError("tenants/team-a/x", "no room"), OutcomeReason.FAILED, ExitCode.MISCONFIGURED),
        (DefinitionError("gone"), OutcomeReason.FAILED, ExitCode.FAILED),
        (OSError(errno.ENOSPC, "full"), OutcomeReason.FAILED, ExitCode.FAILED),
        (MemoryError(), OutcomeReason.FAILED, ExitCode.FAILED),
        (PyTorchMissingError(), OutcomeReason.FAILED, ExitCode.MISCONFIGURED),
        (DivergedError(epoch=1, learning_rate=1), OutcomeReason.TRAINING_DIVERGED, ExitCode.MISCONFIGURED),
        (GpuMemoryError(batch_images=8), OutcomeReason.GPU_OUT_OF_MEMORY, ExitCode.MISCONFIGURED),
        (WorkerLostError(worker=1, workers=2, fact="has ended"), OutcomeReason.FAILED, ExitCode.WORKER_LOST),
        (WorkersDisconnectedError(workers=2, cause="NCCL error"), OutcomeReason.FAILED, ExitCode.FAILED),
        (WorkersMissingError(missing=[1], workers=2, waited_seconds=600), OutcomeReason.FAILED, ExitCode.FAILED),
        (WorkersNotConnectedError(workers=2, waited_seconds=120), OutcomeReason.FAILED, ExitCode.FAILED),
        (ZeroDivisionError(), OutcomeReason.FAILED, ExitCode.FAILED),
    ],
)
def test_an_error_has_a_reason_and_an_exit_code(error: Exception, reason: OutcomeReason, exit_code: ExitCode) -> None:
    failure = describe_failure("team-a/dogs", error)
    assert (failure.reason, failure.exit_code) == (reason, exit_code)


def test_every_message_names_the_classifier_once() -> None:
    for error in (
        sources_error(OutcomeReason.INVALID_DATA, transient=False),
        BackboneError("gone"),
        MemoryError(),
        KeyError("x"),
    ):
        assert describe_failure("team-a/dogs", error).message.count("Classifier team-a/dogs") == 1


def test_only_errors_in_ocelli_are_unexpected() -> None:
    assert not describe_failure("team-a/dogs", ZeroDivisionError()).expected
    assert describe_failure("team-a/dogs", MemoryError()).expected
