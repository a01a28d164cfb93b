"""The prediction call: the gateway's request to an inference server, and the response.

    POST /predictions                     body: the unchanged bytes of one image
    Ocelli-Revision: 0123456789           the expected revision; 421 if the server has another one
    Ocelli-Language: de                   language of the class names, for pretrained classifiers with translations
    Ocelli-Threshold: 0.5                 lower scores may be left out; without it, all classes are returned

    200 {"classifierID": "dogs_19", "revision": "0123456789", "predictions": [{"class": "beagle", "score": 0.93}, …]}
    400 {"error": {"kind": "NotAnImage", "message": "…"}}          no prediction for this image, see `ImageFault`
    421 {"error": {"kind": "OtherRevision", …}}                    try another Pod
    429 {"error": {"kind": "QueueFull", …}}, Retry-After           the queue is full
    503 {"error": {"kind": "NotReady", …}}, Retry-After            not loaded yet, or shutting down
    503 {"error": {"kind": "QueueFull", …}}, Retry-After           the limit of open connections is reached

Classes are in the order of the definition. Scores have at most 6 decimals. If a pretrained classifier has a hierarchy, its
leaves have a `typeHierarchy` (`/animal/bird/owl`), and their ancestors follow as classes. Each call has one image; the server
batches the calls that are waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ocelli_api.documents import named

PREDICTIONS_PATH = "/predictions"
REVISION_HEADER = "Ocelli-Revision"
LANGUAGE_HEADER = "Ocelli-Language"
THRESHOLD_HEADER = "Ocelli-Threshold"
"""A thousand classes are 140 KB and take milliseconds on either side, but callers mostly show a few."""
SCORE_DECIMALS = 6
DECISION_THRESHOLD = 0.5
"""The score from which an image counts as a member of a class. Calibration moves each class's best threshold there."""
LANGUAGES = ("ar", "de", "es", "fr", "it", "ja", "ko", "pt-br", "zh-cn", "zh-tw")
"""Languages of class names, in addition to English."""
CONNECTIONS_LIMIT = 512
"""Open connections of a server. Each can use a third of a megabyte before its bytes are counted: a request head, or the part of
a body that the socket has buffered."""
GATEWAY_CONNECTIONS_LIMIT = 48
"""Connections that one gateway opens to one server: more than its concurrent images, and enough for ten gateways."""
ANSWER_BYTES_LIMIT = 4 * 1024 * 1024
"""Longer responses are not read."""
CLASSES_BYTES_LIMIT = ANSWER_BYTES_LIMIT * 3 // 4
"""Size of all classes of a pretrained classifier in a response, checked before it is served. The rest is a margin for servers
of other versions, which may need a few more bytes."""


class ImageFault(StrEnum):
    """Why an image cannot be used for a prediction or a training."""

    NOT_AN_IMAGE = "NotAnImage"
    """The format of the bytes is not supported."""
    CORRUPT = "Corrupt"
    """The bytes cannot be decoded."""
    TOO_SMALL = "TooSmall"
    """A side has fewer than 10 pixels."""
    TOO_MANY_PIXELS = "TooManyPixels"
    """More than 100 megapixels."""
    TOO_LARGE = "TooLarge"
    """More than 10 MB of bytes."""


class Refusal(StrEnum):
    """Why a server does not predict, although the image may be valid."""

    OTHER_REVISION = "OtherRevision"
    QUEUE_FULL = "QueueFull"
    NOT_READY = "NotReady"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """One class and its score, 0 to 1."""

    class_name: str = field(metadata=named("class"))
    score: float
    type_hierarchy: str | None = None
    """Path of the class in the hierarchy. It starts with `/` and ends with the class."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The scores of one image."""

    classifier_id: str
    revision: str
    scores: tuple[ClassScore, ...] = field(metadata=named("predictions"))
