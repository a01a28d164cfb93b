"""Imports a classifying network from an ONNX file: checks it, and gives it the same input as every other network here.

It must have one input float32[N, 3, height, width], one output float32[N, outputs], and standard operators, all in one file.
Layout and normalisation are added in front, so that it takes uint8[N, height, width, 3]. This module does not need PyTorch, and
does not run the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.compose
import onnx.inliner
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from ocelli_model.backbones.onnx_origins import strip_origins
from ocelli_model.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

INPUT_NAME = "images"
OPSET_MINIMUM = 7
"""The first version in which arithmetic broadcasts as it does today."""

_STANDARD_DOMAINS = ("", "ai.onnx")
_CHANNELS = 3
_BATCH = "N"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


class OnnxImportError(Exception):
    """The file is not a usable network. The message has fact and remedy, without the file's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNetwork:
    """A checked network."""

    model: onnx.ModelProto
    input_name: str
    height: int | None
    """Of the input, in pixels; None if it is not fixed."""
    width: int | None
    one_image: bool
    """Whether it takes one image at a time."""


def read_onnx(path: Path) -> OnnxNetwork:
    """Read and check a file.

    Raises:
        OnnxImportError: it is not a usable network.
        OSError: it cannot be read.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise OnnxImportError("it cannot be read as ONNX; fetch the file again, or give another one") from error
    if not model.ir_version or not model.graph.node:
        raise OnnxImportError("it does not contain an ONNX network; fetch the file again, or give another one")
    outside = next((tensor.name for tensor in _tensors(model.graph) if uses_external_data(tensor)), None)
    if outside is not None:
        raise OnnxImportError(
            f"weights such as {outside} are in another file; save everything in one file, with external_data=False"
        )
    _check_opset(model)
    try:
        onnx.checker.check_model(model)
        # Some exporters write functions into the file.
        model = onnx.inliner.inline_local_functions(model) if model.functions else model
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        _log.warning("onnx.invalid", extra={"cause": _shortened(error)})
        raise OnnxImportError(
            "it is not valid ONNX; export it again (onnx.checker.check_model shows the cause, and the log of the trainer)"
        ) from error
    _check_operators(model)
    damaged = next((tensor.name for tensor in _tensors(model.graph) if _has_nan(tensor)), None)
    if damaged is not None:
        raise OnnxImportError(f"its weights {damaged} contain NaN; give an undamaged file")
    name, batch, height, width = _check_input(model.graph)
    _check_output(model.graph)
    return OnnxNetwork(model=model, input_name=name, height=height, width=width, one_image=batch == 1)


def put_preprocessing_in_front(network: OnnxNetwork, preprocessing: Preprocessing) -> tuple[bytes, int]:
    """The network from uint8[N, height, width, 3] to float32[N, outputs].

    Returns:
        The ONNX model, without information on where and when it was made, and the number of outputs.

    Raises:
        OnnxImportError: the sizes do not match, or the number of outputs is not fixed.
    """
    for side, fixed, wanted in (
        ("height", network.height, preprocessing.height),
        ("width", network.width, preprocessing.width),
    ):
        if fixed not in (None, wanted):
            raise OnnxImportError(f"its input has a {side} of {fixed} pixels, not {wanted}; set images.{side} to {fixed}")
    try:
        model = onnx.compose.merge_models(
            _build_preprocessing(network, preprocessing),
            network.model,
            io_map=[("pixels", network.input_name)],
            # The names of the two must not collide.
            prefix2="network_",
        )
        strip_origins(model)
        model.graph.name = "ocelli"
        onnx.checker.check_model(model)
        count = _count_outputs(model)
        data = model.SerializeToString(deterministic=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        _log.warning("onnx.does_not_fit", extra={"cause": _shortened(error)})
        raise OnnxImportError(
            f"it cannot take images of {preprocessing.height}x{preprocessing.width} pixels; correct images.height and "
            "images.width, or export it again (the log of the trainer has the cause)"
        ) from error
    if count is None:
        raise OnnxImportError("its number of outputs is not fixed; export it with a fixed number")
    return data, count


def _count_outputs(model: onnx.ModelProto) -> int | None:
    """Raises InferenceError if sizes do not match."""
    # Some working networks do not pass the strict mode.
    for strict in (False, True):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=strict)
        dimensions = _dimensions(inferred.graph.output[0])
        if len(dimensions) == 2 and dimensions[1] is not None:
            return dimensions[1]
    return None


def _build_preprocessing(network: OnnxNetwork, preprocessing: Preprocessing) -> onnx.ModelProto:
    """uint8[N, height, width, 3] named `images` to float32[N, 3, height, width] named `pixels`, in the network's own opset."""
    batch = 1 if network.one_image else _BATCH
    size = [preprocessing.height, preprocessing.width]

    def constant(name: str, values: tuple[float, ...]) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=np.float32).reshape(1, -1, 1, 1), name)

    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["channels", "whole"], ["parts"]),
        helper.make_node("Sub", ["parts", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["pixels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocessing",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [batch, *size, _CHANNELS])],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, _CHANNELS, *size])],
        [
            constant("whole", (255.0,)),
            constant("mean", preprocessing.mean),
            constant("deviation", preprocessing.standard_deviation),
        ],
    )
    return helper.make_model(graph, ir_version=network.model.ir_version, opset_imports=network.model.opset_import)


