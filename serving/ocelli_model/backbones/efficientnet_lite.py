"""EfficientNet-Lite without PyTorch: preprocessing, published weights, and the network as ONNX and as Core ML.

`efficientnet_lite_torch` builds the PyTorch network from the same table. This module must not know where the weights come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ocelli_model.backbone import NetworkKind
from ocelli_model.backbones.efficientnet_lite_table import (
    BATCH_NORM_EPSILON,
    CEILING,
    CLASS_COUNT,
    FEATURE_COUNT,
    SCALES,
    Block,
    Layer,
    all_layers,
    build_blocks,
)
from ocelli_model.backbones.torch_pickle import read_state_dict
from ocelli_model.exports.core_ml_layers import CoreMlLayers
from ocelli_model.exports.core_ml_parts import FEATURES, IMAGE, add_image_input, input_size
from ocelli_model.exports.message_types import core_ml_messages, onnx_messages, serialized
from ocelli_model.exports.onnx_graph import OnnxGraph, centre_pixels, declare_network
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

NAMES = tuple(SCALES)
VERSION = "1"
"""Raise it with any change that alters features."""

CLASSIFIER = "classifier"
"""Name of the classifying layer."""
CONVOLUTION = "convolution"
NORM = "norm"

_MEAN = 127 / 255
_DEVIATION = 128 / 255

# 18 is the first with an antialiasing resize, which exports need.
_OPSET = 18
_IR_VERSION = 8
_PREFIX = "network/"
_IMAGES = "images"
# The first with clip and flattenTo2D, and with images of rank 4: iOS 13, macOS 10.15.
_CORE_ML_VERSION = 4
_EXACT_ARRAY_MAPPING = 1
_RANK4_IMAGE_MAPPING = 1

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def preprocessing_for(name: str) -> Preprocessing:
    """The preprocessing for custom heads and for ImageNet's classes: the one with which the weights were evaluated.

    It is the same for both, so that one pass of the network serves both. Squashing the whole image gives custom heads one point
    more on average, but loses small objects in a wide image (docs/decisions/0012).
    """
    scale = SCALES[name]
    return Preprocessing(
        height=scale.side_pixels,
        width=scale.side_pixels,
        resize=ResizeMode.SHORT_SIDE_CROP,
        short_side_pixels=scale.short_side_pixels,
        interpolation=Interpolation.BICUBIC,
        mean=(_MEAN,) * 3,
        standard_deviation=(_DEVIATION,) * 3,
    )


def parse_weights(name: str, data: bytes) -> Mapping[str, NDArray[np.float32]]:
    """The published weights of a network, under the names of its PyTorch network here.

    `data` is the file of the package. Its digest was checked, so its contents are not checked again.
    """
    published = read_state_dict(data)
    return {key: np.ascontiguousarray(published[published_key]) for key, published_key in _names(name)}


def _names(name: str) -> Iterator[tuple[str, str]]:
    """The name of each weight here, and its published name."""
    for layer in all_layers(name):
        yield f"{layer.name}.{CONVOLUTION}.weight", f"{layer.published_convolution}.weight"
        for part in _NORM_PARTS:
            yield f"{layer.name}.{NORM}.{part}", f"{layer.published_norm}.{part}"
    for part in ("weight", "bias"):
        yield f"{CLASSIFIER}.{part}", f"_fc.{part}"


def to_safetensors(weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The weights in the form that `efficientnet_lite_torch` reads."""
    return safetensors.numpy.save(dict(weights))


