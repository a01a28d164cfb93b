"""`ocelli list`, `status` and `history`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from ocelli_cli.arguments import ClassifierArgument
from ocelli_cli.command import command
from ocelli_cli.output import OutputFormat, Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_cli.training_wait import check_trained
from ocelli_cli.wording import describe_accuracy, describe_status, describe_time
from ocelli_client import Card, Details, Revision, Wait
from ocelli_client.texts import count

PANEL = "Look"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "list", panel=PANEL)(list_classifiers)
    command(app, "status", panel=PANEL)(show_status)
    command(app, "history", panel=PANEL)(show_history)


def list_classifiers(session: Session) -> None:
    """List the classifiers, newest activity first."""
    with session.connect() as ocelli:
        cards = sorted(ocelli.list(), key=lambda card: card.updated or card.created or "", reverse=True)
    if not cards:
        session.output.note("There are no classifiers; create one: ocelli create NAME FOLDER")
    session.output.print(
        Payload(
            document={"classifiers": [card.raw for card in cards]},
            names=[card.classifier_id for card in cards],
            human=_build_list(cards) if cards else None,
        )
    )


def show_status(
    session: Session,
    classifier: ClassifierArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Print each change until the training has ended; fail if it fails."),
    ] = False,
) -> None:
    """Show a classifier: status, progress, accuracy.

    With --watch and -o json, each change is one line of JSON.

    Example: ocelli status dogs -w
    """
    with session.connect() as ocelli:
        card = ocelli.resolve(classifier)
        if not watch:
            details = ocelli.get(card.classifier_id)
            session.output.print(_build_payload(details))
            return
        watched = Wait(
            timeout_seconds=session.find_remaining_seconds(),
            on_change=_Changes(session).show,
            on_interruption=session.output.warn,
        )
        check_trained(ocelli.wait(card.classifier_id, watched))


def show_history(session: Session, classifier: ClassifierArgument) -> None:
    """List the revisions of a classifier, newest first."""
    with session.connect() as ocelli:
        details = ocelli.get(ocelli.resolve(classifier).classifier_id)
    if not details.history:
        session.output.note(f"Classifier {details.name} has no trained revision yet")
    table = build_table("revision", "trained", "accuracy", "remarks")
    for entry in details.history:
        table.add_row(*cells(entry.revision, describe_time(entry.trained), describe_accuracy(entry.accuracy), _remark(entry)))
    session.output.print(
        Payload(
            document={"history": list(details.raw.get("history", []))},
            names=[entry.revision for entry in details.history],
            human=table if details.history else None,
        )
    )


def _remark(entry: Revision) -> str:
    marks = {
        "served": entry.served,
        "current": entry.current,
        "pinned": entry.pinned,
        "its artifact is deleted": not entry.stored,
    }
    return ", ".join(text for text, holds in marks.items() if holds)


def _build_list(cards: Sequence[Card]) -> Table:
    table = build_table("name", "id", "status", "accuracy", ">classes", "updated", "managed by")
    for card in cards:
        table.add_row(
            *cells(
                card.name,
                card.classifier_id,
                describe_status(card),
                describe_accuracy(card.accuracy),
                card.class_count,
                describe_time(card.updated or card.created),
                card.managed_by,
            )
        )
    return table


def _build_payload(details: Details) -> Payload:
    return Payload(document=dict(details.raw), names=[details.classifier_id], human=_build_facts(details))


def _build_facts(details: Details) -> Table:
    facts = {
        "Name": details.name,
        "Id": details.classifier_id,
        "Status": describe_status(details),
        "Why": details.explanation,
        "Accuracy": None if details.accuracy is None else describe_accuracy(details.accuracy),
        "Classes": ", ".join(one.class_name for one in details.classes) or None,
        "Negative examples": "yes" if details.negative_sources else "no",
        "Threshold": details.threshold,
        "Backbone": details.backbone,
        "Served revision": details.served_revision,
        "Current revision": details.current_revision,
        "Pinned revision": details.pinned_revision,
        "Corrections": len(details.corrections) or None,
        "Managed by": details.managed_by if details.writable else f"{details.managed_by or 'a manifest'} (read-only here)",
        "Resource": details.resource,
        "Endpoint": details.endpoint,
        "Created": details.created,
        "Updated": details.updated,
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(*cells(f"{name}:", value))
    return table


class _Changes:
    """Prints each state of a classifier as a line."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._last = ""

    def show(self, details: Details) -> None:
        match self._output.format:
            case OutputFormat.JSON:
                line = json.dumps(details.raw, ensure_ascii=False)
            case OutputFormat.YAML:
                self._output.print(Payload(document=[dict(details.raw)], names=()))
                return
            case OutputFormat.NAME:
                line = details.classifier_id
            case _:
                line = f"{details.name}: {_describe_change(details)}"
        if line != self._last:
            self._last = line
            self._output.print_line(line)


def _describe_change(details: Details) -> str:
    parts = [describe_status(details)]
    progress = details.progress
    if progress is not None and progress.images is not None and progress.images_total is not None:
        parts.append(f"{progress.images:,} of {count(progress.images_total, 'image')}")
    if details.status == "ready" and details.accuracy is not None:
        parts.append(f"accuracy {describe_accuracy(details.accuracy)}")
    if details.explanation:
        parts.append(details.explanation)
    return ", ".join(parts)
