"""Classifying any number of files: as few requests as the gateway's limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import is_zipfile

import httpx

from ocelli_client.api import V3_VERSION
from ocelli_client.calls import Call, Procedure, parse_document
from ocelli_client.errors import OcelliError, RefusedError
from ocelli_client.folders import shown_name
from ocelli_client.image_files import MEGABYTE
from ocelli_client.predictions import Classified, ImagePrediction, parse_predictions

IMAGES_LIMIT = 20
BYTES_LIMIT = 100 * MEGABYTE
_FAULTS_OF_IMAGES = ("input_error", "limit_exceeded")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about each image. Without classifiers the built-in `default` answers; without a threshold it is 0.5."""

    classifier_ids: Sequence[str] = ()
    threshold: float | None = None

    @classmethod
    def build(cls, classifier_ids: str | Sequence[str], threshold: float | None) -> Question:
        """The question about one classifier or several."""
        ids = (classifier_ids,) if isinstance(classifier_ids, str) else tuple(classifier_ids)
        return cls(classifier_ids=ids, threshold=threshold)


def classify(question: Question, files: Sequence[Path]) -> Procedure[Classified]:
    """The predictions of all files, in their order. A zip counts as its images."""
    images: list[ImagePrediction] = []
    warnings: dict[str, None] = {}
    for batch in _build_batches(files):
        answer = yield from _classify_batch(question, batch)
        found = answer.images
        if len(found) == len(batch) and not any(is_zipfile(path) for path in batch):
            found = tuple(replace(item, image=shown_name(str(path))) for item, path in zip(found, batch, strict=True))
        images.extend(found)
        warnings |= dict.fromkeys(answer.warnings)
    return Classified(images=tuple(images), warnings=tuple(warnings))


def _build_batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in files:
        try:
            alone, length = is_zipfile(path), path.stat().st_size
        except OSError as error:
            raise OcelliError(f"{path} cannot be read: {error.strerror or error}") from error
        if batch and (alone or len(batch) == IMAGES_LIMIT or size + length > BYTES_LIMIT):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += length
        if alone:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _classify_batch(question: Question, batch: Sequence[Path]) -> Call[Classified]:
    form = {}
    if question.classifier_ids:
        form["classifier_ids"] = ",".join(question.classifier_ids)
    if question.threshold is not None:
        form["threshold"] = repr(float(question.threshold))
    try:
        files = [("images_file", (shown_name(path.name), path.read_bytes())) for path in batch]
    except OSError as error:
        raise OcelliError(f"{error.filename} cannot be read: {error.strerror or error}") from error
    return Call(method="POST", path="/v3/classify", query=[V3_VERSION], form=form, files=files, parse=_parse)


def _parse(response: httpx.Response) -> Classified:
    try:
        return parse_predictions(parse_document(response))
    except RefusedError as error:
        # Where no image can be used, the answer is a refusal that names the fault of each.
        images = error.body.get("images", ())
        if not images or any(item.get("error", {}).get("error_id") not in _FAULTS_OF_IMAGES for item in images):
            raise
        return parse_predictions(error.body)
