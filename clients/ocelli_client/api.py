"""Every request to the gateway, described once: `/ocelli/v1` and the operations of v3 that have no newer form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import httpx

from ocelli_client.calls import DOWNLOAD_BYTES_LIMIT, Call, Content, parse_bytes, parse_document, parse_nothing
from ocelli_client.cards import Card, Correction, Details, Document, parse_corrections

CLASSIFIERS = "/ocelli/v1/classifiers"
UPLOADS = "/ocelli/v1/uploads"
EVENTS = "/ocelli/v1/events"
V3_VERSION = ("version", "2018-03-19")
SERVED = "served"
"""The revision that answers, wherever a revision is asked for."""
LATEST = "latest"
"""The revision of the current definition, trained or not."""


class ExportFormat(StrEnum):
    """What can be downloaded of a trained classifier."""

    CORE_ML = "coreml"
    ONNX = "onnx"
    BILL_OF_MATERIALS = "bom"

    @property
    def path(self) -> str:
        """The end of its address."""
        return {"coreml": "core_ml_model", "onnx": "onnx_model", "bom": "bom"}[self.value]

    @property
    def suffix(self) -> str:
        """The end of its file name."""
        return {"coreml": ".mlmodel", "onnx": ".onnx", "bom": ".cdx.json"}[self.value]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What is taken away from a classifier: whole classes, single uploads by their SHA-256, all negative examples."""

    classes: Sequence[str] = ()
    uploads: Sequence[str] = ()
    negative_examples: bool = False

    def to_json(self) -> dict[str, Any]:
        """The document of the request."""
        return {
            "classes": list(self.classes),
            "uploads": list(self.uploads),
            "negative_examples": self.negative_examples,
        }


def _address(classifier_id: str, *rest: str) -> str:
    return "/".join((CLASSIFIERS, *(quote(part, safe="") for part in (classifier_id, *rest))))


def _parse_card(response: httpx.Response) -> Details:
    return Details.parse(parse_document(response))


def get_session() -> Call[Document]:
    """Who asks, the version of the gateway, and its limits."""
    return Call(method="GET", path="/ocelli/v1/session", parse=parse_document)


def list_classifiers() -> Call[tuple[Card, ...]]:
    """All classifiers of the caller, oldest first."""

    def parse(response: httpx.Response) -> tuple[Card, ...]:
        return tuple(Card.parse(item) for item in parse_document(response)["classifiers"])

    return Call(method="GET", path=CLASSIFIERS, parse=parse)


def get_classifier(classifier_id: str) -> Call[Details]:
    """All that is known of a classifier."""
    return Call(method="GET", path=_address(classifier_id), parse=_parse_card)


def delete_classifier(classifier_id: str) -> Call[None]:
    """Delete a classifier with its images and artifacts."""
    path = f"/v3/classifiers/{quote(classifier_id, safe='')}"
    return Call(method="DELETE", path=path, query=[V3_VERSION], parse=parse_nothing)


def change_classifier(classifier_id: str, change: str, document: Mapping[str, Any] | None = None) -> Call[Details]:
    """One of approve, pin, unpin, suspend, resume, retrain, examples and remove."""
    return Call(method="POST", path=_address(classifier_id, change), document=dict(document or {}), parse=_parse_card)


def correct_images(classifier_id: str, corrections: Sequence[Correction], *, dry_run: bool) -> Call[Document]:
    """Relabel or drop single images; a class of None removes the correction."""
    items = [{"image": item.image, "class": item.class_name} for item in corrections]
    document = {"corrections": items, "dry_run": dry_run}

    def parse(response: httpx.Response) -> Document:
        answer: Document = parse_document(response)
        parse_corrections(answer["corrections"])
        return answer

    return Call(method="POST", path=_address(classifier_id, "corrections"), document=document, parse=parse)


def get_quality(classifier_id: str, revision: str, what: str, query: Mapping[str, Any] | None = None) -> Call[Document]:
    """One of evaluation, images, scores, data and compare/OTHER of a revision; `served` and `latest` are revisions too."""
    path = _address(classifier_id, "revisions", revision, *what.split("/"))
    given = [(name, _format(value)) for name, value in (query or {}).items() if value is not None]
    return Call(method="GET", path=path, query=given, parse=parse_document)


def get_thumbnails(classifier_id: str, revision: str, images: Sequence[str]) -> Call[Mapping[str, str]]:
    """JPEGs in base64, by the SHA-256 of the image; at most 60."""

    def parse(response: httpx.Response) -> Mapping[str, str]:
        thumbnails: Mapping[str, str] = parse_document(response)["thumbnails"]
        return thumbnails

    path = _address(classifier_id, "revisions", revision, "thumbnails")
    return Call(method="GET", path=path, query=[("image", image) for image in images], parse=parse)


def get_report(classifier_id: str) -> Call[bytes]:
    """The newest report on the images, as HTML."""
    return _download(classifier_id, "report")


def get_export(classifier_id: str, export_format: ExportFormat) -> Call[bytes]:
    """The model that is served, or its bill of materials."""
    return _download(classifier_id, export_format.path)


def _download(classifier_id: str, what: str) -> Call[bytes]:
    path = f"/v3/classifiers/{quote(classifier_id, safe='')}/{what}"
    return Call(
        method="GET",
        path=path,
        query=[V3_VERSION],
        parse=parse_bytes,
        headers={"Accept": "*/*"},
        limit_bytes=DOWNLOAD_BYTES_LIMIT,
    )


def draw_classifier_id(name: str) -> Call[str]:
    """An id for a classifier that does not exist yet; nothing is stored."""
    return Call(
        method="POST",
        path=UPLOADS,
        document={"name": name},
        parse=lambda response: str(parse_document(response)["classifier_id"]),
    )


def list_uploads(classifier_id: str) -> Call[frozenset[str]]:
    """The digests of the zips that are stored for a classifier."""

    def parse(response: httpx.Response) -> frozenset[str]:
        return frozenset(item["sha256"] for item in parse_document(response)["uploads"])

    return Call(method="GET", path=f"{UPLOADS}/{quote(classifier_id, safe='')}", parse=parse)


def store_upload(classifier_id: str, sha256: str, content: Content) -> Call[Document]:
    """Store one zip under its digest; the same again changes nothing."""
    return Call(method="PUT", path=f"{UPLOADS}/{quote(classifier_id, safe='')}/{sha256}", content=content, parse=parse_document)


def create_classifier(definition: Mapping[str, Any]) -> Call[Details]:
    """Create a classifier from stored uploads; the same again answers with the same classifier."""
    return Call(method="POST", path=CLASSIFIERS, document=definition, parse=_parse_card)


def _format(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
