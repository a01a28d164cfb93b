"""`ocelli create`, `add` and `remove`: the images that a classifier learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ocelli_cli.arguments import (
    ClassifierArgument,
    FolderArgument,
    NameArgument,
    NegativesOption,
    SuspendOption,
    WaitOption,
)
from ocelli_cli.command import command
from ocelli_cli.example_check import build_check_payload, check_examples, read_examples
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Output, Payload, ProgressBar
from ocelli_cli.session import Session
from ocelli_cli.training_wait import describe_outcome, wait_for_training
from ocelli_cli.unfinished import UnfinishedCreation
from ocelli_client import ConflictError, Creation, Details, Examples, NotFoundError, Ocelli, Removal, Transfer, TransferState
from ocelli_client.examples import find_shortage
from ocelli_client.texts import count

PANEL = "Build"
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only check the images; send none of them.")]


@dataclass(frozen=True, kw_only=True)
class CreationRequest:
    """What `ocelli create` and imports ask for."""

    name: str
    examples: Examples
    dry_run: bool = False
    wait: bool = False
    suspend: bool = False


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "create", panel=PANEL)(create)
    command(app, "add", panel=PANEL)(add)
    command(app, "remove", panel=PANEL)(remove)


def create(
    session: Session,
    name: NameArgument,
    folder: FolderArgument,
    negatives: NegativesOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    suspend: SuspendOption = False,
) -> None:
    """Create a classifier from a folder of images for each class.

    To resume an interrupted upload, repeat the command.

    Example: ocelli create dogs photos --wait
    """
    examples = read_examples(session, folder, negatives)
    create_from_examples(session, CreationRequest(name=name, examples=examples, dry_run=dry_run, wait=wait, suspend=suspend))


def create_from_examples(session: Session, request: CreationRequest) -> None:
    """Check the examples, send what is not stored yet, and print the new classifier."""
    if not request.name.isprintable():
        raise UsageError(f'"{request.name}" is not a name: it has characters that cannot be printed; give another NAME')
    problems = request.examples.problems()
    if request.dry_run:
        session.output.print(build_check_payload(request.name, request.examples, problems))
    check_examples(session, request.examples, problems)
    if request.dry_run:
        return
    context = session.find_context()
    unfinished = UnfinishedCreation.find(session.environment, context, request.name, request.examples)
    found = unfinished.find_classifier_id()
    if found is not None:
        session.output.note(f"Resuming the unfinished creation of {request.name} ({found})")
    with session.connect() as ocelli:
        with session.output.progress("uploading") as bar:
            creation = Creation(
                classifier_id=found,
                suspend=request.suspend,
                on_id=unfinished.remember,
                on_transfer=_Reporter(session=session, bar=bar).report,
            )
            try:
                details = ocelli.create(request.name, request.examples, creation)
            except (ConflictError, NotFoundError):
                # The id cannot be used again, for example because its classifier has been deleted.
                unfinished.forget()
                raise
        unfinished.forget()
        if request.wait:
            details = wait_for_training(session, ocelli, details)
    print_outcome(session.output, details)


def add(
    session: Session,
    classifier: ClassifierArgument,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="A folder that has a folder of images for each class.")
    ] = None,
    negatives: NegativesOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
) -> None:
    """Add images to classes, or new classes, and retrain. A new class needs ten images.

    To resume an interrupted upload, repeat the command.
    """
    if folder is None and negatives is None:
        raise UsageError("There is nothing to add; give a FOLDER, --negatives FOLDER, or both")
    examples = read_examples(session, folder, negatives)
    with session.connect() as ocelli:
        present = ocelli.get(ocelli.resolve(classifier).classifier_id)
        problems = tuple(find_new_shortages(present, examples))
        if dry_run:
            session.output.print(build_check_payload(classifier, examples, problems))
        check_examples(session, examples, problems)
        if dry_run:
            return
        with session.output.progress("uploading") as bar:
            details = ocelli.add(present.classifier_id, examples, _Reporter(session=session, bar=bar).report)
        finish_change(session, ocelli, details, wait=wait)


def find_new_shortages(present: Details, examples: Examples) -> Iterator[str]:
    """Why a class that would be new has too few images. A class that is there already may get a single one."""
    known = {item.class_name for item in present.classes} | ({None} if present.negative_sources else set())
    for one in examples.sets:
        problem = find_shortage(one)
        if problem is not None and (one.class_name not in known or not one.images):
            yield problem


def remove(
    session: Session,
    classifier: ClassifierArgument,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="Remove this class, with the images that were moved to it; may be repeated.", metavar="CLASS"
        ),
    ] = None,
    uploads: Annotated[
        list[str] | None,
        typer.Option(
            "--upload", help="Remove this upload (`ocelli status -o yaml` lists them); may be repeated.", metavar="SHA256"
        ),
    ] = None,
    negatives: Annotated[bool, typer.Option("--negatives", help="Remove all negative examples.")] = False,
    wait: WaitOption = False,
) -> None:
    """Remove classes, uploads or negative examples, and retrain."""
    removal = Removal(classes=classes or (), uploads=uploads or (), negative_examples=negatives)
    if not (removal.classes or removal.uploads or negatives):
        raise UsageError("There is nothing to remove; give --class, --upload or --negatives")
    with session.connect() as ocelli:
        present = ocelli.get(ocelli.resolve(classifier).classifier_id)
        emptied = [
            item.class_name
            for item in present.classes
            if item.class_name not in removal.classes and all(source.upload in removal.uploads for source in item.sources)
        ]
        moved = Counter(item.class_name for item in present.corrections)
        parts = [
            f'class "{name}"' + (f" with {count(moved[name], 'image')} moved to it" if moved[name] else "")
            for name in (*removal.classes, *emptied)
        ]
        parts += [f"upload {sha[:12]}" for sha in removal.uploads] + (["the negative examples"] if negatives else [])
        session.check_confirmed(f"Remove {', '.join(parts)} from {present.name} and retrain?")
        finish_change(session, ocelli, ocelli.remove(present.classifier_id, removal), wait=wait)


def finish_change(session: Session, ocelli: Ocelli, details: Details, *, wait: bool) -> None:
    """Print the classifier, with `wait` once its training has ended."""
    print_outcome(session.output, wait_for_training(session, ocelli, details) if wait else details)


def print_outcome(output: Output, details: Details) -> None:
    """The classifier after a change."""
    output.print(
        Payload(document=dict(details.raw), names=[details.classifier_id], human=output.text(describe_outcome(details)))
    )


@dataclass(kw_only=True)
class _Reporter:
    """Shows an upload as a bar, and interruptions as warnings, which need no terminal."""

    session: Session
    bar: ProgressBar

    def report(self, transfer: Transfer) -> None:
        if transfer.state is TransferState.INTERRUPTED:
            self.session.output.warn(transfer.message)
        else:
            self.bar.update(transfer.done_bytes, transfer.total_bytes, f"uploading {transfer.title}")
        self.session.check_time(
            "The upload is not complete; repeat the command to resume it", pause_seconds=transfer.pause_seconds
        )