def build_onnx(
    name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing, kind: NetworkKind
) -> tuple[bytes, int]:
    """The network as ONNX: uint8[N, height, width, 3] named `images` to float32[N, outputs] named `features`.

    `weights` come from `parse_weights`. Outputs are features for a body, logits for a classifier.

    Returns:
        The ONNX model, the same bytes for the same arguments, and the number of outputs.

    Raises:
        ValueError: the kind is neither a body nor a classifier.
    """
    if kind not in (NetworkKind.BODY, NetworkKind.CLASSIFIER):
        raise ValueError(f"{name}: there is no network of kind {kind}")
    messages = onnx_messages()
    model = messages.ModelProto()
    model.ir_version = _IR_VERSION
    model.producer_name = "ocelli"
    model.opset_import.add().version = _OPSET
    count = FEATURE_COUNT if kind is NetworkKind.BODY else CLASS_COUNT
    declare_network(model.graph, name, (_IMAGES, preprocessing.height, preprocessing.width), (FEATURES, count))
    graph = OnnxGraph(model.graph, _PREFIX)
    writer = _OnnxWriter(graph)
    maps = _write_blocks(writer, writer.prepare(preprocessing), _fold_blocks(name, weights, preprocessing))
    averages = graph.node("GlobalAveragePool", [maps], "averages")
    features = graph.node("Flatten", [averages], "flat", axis=1)
    if kind is NetworkKind.CLASSIFIER:
        parts = [graph.constant(f"{CLASSIFIER}.{part}", weights[f"{CLASSIFIER}.{part}"]) for part in ("weight", "bias")]
        graph.node("Gemm", [features, *parts], "logits", transB=1)
    graph.rename_last(FEATURES)
    return serialized(model), count


def build_core_ml_body(name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing) -> bytes:
    """The backbone's part of a Core ML export, from an image to features; see `ocelli_model.exports.core_ml_parts`.

    `weights` come from `parse_weights`. Of coremltools it needs only the message types.
    """
    model = core_ml_messages().Model()
    model.specificationVersion = _CORE_ML_VERSION
    network = model.neuralNetworkClassifier
    network.arrayInputShapeMapping = _EXACT_ARRAY_MAPPING
    network.imageInputShapeMapping = _RANK4_IMAGE_MAPPING
    add_image_input(model, preprocessing)
    writer = _CoreMlWriter(network)
    writer.average(_write_blocks(writer, writer.prepare(preprocessing), _fold_blocks(name, weights, preprocessing)))
    return serialized(model)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Convolution:
    """A layer with its batch norm folded into it, at its place in the network."""

    layer: Layer
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    rows: tuple[int, int]
    """Rows of zeros above and below the input."""
    columns: tuple[int, int]


class _Writer(Protocol):
    """Adds layers to a network in one format. Values are identified by their names."""

    def convolve(self, value: str, convolution: _Convolution) -> str:
        """Without the clip."""
        ...

    def clip(self, value: str, name: str) -> str:
        """ReLU6."""
        ...

    def add(self, first: str, second: str, name: str) -> str:
        """Both values have the same shape."""
        ...


def _write_blocks(writer: _Writer, images: str, blocks: Iterator[tuple[Block, list[_Convolution]]]) -> str:
    """From normalised images to the maps whose averages are the features."""
    value = images
    for block, convolutions in blocks:
        before = value
        for convolution in convolutions:
            value = writer.convolve(value, convolution)
            if convolution.layer.clipped:
                value = writer.clip(value, convolution.layer.name)
        if block.skips:
            value = writer.add(value, before, block.layers[-1].name)
    return value


def _fold_blocks(
    name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing
) -> Iterator[tuple[Block, list[_Convolution]]]:
    """The blocks with their convolutions, one at a time: otherwise all weights would be in memory twice."""
    height, width = preprocessing.height, preprocessing.width
    for block in build_blocks(name):
        convolutions = []
        for layer in block.layers:
            folded, bias = _fold_norm(layer, weights)
            convolutions.append(
                _Convolution(layer=layer, weights=folded, bias=bias, rows=layer.borders(height), columns=layer.borders(width))
            )
            height, width = layer.output_size(height), layer.output_size(width)
        yield block, convolutions


