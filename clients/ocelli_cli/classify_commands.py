"""`ocelli classify` and `evaluate`: the predictions for images on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from ocelli_cli.arguments import NegativesOption, complete_classifiers
from ocelli_cli.command import command
from ocelli_cli.example_check import read_examples
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_cli.wording import describe_accuracy, describe_class, percent
from ocelli_client import Accuracy, Details, Examples, ImagePrediction, Ocelli, OcelliError
from ocelli_client.classification import IMAGES_LIMIT
from ocelli_client.evaluation import Answer, Evaluation, evaluate
from ocelli_client.folders import find_files, shown_name
from ocelli_client.texts import count

PANEL = "Use"
BUILT_INS = ("default", "food", "explicit")


class UnusableImagesError(OcelliError):
    """Images that could not be classified."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "classify", panel=PANEL)(classify)
    command(app, "evaluate", panel=PANEL)(evaluate_folder)


def classify(
    session: Session,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Images, zips of at most 20, or folders.", show_default=False)
    ],
    classifiers: Annotated[
        list[str] | None,
        typer.Option(
            "--classifier",
            "-c",
            metavar="CLASSIFIER",
            help="Id or name of a classifier; may be repeated. By default the built-in `default` answers.",
            autocompletion=complete_classifiers,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="The lowest score to show, from 0 to 1; 0 shows all classes.", show_default="0.5", min=0, max=1),
    ] = None,
) -> None:
    """Classify images; scores are printed as the gateway sent them.

    Exits with 1 if an image cannot be classified; the others are printed.

    Example: ocelli classify terrier.jpg -c dogs
    """
    paths = _find_paths(files)
    with session.connect() as ocelli:
        ids = [name if name in BUILT_INS else ocelli.resolve(name).classifier_id for name in classifiers or ()]
        images: list[ImagePrediction] = []
        with session.output.progress("classifying") as bar:
            for start in range(0, len(paths), IMAGES_LIMIT):
                answer = ocelli.classify(ids, paths[start : start + IMAGES_LIMIT], threshold)
                images += answer.images
                for warning in answer.warnings:
                    session.output.warn(warning)
                bar.update(len(images), len(paths), "classifying")
                session.check_time(f"{len(images)} of {count(len(paths), 'image')} are classified")
    document = {"images": [{**image.raw, "image": image.image} for image in images]}
    session.output.print(
        Payload(
            document=document,
            names=[f"{image.image}\t{image.best.class_name if image.best else ''}" for image in images],
            human=_build_scores(images),
        )
    )
    failed = [image for image in images if image.error is not None]
    if failed:
        raise UnusableImagesError("\n".join(f"{image.image}: {image.error}" for image in failed))


def _find_paths(files: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for file in files:
        if file.is_dir():
            paths += [location.path for location in find_files([file]) if location.entry is None]
        elif file.exists():
            paths.append(file)
        else:
            raise UsageError(f"{file} does not exist; give images, zips or folders")
    if not paths:
        raise UsageError("There is no image in the folders; give images, zips or folders with images")
    return paths


def _build_scores(images: Sequence[ImagePrediction]) -> Any:
    table = build_table("image", "classifier", "class", "score")
    for image in images:
        if image.error is not None:
            table.add_row(*cells(image.image, "", f"({image.error})", ""))
        for answer in image.classifiers:
            for index, one in enumerate(answer.classes):
                first = (image.image, answer.name) if index == 0 else ("", "")
                # repr is the shortest text of this number, which is what JSON has.
                table.add_row(*cells(*first, one.class_name, repr(one.score)))
            if not answer.classes:
                table.add_row(*cells(image.image, answer.name, "(no class reaches the threshold)", ""))
    return table


def evaluate_folder(
    session: Session,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder that has a folder of images for each class.", show_default=False)
    ],
    classifier: Annotated[
        str,
        typer.Option(
            "--classifier",
            "-c",
            metavar="CLASSIFIER",
            help="Id or name of the classifier.",
            autocompletion=complete_classifiers,
        ),
    ],
    negatives: NegativesOption = None,
    limit: Annotated[int, typer.Option(help="The most wrong images to list.", min=0)] = 20,
) -> None:
    """Measure the accuracy on images of your own.

    Use images that the classifier has not learned from.

    The accuracy is balanced: the share of right images of each class, and then the mean. An image is right if its class
    has the highest score. Precision, recall and F1 count scores of at least 0.5.

    Example: ocelli evaluate held-out -c dogs
    """
    examples = read_examples(session, folder, negatives)
    for file in examples.unusable:
        session.output.warn(f"{file.name} {file.reason}; it is left out")
    with session.connect() as ocelli:
        details = ocelli.get(ocelli.resolve(classifier).classifier_id)
        images = _list_images(examples, details)
        answers = _ask(session, ocelli, details, images)
    has_negatives = bool(details.negative_sources) or bool(examples.negatives)
    names = [one.class_name for one in details.classes]
    found = evaluate(answers, [name for name in names if name in examples.classes], has_negatives=has_negatives)
    document = {"classifier_id": details.classifier_id, "revision": details.served_revision, **found.to_json()}
    session.output.print(
        Payload(
            document=document, names=[one.image for one in found.wrong], human=_build_quality(session, details, found, limit)
        )
    )


