"""The reports that trainings and checks store, as far as people see them through the API.

Pods of tenants can write them, so sizes are bounded, and only known fields of the right type are taken. It must not know the
store or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ocelli_api.digests import is_digest
from ocelli_api.outcome import EvaluationProtocol
from ocelli_gateway.wire import wire_time
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.documents import parse_document

LIMIT_BYTES = 32 * MEGABYTE
"""50,000 images of which a third are misclassified take 5 MB."""
VALUES_LIMIT = 600_000
"""Values in a document. Each takes about a hundred bytes of memory, however few it has in the file."""
_ENTRIES_LIMIT = 1000
"""In a list of an answer; a count has the total."""
_NAME_LIMIT_CHARACTERS = 1024
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError)

Document = Mapping[str, Any]


class StoredReportError(Exception):
    """A stored report cannot be used."""


@dataclass(frozen=True, kw_only=True)
class ReportedEvaluation:
    """What a report says about the quality of a revision."""

    protocol: EvaluationProtocol
    images: int
    accuracy: float
    interval: tuple[float, float]
    calibration_error: float
    excluded_images: int | None
    """None: it has no own test set."""


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """A report of a training, or of a check, which has no evaluation."""

    written_at: str | None
    """When it was trained or checked, in the form of the API."""
    evaluation: ReportedEvaluation | None
    data: Document
    """What was found in the images, in the form of the API. Empty for pretrained classifiers."""
    faults: Document
    """What was wrong with the data; empty for trainings."""
    names: Mapping[str, str]
    """By digest, the names of images that the report lists."""


def parse_report(content: bytes) -> StoredReport:
    """The report of a training or a check.

    Raises:
        StoredReportError: it is not one, or has too many values.
    """
    # Each value of JSON but the first follows a comma or the start of an array or object.
    if sum(map(content.count, (b",", b"[", b"{"))) > VALUES_LIMIT:
        raise StoredReportError("it has too many values")
    try:
        document = parse_document(content)
        data, found = document.get("data"), document.get("evaluation")
        written_at = document.get("trainedAt", document.get("checkedAt"))
        return StoredReport(
            written_at=None if written_at is None else _time(written_at),
            evaluation=None if found is None else _parse_evaluation(found),
            data={} if data is None else _parse_data(data),
            faults=_parse_faults(document) if "faultsCount" in document else {},
            names=dict(_find_names(data or {}, found or {})),
        )
    except _DAMAGED as error:
        raise StoredReportError("it is not a report") from error


def _parse_evaluation(found: Document) -> ReportedEvaluation | None:
    if "accuracyInterval" not in found:
        # An earlier release wrote it: the accuracy was another one.
        return None
    lower, upper = found["accuracyInterval"]
    return ReportedEvaluation(
        protocol=EvaluationProtocol(found["protocol"]),
        images=_count(found["images"]),
        accuracy=_share(found["accuracy"]),
        interval=(_share(lower), _share(upper)),
        calibration_error=_share(found["calibrationError"]),
        excluded_images=_count(found["excludedImages"]) if "excludedImages" in found else None,
    )


def _parse_data(data: Document) -> Document:
    return {
        "images": _count(data["images"]),
        "sets": _entries(data["sets"], _parse_set),
        **_counted(data, "nearDuplicates", "near_duplicates", _parse_near_duplicate),
        **_counted(data, "conflicts", "conflicts", _parse_conflict),
        **_counted(data, "suspectedLabelErrors", "suspected_label_errors", _parse_suspect),
        **_counted(data, "outliers", "outliers", _parse_image),
        **_counted(data, "smallImages", "small_images", _parse_small_image),
        "corrections": _parse_corrections(data["corrections"]),
    }


def _counted(data: Document, key: str, name: str, parse: Callable[[Any], Document]) -> dict[str, Any]:
    """A list and its total; nothing where nothing was looked for."""
    total = data[f"{key}Count"]
    return {} if total is None else {f"{name}_count": _count(total), name: _entries(data[key], parse)}


def _parse_set(item: Document) -> Document:
    return {
        **_class_of(item),
        "images": _count(item["distinct"]),
        "files": _count(item["files"]),
        "duplicates_count": _count(item["duplicates"]),
        "skipped_count": _count(item["skippedCount"]),
        "skipped": _entries(item["skipped"], _parse_skipped),
        "given_away_count": _count(item["givenAwayCount"]),
        "given_away": _entries(item["givenAway"], _parse_skipped),
    }


def _parse_skipped(item: Document) -> Document:
    digest = {"image": _digest(item["sha256"])} if "sha256" in item else {}
    return {**digest, "name": f"{_text(item['source'])} › {_text(item['name'])}", "reason": _text(item["reason"])}


def _parse_near_duplicate(item: Document) -> Document:
    return {
        "image": _digest(item["sha256"]),
        "name": _text(item["image"]),
        "oldest": _digest(item["oldestSHA256"]),
        "oldest_name": _text(item["oldest"]),
    }


def _parse_conflict(item: Document) -> Document:
    other = item["nearDuplicateClass"]
    return {
        **_parse_image(item),
        "near_duplicate": _digest(item["nearDuplicateSHA256"]),
        "near_duplicate_name": _text(item["nearDuplicate"]),
        "near_duplicate_class": None if other is None else _text(other),
    }


def _parse_suspect(item: Document) -> Document:
    suggested = item["suggestedClass"]
    return {
        **_parse_image(item),
        "probability": _share(item["probability"]),
        "suggested_class": None if suggested is None else _text(suggested),
        "suggested_probability": _share(item["suggestedProbability"]),
    }


def _parse_small_image(item: Document) -> Document:
    return {**_parse_image(item), "sides": [_count(side) for side in item["sides"][:2]]}


def _parse_image(item: Document) -> Document:
    return {"image": _digest(item["sha256"]), "name": _text(item["image"]), **_class_of(item)}


def _class_of(item: Document) -> dict[str, str | None]:
    """The class of an image or a set; None: negative examples."""
    name = item["class"]
    return {"class": None if name is None else _text(name)}


def _parse_corrections(item: Document) -> Document:
    return {
        **{name: _count(item[name]) for name in ("relabelled", "dropped", "unchanged")},
        "unknown_count": _count(item["unknownCount"]),
    }


def _parse_faults(document: Document) -> Document:
    return {
        "faults_count": _count(document["faultsCount"]),
        "faults": [_text(fault) for fault in document["faults"][:_ENTRIES_LIMIT]],
    }


def _find_names(data: Document, evaluation: Document) -> Iterator[tuple[str, str]]:
    """Digests and names in all lists of a report. Those that are not usable are left out: a name is only an aid."""
    lists = [data.get(key) for key in ("nearDuplicates", "conflicts", "suspectedLabelErrors", "outliers", "smallImages")]
    for item in (item for entries in (*lists, evaluation.get("misclassified")) for item in entries or ()):
        for name_key, digest_key in (("image", "sha256"), ("oldest", "oldestSHA256"), ("nearDuplicate", "nearDuplicateSHA256")):
            if digest_key in item:
                yield _digest(item[digest_key]), _text(item[name_key])


def _entries(items: Any, parse: Callable[[Any], Document]) -> list[Document]:
    if not isinstance(items, list):
        raise TypeError("a list is missing")
    return [parse(item) for item in items[:_ENTRIES_LIMIT]]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    # JSON allows lone surrogates, which cannot be sent.
    return value[:_NAME_LIMIT_CHARACTERS].encode("utf-8", "replace").decode()


def _digest(value: Any) -> str:
    if not is_digest(value):
        raise ValueError("a digest is missing")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("a count is missing")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a share is missing")
    return float(value)


def _time(value: Any) -> str:
    moment = _text(value)
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ValueError("a time has no zone")
    return wire_time(moment)
