"""Waiting for a training, with a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from ocelli_cli.session import Session
from ocelli_cli.wording import describe_accuracy, describe_status
from ocelli_client import Card, Details, Ocelli, OcelliError, Wait
from ocelli_client.waiting import has_settled


class TrainingFailedError(OcelliError):
    """The training that was waited for has failed, or its revision was refused."""


def wait_for_training(session: Session, ocelli: Ocelli, details: Details) -> Details:
    """The classifier once its training has ended.

    Raises:
        TrainingFailedError: it has failed.
    """
    ended = wait_until(session, ocelli, details.classifier_id, has_settled)
    check_trained(ended)
    return ended


def wait_until(session: Session, ocelli: Ocelli, classifier_id: str, until: Callable[[Card], bool]) -> Details:
    """The classifier once `until` is true of it."""
    with session.output.progress("waiting") as bar:

        def show(details: Details) -> None:
            progress = details.progress
            percent = 0 if progress is None else progress.percent
            bar.update(percent, 100, f"{details.name}: {details.status}{'' if progress is None else f' ({progress.stage})'}")

        options = Wait(
            timeout_seconds=session.find_remaining_seconds(),
            on_change=show,
            on_interruption=session.output.warn,
            until=until,
        )
        return ocelli.wait(classifier_id, options)


def check_trained(details: Details) -> None:
    """Raise TrainingFailedError for a failed classifier."""
    if details.status == "failed":
        reason = details.explanation or "the gateway knows no reason; read its conditions: ocelli status -o yaml"
        raise TrainingFailedError(f"Classifier {details.name} ({details.classifier_id}) has failed: {reason}")


def describe_outcome(details: Details) -> str:
    """What a person should know after a creation or retrain, and what to do next."""
    title = f"Classifier {details.name} ({details.classifier_id})"
    if details.awaits_approval:
        return (
            f"{title}: revision {details.awaits_approval} waits for approval: "
            f"ocelli approve {details.classifier_id} {details.awaits_approval}"
        )
    if details.suspended:
        return f"{title} is suspended: its images are only checked; train it: ocelli resume {details.classifier_id}"
    if details.status == "ready":
        accuracy = f" Accuracy {describe_accuracy(details.accuracy)}." if details.accuracy else ""
        return f"{title} is ready.{accuracy} Try it: ocelli classify FILE -c {details.classifier_id}"
    return f"{title}: {describe_status(details)}. Follow it: ocelli status {details.classifier_id} -w"