def _list_images(examples: Examples, details: Details) -> list[tuple[Path, str | None]]:
    known = [one.class_name for one in details.classes]
    strangers = [name for name in examples.classes if name not in known]
    if strangers:
        raise UsageError(
            f"Classifier {details.name} has no class {', '.join(strangers)}; its classes are {', '.join(known)}: "
            "name the folders like them"
        )
    images = []
    for one in examples.sets:
        for image in (*one.images, *one.duplicates):
            if image.location.entry is not None:
                raise UsageError(f"{image.location.path} is a zip; unpack it into a folder to evaluate its images")
            images.append((image.location.path, one.class_name))
    if not images:
        raise UsageError("There is no image in the folders of the classes")
    return images


def _ask(session: Session, ocelli: Ocelli, details: Details, images: Sequence[tuple[Path, str | None]]) -> list[Answer]:
    answers: list[Answer] = []
    done = 0
    with session.output.progress("classifying") as bar:
        for start in range(0, len(images), IMAGES_LIMIT):
            batch = images[start : start + IMAGES_LIMIT]
            found = ocelli.classify(details.classifier_id, [path for path, _ in batch], threshold=0)
            for (path, actual), prediction in zip(batch, found.images, strict=True):
                if prediction.error is not None:
                    session.output.warn(f"{path}: {prediction.error}; it is left out")
                    continue
                scores = {one.class_name: one.score for one in prediction.classifiers[0].classes}
                answers.append(Answer(image=shown_name(str(path)), actual=actual, scores=scores))
            done += len(batch)
            bar.update(done, len(images), "classifying")
            session.check_time(f"{done} of {count(len(images), 'image')} are classified")
    if not answers:
        raise UnusableImagesError("None of the images could be classified")
    return answers


def _build_quality(session: Session, details: Details, found: Evaluation, limit: int) -> Any:
    accuracy = Accuracy(value=found.accuracy, lower=found.lower, upper=found.upper, images=found.images)
    text = session.output.text
    parts: list[Any] = [
        text(f"Accuracy {describe_accuracy(accuracy)} of {details.name}, served revision {details.served_revision}"),
        text(""),
    ]
    table = build_table("class", ">images", ">precision", ">recall", ">f1")
    for one in found.classes:
        table.add_row(*cells(one.class_name, one.images, percent(one.precision), percent(one.recall), percent(one.f1)))
    parts += [
        table,
        text(""),
        text("The accuracy counts the class with the highest score; the table counts scores of at least 0.5"),
    ]
    if found.wrong and limit:
        wrong = build_table("wrong image", "actual", "predicted", "score")
        for item in found.wrong[:limit]:
            wrong.add_row(*cells(item.image, describe_class(item.actual), describe_class(item.predicted), repr(item.score)))
        parts += [text(""), wrong]
        if len(found.wrong) > limit:
            parts.append(text(f"and {len(found.wrong) - limit} more; --limit shows them"))
    return Group(*parts)
