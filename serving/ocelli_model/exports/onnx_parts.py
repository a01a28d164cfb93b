"""The two parts of an ONNX export.

    image         uint8[height, width, 3], red, green, blue, of any size
    scores        float32[classes], 0 to 1
    class_names   string[classes], in the same order

Preprocessing is in the graph, as `ocelli_model.preprocessing` does it; normalisation is part of the backbone's network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_model.exports.heads import LinearHead
from ocelli_model.exports.message_types import onnx_messages
from ocelli_model.preprocessing import STRIP_RATIO, Interpolation, Preprocessing, ResizeMode

IMAGE = "image"
SCORES = "scores"
CLASS_NAMES = "class_names"
CLASS_NAMES_KEY = "ocelli.classNames"
_PREPARE = "ocelli/prepare/"
_HEAD = "ocelli/head/"
_NETWORK_INPUT = "images"
_NETWORK_OUTPUT = "features"


class _Graph:
    """Adds to a graph; everything gets a name below one prefix, so that two parts never meet in one."""

    def __init__(self, graph: Any, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._messages = onnx_messages()

    def constant(self, name: str, values: NDArray[Any]) -> str:
        tensor = self._graph.initializer.add()
        tensor.name = self._prefix + name
        tensor.dims.extend(values.shape)
        types = self._messages.TensorProto
        tensor.data_type = {"float32": types.FLOAT, "int64": types.INT64}[values.dtype.name]
        tensor.raw_data = np.ascontiguousarray(values).tobytes()
        return str(tensor.name)

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; `output` is the name of what it gives, below the prefix. Returns the whole name."""
        node = self._graph.node.add()
        node.op_type = operator
        node.name = self._prefix + output
        node.input.extend(inputs)
        node.output.append(self._prefix + output)
        for key, value in sorted(attributes.items()):
            self._set(node.attribute.add(), key, value)
        return self._prefix + output

    def rename_last(self, name: str) -> None:
        """What the last node gives is known by this name, without the prefix."""
        self._graph.node[-1].output[0] = name

    def _set(self, attribute: Any, key: str, value: Any) -> None:
        attribute.name = key
        kinds = self._messages.AttributeProto
        if isinstance(value, int):
            attribute.type, attribute.i = kinds.INT, value
        elif isinstance(value, float):
            attribute.type, attribute.f = kinds.FLOAT, value
        elif isinstance(value, str):
            attribute.type, attribute.s = kinds.STRING, value.encode()
        elif all(isinstance(item, int) for item in value):
            attribute.type = kinds.INTS
            attribute.ints.extend(value)
        else:
            attribute.type = kinds.STRINGS
            attribute.strings.extend(item.encode() for item in value)


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
    _add_preprocessing(_Graph(model.graph, _PREPARE), preprocessing)
    model.graph.node.extend(original.graph.node)
    model.graph.initializer.extend(original.graph.initializer)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def build_onnx_head(head: LinearHead, class_names: Sequence[str]) -> bytes:
    """The classifier's part: from features to scores."""
    messages = onnx_messages()
    model = messages.ModelProto()
    graph = _Graph(model.graph, _HEAD)
    product = graph.node("MatMul", [_NETWORK_OUTPUT, graph.constant("weights", head.weights.T)], "product")
    margins = graph.node("Add", [product, graph.constant("bias", head.bias)], "margins")
    scores = graph.node("Sigmoid", [margins], "batched_scores")
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
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _add_preprocessing(graph: _Graph, preprocessing: Preprocessing) -> None:
    """From `image` to what the network takes."""
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
            # Of a strip only the middle is scaled.
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
    bounds = [graph.constant(name, np.array(value, dtype=np.float32)) for name, value in (("black", 0.0), ("white", 255.0))]
    clipped = graph.node("Clip", [fitted, *bounds], "clipped")
    whole = graph.node("Round", [clipped], "whole")
    pixels = graph.node("Cast", [whole], "pixels", to=onnx_messages().TensorProto.UINT8)
    graph.node("Transpose", [pixels], _NETWORK_INPUT, perm=[0, 2, 3, 1])
    graph.rename_last(_NETWORK_INPUT)


def _resize(graph: _Graph, planes: str, size: str, interpolation: Interpolation) -> str:
    sizes = graph.node("Concat", [graph.integers("leading", 1, 3), size], "sizes", axis=0)
    mode = {Interpolation.BILINEAR: "linear", Interpolation.BICUBIC: "cubic"}[interpolation]
    return graph.node(
        "Resize",
        [planes, "", "", sizes],
        "resized",
        antialias=1,
        # Pillow's.
        cubic_coeff_a=-0.5,
        coordinate_transformation_mode="half_pixel",
        mode=mode,
    )
