"""`ocelli report` and `export`: what is read or written to a file."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from ocelli_cli.arguments import ClassifierArgument, RevisionOption
from ocelli_cli.command import command
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import OutputFormat, Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_cli.wording import describe_class, percent
from ocelli_client import LATEST, ExportFormat, OcelliError
from ocelli_client.texts import count

_SHOWN = 10
_STANDARD_OUTPUT = Path("-")


class FileWriteError(OcelliError):
    """A file cannot be written."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "report", panel="Look")(show_report)
    command(app, "export", panel="Use")(export)


def show_report(
    session: Session,
    classifier: ClassifierArgument,
    revision: RevisionOption = LATEST,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the newest report as HTML to this file.")
    ] = None,
) -> None:
    """Show what was found in the images.

    These are skipped files, duplicates, conflicts, suspected label errors, and images unlike every class.
    """
    with session.connect() as ocelli:
        classifier_id = ocelli.resolve(classifier).classifier_id
        document = ocelli.data(classifier_id, revision)
        if html is not None:
            _write(html, ocelli.report(classifier_id))
    names = [item["image"] for item in document.get("suspected_label_errors", ())]
    session.output.print(Payload(document=dict(document), names=names, human=_build_report(session, document)))
    if html is not None:
        session.output.note(f"{html} has the whole report")


def _build_report(session: Session, document: Mapping[str, Any]) -> Any:
    text = session.output.text
    table = build_table("class", ">images", ">skipped", ">duplicates")
    for one in document.get("sets", ()):
        table.add_row(
            *cells(describe_class(one["class"]), one["images"], one.get("skipped_count", 0), one.get("duplicates_count", 0))
        )
    parts: list[Any] = [table, text("")]
    counts = {
        "near_duplicates_count": ("near duplicate", None),
        "conflicts_count": ("conflict", None),
        "suspected_label_errors_count": ("suspected label error", None),
        "outliers_count": ("image unlike every class", "images unlike every class"),
        "small_images_count": ("image smaller than the network's input", "images smaller than the network's input"),
    }
    found = [count(document[key], *words) for key, words in counts.items() if document.get(key)]
    parts.append(text(f"Found: {', '.join(found)}; --html FILE shows them" if found else "Nothing suspicious was found"))
    errors = document.get("suspected_label_errors", ())
    if errors:
        suspects = build_table("image", "class", "likelier", ">probability")
        for item in errors[:_SHOWN]:
            share = percent(item["suggested_probability"]) if "suggested_probability" in item else "-"
            suspects.add_row(
                *cells(
                    item.get("name") or item["image"],
                    describe_class(item["class"]),
                    describe_class(item.get("suggested_class")),
                    share,
                )
            )
        parts += [text(""), suspects]
        if len(errors) > _SHOWN:
            parts.append(text(f"and {len(errors) - _SHOWN} more; -o json lists them"))
    return Group(*parts)


def export(
    session: Session,
    classifier: ClassifierArgument,
    export_format: Annotated[
        ExportFormat,
        typer.Option("--format", "-f", help="What to download: a Core ML or ONNX model, or the bill of materials."),
    ] = ExportFormat.ONNX,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Where to write it; `-` is standard output.",
            show_default="ID.onnx, ID.mlmodel or ID.cdx.json",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Download the served model, or its bill of materials."""
    if file == _STANDARD_OUTPUT and session.output.format is not OutputFormat.HUMAN:
        raise UsageError(f"--file - and -o {session.output.format} both want standard output; leave out one of them")
    with session.connect() as ocelli:
        classifier_id = ocelli.resolve(classifier).classifier_id
        path = file or Path(f"{classifier_id}{export_format.suffix}")
        if path.exists() and not force and path != _STANDARD_OUTPUT:
            raise UsageError(f"{path} exists; give another --file, or --force to overwrite it")
        content = ocelli.export(classifier_id, export_format)
    if path == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(content)
        return
    _write(path, content)
    document = {"classifier_id": classifier_id, "format": export_format.value, "file": str(path), "bytes": len(content)}
    message = f"{path} ({count(len(content), 'byte')})"
    session.output.print(Payload(document=document, names=[str(path)], human=session.output.text(message)))


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole: an interrupted run leaves no half of it."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise FileWriteError(f"{path} cannot be written: {error.strerror or error}") from error