def _check_operators(model: onnx.ModelProto) -> None:
    for node in _nodes(model.graph):
        if node.domain not in _STANDARD_DOMAINS:
            raise OnnxImportError(
                f"it uses operator {node.op_type} of {node.domain}, which is not standard; export it with standard operators"
            )


def _check_opset(model: onnx.ModelProto) -> None:
    version = next((item.version for item in model.opset_import if item.domain in _STANDARD_DOMAINS), 0)
    newest = onnx.defs.onnx_opset_version()
    if not OPSET_MINIMUM <= version <= newest:
        raise OnnxImportError(f"it has opset {version}; export it with an opset from {OPSET_MINIMUM} to {newest}, such as 18")


def _check_input(graph: onnx.GraphProto) -> tuple[str, int | None, int | None, int | None]:
    """Name, number of images, height and width."""
    given = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in given]
    wanted = "export it with one input float32[N, 3, height, width]"
    if len(inputs) != 1:
        raise OnnxImportError(f"it has {len(inputs)} inputs; {wanted}")
    (value,) = inputs
    dimensions = _dimensions(value)
    if value.type.tensor_type.elem_type != TensorProto.FLOAT or len(dimensions) != 4:
        raise OnnxImportError(f"its input {value.name} is {_shown(value)}; {wanted}")
    batch, channels, height, width = dimensions
    if channels not in (None, _CHANNELS) or (channels is None and width == _CHANNELS):
        hint = "channels first" if width == _CHANNELS else "three channels"
        raise OnnxImportError(f"its input {value.name} is {_shown(value)}; {wanted}: {hint}")
    if batch not in (None, 1):
        raise OnnxImportError(f"its input {value.name} takes {batch} images; export it for one image, or for any number")
    return value.name, batch, height, width


def _check_output(graph: onnx.GraphProto) -> None:
    wanted = "export it with one output float32[N, outputs]"
    if len(graph.output) != 1:
        raise OnnxImportError(f"it has {len(graph.output)} outputs; {wanted}, that of the classes")
    (value,) = graph.output
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT or (tensor.HasField("shape") and len(tensor.shape.dim) != 2):
        raise OnnxImportError(f"its output {value.name} is {_shown(value)}; {wanted}")


def _dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]


def _shown(value: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind}[{', '.join(str(size or 'N') for size in _dimensions(value))}]"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _has_nan(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in _FLOATS and bool(np.isnan(numpy_helper.to_array(tensor)).any())
