"""Documents of the Open Inference Protocol: accepted and refused requests, and answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ocelli_api.prediction import ClassScore, Prediction
from ocelli_inference.open_inference import IMAGES_LIMIT, InvalidRequestError, infer_response, parse_infer_request

IMAGE = b"\xff\xd8\xff\xe0 image"


def make_request(**changes: Any) -> bytes:
    data = [base64.b64encode(IMAGE).decode()]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data, **changes.pop("input", {})}
    return json.dumps({"inputs": [tensor], **changes}).encode()


def make_prediction(*scores: float) -> Prediction:
    names = ("beagle", "husky")
    return Prediction(
        classifier_id="dogs_19",
        revision="0123456789",
        scores=tuple(ClassScore(class_name=name, score=score) for name, score in zip(names, scores, strict=True)),
    )


def test_images_come_as_base64() -> None:
    assert parse_infer_request(make_request()).images == (IMAGE,)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff\xd8\xff", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        (b"[]", "not a JSON object"),
        (make_request(id=7), '"id" is 7'),
        (make_request(inputs=[]), r'"inputs" is \[\]'),
        (make_request(inputs=[7]), r'"inputs" is \[7\]'),
        (make_request(input={"name": "pixels"}), '"name" is "pixels"'),
        (make_request(input={"datatype": "FP32"}), '"datatype".* is "FP32"'),
        (make_request(input={"data": None}), '"data".* is null'),
        (make_request(input={"data": []}), r'"data".* is \[\]'),
        (make_request(input={"data": [7]}), "item 0 .* is not a base64"),
        (make_request(input={"data": ["*"]}), "item 0 .* is not a base64"),
        (make_request(input={"data": ["é"]}), "item 0 .* is not a base64"),
        (make_request(input={"shape": [2]}), r"give \[1\]"),
        (make_request(input={"shape": None}), r"give \[1\]"),
        (make_request(input={"data": [""] * 65, "shape": [65]}), f"at most {IMAGES_LIMIT}"),
        (make_request(outputs="scores"), '"outputs" is "scores"'),
        (make_request(outputs=[{"name": "logits"}]), 'output "logits" is not known'),
        (make_request(outputs=[{"name": "a\u202eb"}]), 'output "a�b" is not known'),
        (make_request(outputs=[7]), "output null is not known"),
    ],
)
def test_a_bad_request_is_refused_with_the_field(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        parse_infer_request(body)


def test_an_image_over_ten_megabytes_is_refused_with_its_place() -> None:
    data = [base64.b64encode(bytes(10 * 1024 * 1024 + 1)).decode()]
    with pytest.raises(InvalidRequestError, match=r"item 0 .* 10,485,761 bytes"):
        parse_infer_request(make_request(input={"data": data}))


def test_scores_are_rows_of_images_and_classes_their_columns() -> None:
    answer = infer_response(parse_infer_request(make_request()), [make_prediction(0.1, 0.2), make_prediction(0.3, 0.4)])
    assert answer == {
        "model_name": "dogs_19",
        "model_version": "0123456789",
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.2, 0.3, 0.4]},
            {"name": "classes", "datatype": "BYTES", "shape": [2], "data": ["beagle", "husky"]},
        ],
    }


def test_id_of_the_request_is_returned() -> None:
    assert infer_response(parse_infer_request(make_request(id="42")), [make_prediction(0.1, 0.2)])["id"] == "42"


def test_only_requested_outputs_are_returned() -> None:
    answer = infer_response(parse_infer_request(make_request(outputs=[{"name": "classes"}])), [make_prediction(0.1, 0.2)])
    assert [output["name"] for output in answer["outputs"]] == ["classes"]
