"""`ocelli relabel`: another class for single images, without touching their sources."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from ocelli_cli.arguments import ClassifierArgument, WaitOption
from ocelli_cli.command import command
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Payload
from ocelli_cli.session import Session
from ocelli_cli.training_wait import wait_for_training
from ocelli_client import Correction

_DIGEST = re.compile(r"[0-9a-f]{64}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "relabel", panel="Build")(relabel)


def relabel(
    session: Session,
    classifier: ClassifierArgument,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Image files, or the SHA-256 of their bytes.", show_default=False),
    ],
    to: Annotated[str | None, typer.Option("--to", help="Move the images to this class.", metavar="CLASS")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Train without these images.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo earlier corrections of these images.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the effect and the YAML to commit; change nothing.")
    ] = False,
    wait: WaitOption = False,
) -> None:
    """Move single images to another class, or drop them, and retrain.

    Only the corrections change: sources and their digests stay as they are.

    Example: ocelli relabel dogs photos/husky/7.jpg --to beagle
    """
    if sum((to is not None, drop, undo)) != 1:
        raise UsageError("Say what to do with the images: --to CLASS, --drop or --undo")
    class_name = None if undo else "" if drop else to
    corrections = [Correction(image=_find_digest(image), class_name=class_name) for image in images]
    with session.connect() as ocelli:
        card = ocelli.resolve(classifier)
        answer = ocelli.correct(card.classifier_id, corrections, dry_run=True)
        if not dry_run:
            # One of a manifest is refused with the YAML to commit: there is nothing to ask.
            if card.writable:
                session.check_confirmed(f"{answer['effect']} Go on?")
            answer = ocelli.correct(card.classifier_id, corrections)
            if wait and answer["changed"]:
                wait_for_training(session, ocelli, ocelli.get(card.classifier_id))
    text = session.output.text
    shown = [text(answer["effect"])]
    if dry_run:
        shown += [text(""), text(answer["manifest"])]
    session.output.print(Payload(document=dict(answer), names=[card.classifier_id], human=Group(*shown)))


def _find_digest(image: str) -> str:
    if _DIGEST.fullmatch(image):
        return image
    try:
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{image} is neither a SHA-256 nor a file that can be read ({error.strerror})") from error
