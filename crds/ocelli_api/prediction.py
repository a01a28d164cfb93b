"""The prediction call: what the gateway asks an inference server, and what it answers.

    POST /predictions                     body: the bytes of one image, as they came
    Ocelli-Revision: 0123456789           the revision that the caller expects; another one here: 421
    Ocelli-Language: de                   of the class names, where a pretrained classifier has them in several
    Ocelli-Threshold: 0.5                 classes below it may be left out; without it, every class is answered

    200 {"classifierID": "dogs_19", "revision": "0123456789", "predictions": [{"class": "beagle", "score": 0.93}, …]}
    400 {"error": {"kind": "NotAnImage", "message": "…"}}          this image cannot be predicted, see `ImageFault`
    421 {"error": {"kind": "OtherRevision", …}}                    ask another Pod
    429 {"error": {"kind": "QueueFull", …}}, Retry-After           the queue is full
    503 {"error": {"kind": "NotReady", …}}, Retry-After            not loaded yet, or shutting down
    503 {"error": {"kind": "QueueFull", …}}, Retry-After           as many connections are open as may be

Classes come in the order of the definition; scores have at most 6 decimals. A pretrained classifier that has a hierarchy gives
its leaves `typeHierarchy` (`/animal/bird/owl`), and their ancestors as classes of their own behind them. One image a call: the
server batches what waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PREDICTIONS_PATH = "/predictions"
REVISION_HEADER = "Ocelli-Revision"
LANGUAGE_HEADER = "Ocelli-Language"
THRESHOLD_HEADER = "Ocelli-Threshold"
"""A thousand classes are 140 KB and milliseconds of work on either side, and callers mostly show a few."""
SCORE_DECIMALS = 6
LANGUAGES = ("ar", "de", "es", "fr", "it", "ja", "ko", "pt-br", "zh-cn", "zh-tw")
"""Languages beside English that class names may be had in."""
CONNECTIONS_LIMIT = 512
"""How many connections a server keeps open. Each may cost a third of a megabyte before its bytes are counted: a head, or what
the socket had of a body."""
GATEWAY_CONNECTIONS_LIMIT = 48
"""How many of them one gateway opens to one server: more than it has images at a time, and ten gateways find room."""
ANSWER_BYTES_LIMIT = 4 * 1024 * 1024
"""No longer answer is read."""
CLASSES_BYTES_LIMIT = ANSWER_BYTES_LIMIT * 3 // 4
"""What all classes of a pretrained classifier may take of an answer, which is checked before it is served: servers of other
versions may write the same in a few more bytes.
"""


class ImageFault(StrEnum):
    """Why an image cannot be predicted or learned from."""

    NOT_AN_IMAGE = "NotAnImage"
    """The bytes are of no supported kind."""
    CORRUPT = "Corrupt"
    """They cannot be decoded."""
    TOO_SMALL = "TooSmall"
    """A side is under 10 pixels."""
    TOO_MANY_PIXELS = "TooManyPixels"
    """More than 100 megapixels."""
    TOO_LARGE = "TooLarge"
    """More than 10 MB of bytes."""


class Refusal(StrEnum):
    """Why a server does not answer though the image may be good."""

    OTHER_REVISION = "OtherRevision"
    QUEUE_FULL = "QueueFull"
    NOT_READY = "NotReady"


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class and its score, 0 to 1."""

    class_name: str
    score: float
    type_hierarchy: str | None = None
    """Where the class stands in a hierarchy: a path that begins with `/` and ends with the class."""

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"class": self.class_name, "score": self.score}
        if self.type_hierarchy is not None:
            document["typeHierarchy"] = self.type_hierarchy
        return document


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The scores of one image."""

    classifier_id: str
    revision: str
    scores: tuple[ClassScore, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "classifierID": self.classifier_id,
            "revision": self.revision,
            "predictions": [item.to_json() for item in self.scores],
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Prediction:
        """Type an answer.

        Raises:
            KeyError, ValueError: it is none.
        """
        return cls(
            classifier_id=document["classifierID"],
            revision=document["revision"],
            scores=tuple(
                ClassScore(class_name=item["class"], score=float(item["score"]), type_hierarchy=item.get("typeHierarchy"))
                for item in document["predictions"]
            ),
        )