def _fold_norm(layer: Layer, weights: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias of one convolution that replaces both; computed with 64 bits."""
    gain, shift, mean, variance = (weights[f"{layer.name}.{NORM}.{part}"].astype(np.float64) for part in _NORM_PARTS)
    scale = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
    convolution = weights[f"{layer.name}.{CONVOLUTION}.weight"].astype(np.float64)
    folded = convolution * scale[:, np.newaxis, np.newaxis, np.newaxis]
    return folded.astype(np.float32), (shift - mean * scale).astype(np.float32)


class _OnnxWriter:
    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._bounds = [
            graph.constant(key, np.array(value, dtype=np.float32)) for key, value in (("floor", 0), ("ceiling", CEILING))
        ]

    def prepare(self, preprocessing: Preprocessing) -> str:
        """From pixels to the input of the stem."""
        centred = centre_pixels(self._graph, _IMAGES, preprocessing.mean)
        _, deviation = _pixel_scale(preprocessing)
        divisor = self._graph.constant("deviation", deviation.astype(np.float32).reshape(1, 3, 1, 1))
        return self._graph.node("Div", [centred, divisor], "normalised")

    def convolve(self, value: str, convolution: _Convolution) -> str:
        layer = convolution.layer
        parts = [
            self._graph.constant(f"{layer.name}.weight", convolution.weights),
            self._graph.constant(f"{layer.name}.bias", convolution.bias),
        ]
        (top, bottom), (left, right) = convolution.rows, convolution.columns
        return self._graph.node(
            "Conv",
            [value, *parts],
            f"{layer.name}.convolved",
            group=layer.groups,
            kernel_shape=[layer.kernel] * 2,
            pads=[top, left, bottom, right],
            strides=[layer.stride] * 2,
        )

    def clip(self, value: str, name: str) -> str:
        return self._graph.node("Clip", [value, *self._bounds], f"{name}.clipped")

    def add(self, first: str, second: str, name: str) -> str:
        return self._graph.node("Add", [first, second], f"{name}.added")


class _CoreMlWriter:
    def __init__(self, network: Any) -> None:
        self._layers = CoreMlLayers(network)

    def prepare(self, preprocessing: Preprocessing) -> str:
        """From the image to the input of the stem: crop, then normalise."""
        value = IMAGE
        height, width = input_size(preprocessing)
        spare = height - preprocessing.height, width - preprocessing.width
        if any(spare):
            # Rounded as in the server.
            borders = [(round(amount / 2), amount - round(amount / 2)) for amount in spare]
            value = self._layers.add("crop", "cut", value, cropAmounts=_borders(*borders))
        mean, deviation = _pixel_scale(preprocessing)
        return self._layers.add(
            "scale",
            "normalised",
            value,
            shapeScale=[3],
            scale={"floatValue": (1 / deviation).tolist()},
            hasBias=True,
            shapeBias=[3],
            bias={"floatValue": (-mean / deviation).tolist()},
        )

    def convolve(self, value: str, convolution: _Convolution) -> str:
        layer = convolution.layer
        return self._layers.add(
            "convolution",
            f"{layer.name}.convolved",
            value,
            outputChannels=layer.weight_shape[0],
            kernelChannels=layer.weight_shape[1],
            nGroups=layer.groups,
            kernelSize=[layer.kernel] * 2,
            stride=[layer.stride] * 2,
            dilationFactor=[1, 1],
            # The numbers of the table, as in ONNX, instead of this format's own rule for SAME.
            valid={"paddingAmounts": _borders(convolution.rows, convolution.columns)},
            weights={"floatValue": convolution.weights.ravel().tolist()},
            hasBias=True,
            bias={"floatValue": convolution.bias.tolist()},
        )

    def clip(self, value: str, name: str) -> str:
        return self._layers.add("clip", f"{name}.clipped", value, minVal=0.0, maxVal=CEILING)

    def add(self, first: str, second: str, name: str) -> str:
        return self._layers.add("add", f"{name}.added", first, second)

    def average(self, value: str) -> None:
        """From the last maps to the features, of rank 2 as the classifier's part needs them."""
        averages = self._layers.add("pooling", "averages", value, type="AVERAGE", globalPooling=True, valid={})
        self._layers.add("flattenTo2D", FEATURES, averages, axis=1)


def _borders(*amounts: tuple[int, int]) -> dict[str, Any]:
    return {"borderAmounts": [{"startEdgeSize": start, "endEdgeSize": end} for start, end in amounts]}


def _pixel_scale(preprocessing: Preprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel on a scale of 0 to 255."""
    return np.array(preprocessing.mean) * 255, np.array(preprocessing.standard_deviation) * 255
