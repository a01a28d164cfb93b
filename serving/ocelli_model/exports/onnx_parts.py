"""The two parts of an ONNX export.

    image         uint8[height, width, 3], red, green, blue, of any size
    scores        float32[classes], 0 to 1
    class_names   string[classes], in the same order

The graph contains the same preprocessing as `ocelli_model.preprocessing`; normalisation is part of the backbone's network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ocelli_model.exports.heads import REJECTION_DECAY, REJECTION_EXPONENTS
from ocelli_model.exports.message_types import onnx_messages, serialized
from ocelli_model.exports.onnx_graph import OnnxGraph
from ocelli_model.heads import LEAST_LENGTH, REJECTION_START, Heads, Rejection
from ocelli_model.preprocessing import STRIP_RATIO, Interpolation, Preprocessing, ResizeMode

IMAGE = "image"
SCORES = "scores"
CLASS_NAMES = "class_names"
CLASS_NAMES_KEY = "ocelli.classNames"
_PREPARE = "ocelli/prepare/"
_HEAD = "ocelli/head/"
_NETWORK_INPUT = "images"
_NETWORK_OUTPUT = "features"
# As in Pillow: another cubic than the standard's default, and no weight outside of the image.
_RESIZE_OPTIONS: Mapping[Interpolation, Mapping[str, Any]] = {
    Interpolation.BILINEAR: {"mode": "linear"},
    Interpolation.BICUBIC: {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
}


def build_onnx_body(network: bytes, preprocessing: Preprocessing) -> bytes:
    """The backbone's part: from any image to features.

    `network` is the backbone's own ONNX file, uint8[N, height, width, 3] to float32[N, features].
    """
    messages = onnx_messages()
    original = messages.ModelProto.FromString(network)
    model = messages.ModelProto()
    model.ir_version = original.ir_version
    model.producer_name = "ocelli"
    model.opset_import.extend(original.opset_import)
    model.functions.extend(original.functions)
    model.graph.name = "classifier"
    image = model.graph.input.add()
    image.name = IMAGE
    image.type.tensor_type.elem_type = messages.TensorProto.UINT8
    for size in ("height", "width", 3):
        dimension = image.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
    _add_preprocessing(OnnxGraph(model.graph, _PREPARE), preprocessing)
    model.graph.node.extend(original.graph.node)
    model.graph.initializer.extend(original.graph.initializer)
    return serialized(model)


def build_onnx_head(head: Heads, class_names: Sequence[str]) -> bytes:
    """The classifier's part, from features to scores. Its nodes need opset 18, which is the minimum of all bodies."""
    messages = onnx_messages()
    model = messages.ModelProto()
    graph = OnnxGraph(model.graph, _HEAD)
    inputs = _NETWORK_OUTPUT if head.power is None else _normalise(graph, _NETWORK_OUTPUT, head.power)
    product = graph.node("MatMul", [inputs, graph.constant("weights", head.weights.T)], "product")
    margins = graph.node("Add", [product, graph.constant("bias", head.bias)], "margins")
    scores = graph.node("Sigmoid", [margins], "batched_scores")
    if head.rejection is not None:
        scores = graph.node("Mul", [scores, _rejection_factor(graph, inputs, head.rejection)], "rejected_scores")
    graph.node("Squeeze", [scores, graph.integers("batch", 0)], SCORES)
    graph.rename_last(SCORES)
    graph.node("Constant", [], CLASS_NAMES, value_strings=list(class_names))
    graph.rename_last(CLASS_NAMES)
    for name, kind in ((SCORES, messages.TensorProto.FLOAT), (CLASS_NAMES, messages.TensorProto.STRING)):
        output = model.graph.output.add()
        output.name = name
        output.type.tensor_type.elem_type = kind
        output.type.tensor_type.shape.dim.add().dim_value = len(class_names)
    entry = model.metadata_props.add()
    entry.key, entry.value = CLASS_NAMES_KEY, json.dumps(list(class_names), ensure_ascii=False)
    return serialized(model)


def _normalise(graph: OnnxGraph, features: str, power: float) -> str:
    """As `ocelli_model.heads.normalised`."""
    magnitudes = graph.node("Abs", [features], "magnitudes")
    raised = graph.node("Pow", [magnitudes, _number(graph, "power", power)], "raised")
    signed = graph.node("Mul", [graph.node("Sign", [features], "signs"), raised], "signed")
    length = _reduce(graph, "ReduceL2", signed, "length")
    divisor = graph.node("Max", [length, _number(graph, "least_length", LEAST_LENGTH)], "divisor")
    return graph.node("Div", [signed, divisor], "normalised")


