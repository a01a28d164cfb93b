"""The documents of the Open Inference Protocol, version 2, over REST.

There is one model, the classifier, with one version, the revision. The input `image` has image files in base64; the outputs are
`scores` and `classes`. Source: the protocol's `inference_rest.md`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ocelli_api.prediction import Prediction
from ocelli_storage.archives import IMAGE_BYTES_LIMIT, shown_name

IMAGES_LIMIT = 64
"""The maximum number of images in one request."""
BODY_BYTES_LIMIT = 16 * 1024 * 1024
"""The maximum size of one request: one image of the largest size fits in base64."""
PARSED_BYTES_FACTOR = 2
"""In addition to the body, parsing holds up to this many times its bytes: its text, and the images."""

_INPUT = "image"
_SCORES = "scores"
_CLASSES = "classes"
_OUTPUTS = (_SCORES, _CLASSES)


class InvalidRequestError(Exception):
    """The document is not a request for this model."""


class UnknownModelError(Exception):
    """The model, or the version of it, is not served here."""


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """A parsed request."""

    id: str | None
    images: tuple[bytes, ...]
    outputs: tuple[str, ...]
    """Names of the requested outputs, in order."""


def parse_infer_request(body: bytes) -> InferRequest:
    """Type a request.

    Raises:
        InvalidRequestError: it is not a request; the message names the field.
    """
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"the body is not a JSON document at {where}; send an inference request") from None
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            "the body is not a JSON document in UTF-8 of a few levels; send an inference request"
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequestError("the body is not a JSON object; send an inference request")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InvalidRequestError(f'"id" is {_shown(identifier)}; give a string or leave it out')
    return InferRequest(id=identifier, images=_parse_images(document.get("inputs")), outputs=_parse_outputs(document))


def infer_response(request: InferRequest, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The answer, with one prediction for each image of the request, in order."""
    first = predictions[0]
    outputs = {
        _SCORES: {
            "name": _SCORES,
            "datatype": "FP32",
            "shape": [len(predictions), len(first.scores)],
            "data": [item.score for prediction in predictions for item in prediction.scores],
        },
        _CLASSES: {
            "name": _CLASSES,
            "datatype": "BYTES",
            "shape": [len(first.scores)],
            "data": [item.class_name for item in first.scores],
        },
    }
    document: dict[str, Any] = {"model_name": first.classifier_id, "model_version": first.revision}
    if request.id is not None:
        document["id"] = request.id
    return {**document, "outputs": [outputs[name] for name in request.outputs]}


def model_metadata(*, classifier_id: str, revision: str, class_count: int, platform: str) -> dict[str, Any]:
    """What a client needs to know to call the model."""
    return {
        "name": classifier_id,
        "versions": [revision],
        "platform": platform,
        "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": _SCORES, "datatype": "FP32", "shape": [-1, class_count]},
            {"name": _CLASSES, "datatype": "BYTES", "shape": [class_count]},
        ],
    }


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": "ocelli", "version": version, "extensions": []}


def _parse_images(inputs: object) -> tuple[bytes, ...]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidRequestError(f'"inputs" is {_shown(inputs)}; give a list of one input, "{_INPUT}"')
    tensor = inputs[0]
    if tensor.get("name") != _INPUT:
        raise InvalidRequestError(f'the input\'s "name" is {_shown(tensor.get("name"))}; this model\'s input is "{_INPUT}"')
    if tensor.get("datatype") != "BYTES":
        raise InvalidRequestError(f'the "datatype" of input "{_INPUT}" is {_shown(tensor.get("datatype"))}; send BYTES')
    data = tensor.get("data")
    if not isinstance(data, list) or not data:
        raise InvalidRequestError(f'the "data" of input "{_INPUT}" is {_shown(data)}; give a list of image files in base64')
    if tensor.get("shape") != [len(data)]:
        raise InvalidRequestError(
            f'the "shape" of input "{_INPUT}" is {_shown(tensor.get("shape"))}, with {len(data)} images in "data"; '
            f"give [{len(data)}]"
        )
    if len(data) > IMAGES_LIMIT:
        raise InvalidRequestError(f"the request has {len(data)} images; send at most {IMAGES_LIMIT} at a time")
    return tuple(_parse_image(position, text) for position, text in enumerate(data))


def _parse_image(position: int, text: object) -> bytes:
    try:
        image = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (ValueError, binascii.Error):
        image = None
    if image is None:
        raise InvalidRequestError(
            f'item {position} of the "data" of input "{_INPUT}" is not a base64 string; encode the image file'
        )
    if len(image) > IMAGE_BYTES_LIMIT:
        raise InvalidRequestError(
            f'item {position} of the "data" of input "{_INPUT}" has {len(image):,} bytes; send at most {IMAGE_BYTES_LIMIT:,}'
        )
    return image


def _parse_outputs(document: dict[str, Any]) -> tuple[str, ...]:
    requested = document.get("outputs")
    if requested is None or requested == []:
        return _OUTPUTS
    if not isinstance(requested, list):
        raise InvalidRequestError(f'"outputs" is {_shown(requested)}; give a list of objects with a name, or leave it out')
    names = [item.get("name") if isinstance(item, dict) else None for item in requested]
    for name in names:
        if name not in _OUTPUTS:
            raise InvalidRequestError(f"output {_shown(name)} is not known; this model's outputs are {', '.join(_OUTPUTS)}")
    return tuple(dict.fromkeys(str(name) for name in names))


def _shown(value: object) -> str:
    return shown_name(json.dumps(value, ensure_ascii=False, default=str), 60)
