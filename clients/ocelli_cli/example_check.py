"""What is known of examples before anything is sent: counts, unusable files, duplicates, problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_client import Examples, ExampleSet, OcelliError, read_class, read_folder
from ocelli_client.texts import count

_SHOWN = 5


class RefusedExamplesError(OcelliError):
    """The gateway would refuse these examples."""


def read_examples(session: Session, folder: Path | None, negatives: Path | None) -> Examples:
    """Read and decode all images, with a bar on a terminal."""
    with session.output.progress("reading images") as bar:

        def report(done: int, total: int) -> None:
            bar.update(done, total, "reading images")

        if folder is None:
            return Examples((read_class(None, [negatives] if negatives else [], report),))
        return read_folder(folder, negatives=negatives, on_progress=report)


def check_examples(session: Session, examples: Examples, problems: Sequence[str]) -> None:
    """Say what a person should know.

    Raises:
        RefusedExamplesError: there are problems.
    """
    output = session.output
    for notice in examples.notices:
        output.warn(notice)
    for file in examples.unusable[:_SHOWN]:
        output.warn(f"{file.name} {file.reason}; it is left out")
    if len(examples.unusable) > _SHOWN:
        output.warn(
            f"{len(examples.unusable) - _SHOWN} more files cannot be used and are left out; --dry-run -o json lists them"
        )
    if examples.duplicates:
        output.warn(f"{count(len(examples.duplicates), 'duplicate')} (files with the same content) are sent once")
    for conflict in examples.conflicts[:_SHOWN]:
        output.warn(f"{conflict}; at most one class can be right")
    if len(examples.conflicts) > _SHOWN:
        output.warn(f"{len(examples.conflicts) - _SHOWN} more images are in several classes; --dry-run -o json lists them")
    if problems:
        raise RefusedExamplesError("These images are not enough:\n" + "\n".join(f"- {problem}" for problem in problems))


def build_check_payload(name: str, examples: Examples, problems: Sequence[str]) -> Payload:
    """The result of `--dry-run`."""
    table = build_table("class", ">images", ">unusable", ">duplicates", ">megabytes")
    for one in examples.sets:
        megabytes = sum(image.size_bytes for image in one.images) / 1024**2
        title = "(negative examples)" if one.class_name is None else one.class_name
        table.add_row(*cells(title, len(one.images), len(one.unusable), len(one.duplicates), f"{megabytes:.1f}"))
    document: dict[str, Any] = {
        "name": name,
        "sets": [_describe_set(one) for one in examples.sets],
        "conflicts": [
            [{"class": class_name, "image": image.name} for class_name, image in conflict.images]
            for conflict in examples.conflicts
        ],
        "notices": list(examples.notices),
        "problems": list(problems),
    }
    titles = [one.class_name for one in examples.sets if one.class_name is not None]
    return Payload(document=document, names=titles, human=table)


def _describe_set(one: ExampleSet) -> dict[str, Any]:
    return {
        "class": one.class_name,
        "images": len(one.images),
        "bytes": sum(image.size_bytes for image in one.images),
        "unusable": [{"name": file.name, "reason": file.reason} for file in one.unusable],
        "duplicates": [image.name for image in one.duplicates],
    }