def _rejection_factor(graph: OnnxGraph, inputs: str, rejection: Rejection) -> str:
    """As `ocelli_model.heads.Rejection`: float32[1, 1]."""
    linear = graph.node("MatMul", [inputs, graph.constant("linear_weights", rejection.linear.T)], "linear")
    outside = graph.node("Add", [linear, graph.constant("constant", rejection.constant)], "outside")
    square = _reduce(graph, "ReduceMin", outside, "nearest")
    if len(rejection.directions):
        along = graph.node("MatMul", [inputs, graph.constant("directions", rejection.directions.T)], "along")
        inside = graph.node("Add", [along, graph.constant("centre", rejection.centre)], "inside")
        square = graph.node("Sub", [square, _reduce(graph, "ReduceSumSquare", inside, "inside_square")], "square")
    positive = graph.node("Max", [square, _number(graph, "zero", 0)], "positive_square")
    beyond = graph.node("Sub", [graph.node("Sqrt", [positive], "distance"), _number(graph, "start", REJECTION_START)], "beyond")
    falling = graph.node("Mul", [beyond, _number(graph, "decay", -REJECTION_DECAY)], "falling")
    least, greatest = REJECTION_EXPONENTS
    bounds = [_number(graph, "least_exponent", least), _number(graph, "greatest_exponent", greatest)]
    return graph.node("Exp", [graph.node("Clip", [falling, *bounds], "exponent")], "factor")


def _reduce(graph: OnnxGraph, operator: str, row: str, name: str) -> str:
    """From float32[1, width] to float32[1, 1]."""
    return graph.node(operator, [row, graph.integers(f"{name}_axis", 1)], name, keepdims=1)


def _number(graph: OnnxGraph, name: str, value: float) -> str:
    return graph.constant(name, np.array(value, dtype=np.float32))


def _add_preprocessing(graph: OnnxGraph, preprocessing: Preprocessing) -> None:
    """From `image` to the input of the network."""
    floats = graph.node("Cast", [IMAGE], "floats", to=onnx_messages().TensorProto.FLOAT)
    planes = graph.node("Transpose", [floats], "planes", perm=[2, 0, 1])
    batch = graph.node("Unsqueeze", [planes, graph.integers("batch", 0)], "batched")
    crop = graph.integers("crop", preprocessing.height, preprocessing.width)
    if preprocessing.short_side_pixels is None:
        fitted = _resize(graph, batch, crop, preprocessing.interpolation)
    else:
        sides, side = graph.integers("sides", 2, 3), preprocessing.short_side_pixels
        if preprocessing.resize is ResizeMode.SQUASH_CROP:
            middle, scaled_size = batch, graph.integers("scaled_size", side, side)
        else:
            size = graph.node("Shape", [batch], "size", start=2)
            short = graph.node("ReduceMin", [size], "short", keepdims=1)
            # Only the middle of a strip is scaled.
            limit = graph.node("Mul", [short, graph.integers("strip", STRIP_RATIO)], "limit")
            kept = graph.node("Min", [size, limit], "kept")
            spare = graph.node("Sub", [size, kept], "spare")
            start = graph.node("Div", [spare, graph.integers("two", 2)], "start")
            end = graph.node("Add", [start, kept], "end")
            middle = graph.node("Slice", [batch, start, end, sides], "middle")
            longer = graph.node("Mul", [kept, graph.integers("short_side", side)], "longer")
            exact = graph.node("Div", [longer, short], "exact")
            scaled_size = graph.node("Max", [exact, crop], "scaled_size")
        scaled = _resize(graph, middle, scaled_size, preprocessing.interpolation)
        margin = graph.node("Sub", [scaled_size, crop], "margin")
        margin_float = graph.node("Cast", [margin], "margin_float", to=onnx_messages().TensorProto.FLOAT)
        half = graph.node("Mul", [margin_float, graph.constant("half", np.array([0.5], dtype=np.float32))], "half_margin")
        rounded = graph.node("Round", [half], "rounded")
        first = graph.node("Cast", [rounded], "first", to=onnx_messages().TensorProto.INT64)
        last = graph.node("Add", [first, crop], "last")
        fitted = graph.node("Slice", [scaled, first, last, sides], "fitted")
    pixels = graph.node("Cast", [fitted], "pixels", to=onnx_messages().TensorProto.UINT8)
    graph.node("Transpose", [pixels], _NETWORK_INPUT, perm=[0, 2, 3, 1])
    graph.rename_last(_NETWORK_INPUT)


def _resize(graph: OnnxGraph, planes: str, size: str, interpolation: Interpolation) -> str:
    """As in Pillow: first along rows, then along columns, rounding to integers in between.

    In one step, the features of a pretrained network differed by 2 %.
    """
    height = graph.node("Gather", [size, graph.integers("row_index", 0)], "height")
    width = graph.node("Gather", [size, graph.integers("column_index", 1)], "width")
    source_height = graph.node("Shape", [planes], "source_height", start=2, end=3)
    value = planes
    for direction, sides in (("wide", (source_height, width)), ("high", (height, width))):
        sizes = graph.node("Concat", [graph.integers(f"{direction}_leading", 1, 3), *sides], f"{direction}_sizes", axis=0)
        resized = graph.node(
            "Resize",
            [value, "", "", sizes],
            f"{direction}_resized",
            antialias=1,
            coordinate_transformation_mode="half_pixel",
            **_RESIZE_OPTIONS[interpolation],
        )
        value = _whole(graph, resized, direction)
    return value


def _whole(graph: OnnxGraph, floats: str, name: str) -> str:
    """Rounded to integers from 0 to 255."""
    bounds = [_number(graph, f"{name}_{bound}", value) for bound, value in (("black", 0), ("white", 255))]
    return graph.node("Round", [graph.node("Clip", [floats, *bounds], f"{name}_clipped")], f"{name}_whole")
