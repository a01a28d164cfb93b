"""`ocelli list`."""

from __future__ import annotations

import typer
from rich.table import Table

from ocelli_cli.command import command
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_cli.wording import describe_accuracy, describe_status, describe_time
from ocelli_client import Card

PANEL = "Look"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "list", panel=PANEL)(list_classifiers)


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
            human=_build_table(cards) if cards else None,
        )
    )


def _build_table(cards: list[Card]) -> Table:
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
