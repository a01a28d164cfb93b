"""`ocelli rollback`, `diff`, `approve`, `retrain`, `suspend` and `resume`: which revision serves, and which is trained."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group

from ocelli_cli.arguments import REVISIONS, ClassifierArgument, WaitOption, complete_revisions
from ocelli_cli.command import command
from ocelli_cli.creation_commands import finish_change, print_outcome
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_cli.training_wait import wait_until
from ocelli_cli.wording import describe_class, percent
from ocelli_client import Card, Details, OcelliError
from ocelli_client.texts import count

LOOK = "Look"
PANEL = "Change"


class RollbackError(OcelliError):
    """There is no revision to go back to."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "diff", panel=LOOK)(compare)
    command(app, "rollback", panel=PANEL)(roll_back)
    command(app, "approve", panel=PANEL)(approve)
    command(app, "retrain", panel=PANEL)(retrain)
    command(app, "suspend", panel=PANEL)(suspend)
    command(app, "resume", panel=PANEL)(resume)


def roll_back(
    session: Session,
    classifier: ClassifierArgument,
    revision: Annotated[
        str | None,
        typer.Argument(
            metavar="REV",
            help="The revision to serve; by default the one before the served one.",
            autocompletion=complete_revisions,
        ),
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="Undo: serve the newest revision, and each later one.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the revision serves.")] = False,
) -> None:
    """Serve an earlier revision.

    It is pinned: later trainings do not replace it until `ocelli rollback CLASSIFIER --latest`.
    """
    if latest and revision is not None:
        raise UsageError("REV and --latest contradict each other; give one of them")
    with session.connect() as ocelli:
        details = ocelli.get(ocelli.resolve(classifier).classifier_id)
        if latest:
            changed = ocelli.unpin(details.classifier_id)
            target = changed.current_revision
        else:
            target = revision or _find_earlier(details)
            session.check_confirmed(f"Serve revision {target} of {details.name}?")
            changed = ocelli.pin(details.classifier_id, target)

        def serves(card: Card) -> bool:
            return card.served_revision == target or card.status == "failed"

        if wait:
            changed = wait_until(session, ocelli, details.classifier_id, serves)
            if changed.served_revision != target:
                raise RollbackError(f"Revision {target} of {details.name} does not serve: {changed.explanation or 'it failed'}")
    verb = "serves" if changed.served_revision == target else "will serve"
    message = f"Revision {target} of {changed.name} ({changed.classifier_id}) {verb}"
    session.output.print(Payload(document=dict(changed.raw), names=[changed.classifier_id], human=session.output.text(message)))


def _find_earlier(details: Details) -> str:
    revisions = [entry.revision for entry in details.history]
    # The history has the newest first.
    after = revisions.index(details.served_revision) + 1 if details.served_revision in revisions else 0
    for entry in details.history[after:]:
        if entry.stored:
            return entry.revision
    raise RollbackError(
        f"Classifier {details.name} has no earlier revision that is stored; see `ocelli history {details.classifier_id}`"
    )


def approve(
    session: Session,
    classifier: ClassifierArgument,
    revision: Annotated[
        str,
        typer.Argument(metavar="REV", help="The revision that waits.", show_default=False, autocompletion=complete_revisions),
    ],
    wait: WaitOption = False,
) -> None:
    """Approve a revision that waits for approval, so that it serves."""
    with session.connect() as ocelli:
        changed = ocelli.approve(ocelli.resolve(classifier).classifier_id, revision)
        finish_change(session, ocelli, changed, wait=wait)


def retrain(session: Session, classifier: ClassifierArgument, wait: WaitOption = False) -> None:
    """Train again from the same images.

    This repeats a training that has failed, and reads sources again that may have changed.
    """
    with session.connect() as ocelli:
        finish_change(session, ocelli, ocelli.retrain(ocelli.resolve(classifier).classifier_id), wait=wait)


def suspend(session: Session, classifier: ClassifierArgument) -> None:
    """Pause trainings until `ocelli resume`; new images are only checked."""
    with session.connect() as ocelli:
        print_outcome(session.output, ocelli.suspend(ocelli.resolve(classifier).classifier_id))


def resume(session: Session, classifier: ClassifierArgument, wait: WaitOption = False) -> None:
    """Resume trainings after `ocelli suspend`."""
    with session.connect() as ocelli:
        finish_change(session, ocelli, ocelli.resume(ocelli.resolve(classifier).classifier_id), wait=wait)


def compare(
    session: Session,
    classifier: ClassifierArgument,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help=f"The revision before. {REVISIONS}", show_default=False, autocompletion=complete_revisions
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(metavar="NEW", help="The revision after.", show_default=False, autocompletion=complete_revisions),
    ],
    limit: Annotated[int, typer.Option(help="The most images to list as better, and as worse.", min=0)] = 20,
) -> None:
    """Compare two revisions, image by image.

    Shows what NEW does better and worse than OLD. Each image is judged by heads that did not learn from it.

    Example: ocelli diff dogs served latest
    """
    with session.connect() as ocelli:
        document = ocelli.compare(ocelli.resolve(classifier).classifier_id, new, old)
    # The answer names revisions, also where the question said `served` or `latest`.
    table = build_table("change", "image", "actual", "before", "after")
    for kind in ("worse", "better"):
        for item in document.get(kind, ())[:limit]:
            predicted = _read_pair(item["predicted"], old, new)
            table.add_row(
                *cells(kind, item.get("name") or item["image"], describe_class(item["actual"]), *map(describe_class, predicted))
            )
    summary = [
        f"{count(document['images'], 'image')} judged in both: "
        f"{document['better_count']} better, {document['worse_count']} worse"
    ]
    if accuracies := document.get("accuracy"):
        before, after = map(percent, _read_pair(accuracies, old, new))
        summary.append(f"Accuracy {before} in {old}, {after} in {new}")
    shown = [session.output.text(line) for line in summary]
    rows: list[Any] = [table] if table.row_count else []
    names = [item["image"] for kind in ("worse", "better") for item in document.get(kind, ())]
    session.output.print(Payload(document=dict(document), names=names, human=Group(*shown, *rows)))


def _read_pair(values: dict[str, Any], old: str, new: str) -> tuple[Any, Any]:
    """The values of both revisions. The answer has the new one first where names do not decide."""
    listed = list(values.values())
    return values.get(old, listed[-1]), values.get(new, listed[0])
