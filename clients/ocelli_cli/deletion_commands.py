"""`ocelli delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from ocelli_cli.arguments import complete_classifiers
from ocelli_cli.command import command
from ocelli_cli.output import Payload
from ocelli_cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "delete", panel="Change")(delete)


def delete(
    session: Session,
    classifiers: Annotated[
        list[str],
        typer.Argument(
            metavar="CLASSIFIERS",
            help="Ids or names of the classifiers.",
            show_default=False,
            autocompletion=complete_classifiers,
        ),
    ],
) -> None:
    """Delete classifiers with all their images and revisions."""
    with session.connect() as ocelli:
        cards = [ocelli.resolve(name) for name in classifiers]
        titles = ", ".join(f"{card.name} ({card.classifier_id})" for card in cards)
        session.check_confirmed(f"Delete {titles} with all images and revisions?")
        for card in cards:
            ocelli.delete(card.classifier_id)
    ids = [card.classifier_id for card in cards]
    session.output.print(Payload(document={"deleted": ids}, names=ids, human=session.output.text(f"Deleted {titles}")))
