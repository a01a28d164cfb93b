"""Writes an ONNX graph node by node, with the messages alone. It must not know what a graph is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_model.exports.message_types import onnx_messages


def declare_network(graph: Any, name: str, images: tuple[str, int, int], outputs: tuple[str, int]) -> None:
    """Name the graph, its only input and its only output.

    `images` is the name, height and width of uint8[N, height, width, 3]; `outputs` the name and count of float32[N, count].
    """
    graph.name = name
    types = onnx_messages().TensorProto
    images_name, height, width = images
    outputs_name, count = outputs
    for values, value_name, element, sizes in (
        (graph.input, images_name, types.UINT8, (height, width, 3)),
        (graph.output, outputs_name, types.FLOAT, (count,)),
    ):
        value = values.add()
        value.name = value_name
        value.type.tensor_type.elem_type = element
        value.type.tensor_type.shape.dim.add().dim_param = "N"
        for size in sizes:
            value.type.tensor_type.shape.dim.add().dim_value = size


class OnnxGraph:
    """Adds nodes to a graph. All names have a prefix, so that the names of two parts never collide."""

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
        """Add a node. `output` is the name of its output without the prefix; returns the full name."""
        node = self._graph.node.add()
        node.op_type = operator
        node.name = self._prefix + output
        node.input.extend(inputs)
        node.output.append(self._prefix + output)
        for key, value in sorted(attributes.items()):
            self._set(node.attribute.add(), key, value)
        return self._prefix + output

    def rename_last(self, name: str) -> None:
        """Give the output of the last node this name, without the prefix."""
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


def centre_pixels(graph: OnnxGraph, images: str, mean: Sequence[float]) -> str:
    """From uint8[N, height, width, 3] to float32[N, 3, height, width], minus the mean, which is on a scale of 0 to 1."""
    floats = graph.node("Cast", [images], "floats", to=onnx_messages().TensorProto.FLOAT)
    planes = graph.node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
    values = (np.array(mean) * 255).astype(np.float32).reshape(1, 3, 1, 1)
    return graph.node("Sub", [planes, graph.constant("mean", values)], "centred")
