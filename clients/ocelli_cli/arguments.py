"""Arguments and options that several commands have, and how they are completed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ocelli_cli.output import Output, OutputFormat
from ocelli_cli.session import Session
from ocelli_client import OcelliError
from ocelli_client.api import LATEST, SERVED

COMPLETION_SECONDS = 2.0


def complete_classifiers(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Ids, and names that a shell need not quote. Without a gateway there is nothing to offer."""
    try:
        with _build_session(ctx).connect() as ocelli:
            cards = ocelli.list()
    except OcelliError:
        return
    names = [card.name for card in cards]
    for card in cards:
        if names.count(card.name) == 1 and card.name.isidentifier() and card.name.startswith(incomplete):
            yield card.name, card.status
        if card.classifier_id.startswith(incomplete):
            yield card.classifier_id, card.status


def complete_revisions(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The revisions of the classifier that was named before."""
    name = ctx.params.get("classifier")
    if not name:
        return
    try:
        with _build_session(ctx).connect() as ocelli:
            history = ocelli.get(ocelli.resolve(name).classifier_id).history
    except OcelliError:
        return
    for entry in history:
        if entry.revision.startswith(incomplete):
            yield entry.revision, entry.trained or ""


def _build_session(ctx: typer.Context) -> Session:
    return Session(
        output=Output(format=OutputFormat.NAME, quiet=True),
        context_name=ctx.params.get("context"),
        timeout_seconds=COMPLETION_SECONDS,
        environment=os.environ,
    )


REVISIONS = f"A revision of `ocelli history`, or `{SERVED}` or `{LATEST}`."
ClassifierArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLASSIFIER", help="Id or name of the classifier.", show_default=False, autocompletion=complete_classifiers
    ),
]
RevisionOption = Annotated[
    str,
    typer.Option(
        "--revision",
        help=REVISIONS,
        metavar="REV",
        autocompletion=complete_revisions,
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until the training has ended, and fail if it fails.")]
SuspendOption = Annotated[bool, typer.Option("--suspend", help="Only check the images; train them after `ocelli resume`.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the new classifier.", show_default=False)]
FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A folder that has a folder, or a zip, of images for each class.", show_default=False
    ),
]
NegativesOption = Annotated[
    Path | None,
    typer.Option("--negatives", metavar="FOLDER", help="A folder or zip with images of none of the classes; by default none."),
]
