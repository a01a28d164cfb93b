"""`ocelli manifest`: a classifier as YAML to commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ocelli_cli.arguments import NegativesOption, complete_classifiers
from ocelli_cli.command import command
from ocelli_cli.example_check import check_examples, read_examples
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Payload
from ocelli_cli.session import Session
from ocelli_client import AnswerError
from ocelli_client.manifests import object_name, write_manifest
from ocelli_client.texts import count

FILE_PREFIX = "file:///"
DEFAULT_FOLDER = Path("ocelli-examples")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "manifest", panel="Build")(manifest)


def manifest(
    session: Session,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="A folder that has a folder, or a zip, of images for each class."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CLASSIFIER",
            help="Print the manifest of this classifier, instead of one of a folder.",
            autocompletion=complete_classifiers,
        ),
    ] = None,
    negatives: NegativesOption = None,
    url_prefix: Annotated[
        str,
        typer.Option(
            "--url-prefix", metavar="URL", help="Where you will store the zips: an address of https, s3, gs, az or file."
        ),
    ] = FILE_PREFIX,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder that the zips are written to.")
    ] = DEFAULT_FOLDER,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The name of the object; by default made from the name of the folder."),
    ] = None,
) -> None:
    """Print a classifier as YAML to commit.

    Writes the images of a folder into zips, which the manifest names by their digests. The
    same images give the same zips on every machine.

    Example: ocelli manifest photos --url-prefix s3://bucket/dogs > dogs.yaml
    """
    if (folder is None) == (source is None):
        raise UsageError("Give either a FOLDER, or --from CLASSIFIER")
    if source is not None:
        _print_existing(session, source)
        return
    assert folder is not None
    examples = read_examples(session, folder, negatives)
    check_examples(session, examples, examples.problems())
    written = write_manifest(name or object_name(folder.resolve().name), examples, url_prefix, out)
    where = "the installation's folder of file sources" if url_prefix == FILE_PREFIX else url_prefix
    session.output.note(
        f"{count(len(written.zips), 'zip')} in {out}; copy all of them to {where} before you apply the manifest"
    )
    _print(session, written.document)


def _print_existing(session: Session, name: str) -> None:
    with session.connect() as ocelli:
        details = ocelli.get(ocelli.resolve(name).classifier_id)
    text = details.raw.get("manifest")
    document = yaml.safe_load(text) if isinstance(text, str) else None
    if not isinstance(document, dict):
        raise AnswerError(f"The gateway did not send a manifest of {details.name}; its version may be too old")
    _print(session, document)


def _print(session: Session, document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    names = [document["metadata"]["name"]]
    session.output.print(Payload(document=document, names=names, human=session.output.text(text.rstrip("\n"))))
