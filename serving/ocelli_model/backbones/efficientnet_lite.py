"""EfficientNet-Lite without PyTorch: how its images are prepared, its published weights, the network as ONNX and as Core ML.

`efficientnet_lite_torch` builds the PyTorch network from the same table. Where the weights come from is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ocelli_model.backbone import BackboneUnavailableError, NetworkKind
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
from ocelli_model.backbones.torch_pickle import TorchPickleError, read_state_dict
from ocelli_model.exports.core_ml_parts import FEATURES, IMAGE, add_image_input, input_size
from ocelli_model.exports.message_types import core_ml_messages, onnx_messages
from ocelli_model.exports.onnx_graph import OnnxGraph, declare_network
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

NAMES = tuple(SCALES)
VERSION = "1"
"""Raise it with any change that alters features."""

CLASSIFIER = "classifier"
"""The layer that classifies."""
CONVOLUTION = "convolution"
NORM = "norm"

_MEAN = 127 / 255
_DEVIATION = 128 / 255

# 18 is the first with a resize that averages, which exports need.
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
    """How images are prepared, for custom heads and for ImageNet's classes: as those that the weights were evaluated on.

    One preprocessing, so that one pass can serve both. Squeezing the whole picture gives custom heads one point more on
    average, and loses what is small in a wide picture (docs/decisions/0012).
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


def parse_weights(name: str, data: bytes, *, what: str) -> Mapping[str, NDArray[np.float32]]:
    """The published weights of a network, checked, under the names of its PyTorch network here.

    `what` is what messages call the file.

    Raises:
        BackboneUnavailableError: the file cannot be read, or holds other weights than this network's.
    """
    try:
        published = read_state_dict(data)
    except TorchPickleError as error:
        raise BackboneUnavailableError(f"{what} cannot be read as weights: {error}") from error
    # Counters that only training uses.
    unknown = {key for key in published if not key.endswith(".num_batches_tracked")}
    weights = {}
    for key, published_key, shape in _expected(name):
        if published_key not in unknown:
            raise BackboneUnavailableError(f"{what} does not fit: it holds no {published_key}; give the weights of {name}")
        unknown.remove(published_key)
        values = published[published_key]
        if values.dtype != np.dtype(np.float32) or values.shape != shape:
            raise BackboneUnavailableError(
                f"{what} does not fit: {published_key} is {values.dtype}{list(values.shape)} and not float32{list(shape)}; "
                f"give the weights of {name}"
            )
        if not np.isfinite(values).all() or (key.endswith("running_var") and values.min() < 0):
            raise BackboneUnavailableError(f"{what}: {published_key} holds values that no weights have; fetch the file again")
        # A copy, or the whole file would stay in memory.
        weights[key] = np.array(values, order="C")
    if unknown:
        raise BackboneUnavailableError(f"{what} does not fit: it holds {min(unknown)} as well; give the weights of {name}")
    return weights


def _expected(name: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name here, published name and shape of each weight."""
    for layer in all_layers(name):
        yield f"{layer.name}.{CONVOLUTION}.weight", f"{layer.published_convolution}.weight", layer.weight_shape
        for part in _NORM_PARTS:
            yield f"{layer.name}.{NORM}.{part}", f"{layer.published_norm}.{part}", (layer.output_channels,)
    yield f"{CLASSIFIER}.weight", "_fc.weight", (CLASS_COUNT, FEATURE_COUNT)
    yield f"{CLASSIFIER}.bias", "_fc.bias", (CLASS_COUNT,)


def to_safetensors(weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The weights as `efficientnet_lite_torch` reads them."""
    return safetensors.numpy.save(dict(weights))


def build_onnx(
    name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing, kind: NetworkKind
) -> tuple[bytes, int]:
    """The network as ONNX: uint8[N, height, width, 3] named `images` to float32[N, outputs] named `features`.

    `weights` are those of `parse_weights`. Outputs are the features of a body, the logits of a classifier.

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
    data: bytes = model.SerializeToString(deterministic=True)
    return data, count


def build_core_ml_body(name: str, weights: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing) -> bytes:
    """The backbone's part of a Core ML export, from an image to features; see `ocelli_model.exports.core_ml_parts`.

    `weights` are those of `parse_weights`. Needs nothing of coremltools but its message types.
    """
    model = core_ml_messages().Model()
    model.specificationVersion = _CORE_ML_VERSION
    network = model.neuralNetworkClassifier
    network.arrayInputShapeMapping = _EXACT_ARRAY_MAPPING
    network.imageInputShapeMapping = _RANK4_IMAGE_MAPPING
    add_image_input(model, preprocessing)
    writer = _CoreMlWriter(network)
    writer.average(_write_blocks(writer, writer.prepare(preprocessing), _fold_blocks(name, weights, preprocessing)))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@dataclass(frozen=True, kw_only=True, eq=False)
class _Convolution:
    """A layer with its batch norm folded in, at its place in the network."""

    layer: Layer
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    rows: tuple[int, int]
    """Zeros above and below what goes in."""
    columns: tuple[int, int]


class _Writer(Protocol):
    """Adds to a network in one format; values are known by their names."""

    def convolve(self, value: str, convolution: _Convolution) -> str:
        """Without the clip."""
        ...

    def clip(self, value: str, name: str) -> str:
        """ReLU6."""
        ...

    def add(self, first: str, second: str, name: str) -> str:
        """Both have one shape."""
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
    """The blocks with their convolutions, one at a time: all weights together would lie in memory twice."""
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
    """Weights and bias of the convolution that does the work of both; computed with 64 bits."""
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
        """From pixels to what the stem takes."""
        floats = self._graph.node("Cast", [_IMAGES], "floats", to=onnx_messages().TensorProto.FLOAT)
        planes = self._graph.node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
        mean, deviation = (
            self._graph.constant(key, values.astype(np.float32).reshape(1, 3, 1, 1))
            for key, values in zip(("mean", "deviation"), _pixel_scale(preprocessing), strict=True)
        )
        centred = self._graph.node("Sub", [planes, mean], "centred")
        return self._graph.node("Div", [centred, deviation], "normalised")

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
        self._network = network

    def prepare(self, preprocessing: Preprocessing) -> str:
        """From the image to what the stem takes: the cut, then the normalisation."""
        value = IMAGE
        height, width = input_size(preprocessing)
        spare = height - preprocessing.height, width - preprocessing.width
        if any(spare):
            crop = self._layer("cut", [value]).crop
            for amount in spare:
                # Rounded as the server rounds.
                start = round(amount / 2)
                crop.cropAmounts.borderAmounts.add(startEdgeSize=start, endEdgeSize=amount - start)
            value = "cut"
        mean, deviation = _pixel_scale(preprocessing)
        scale = self._layer("normalised", [value]).scale
        scale.shapeScale.append(3)
        scale.scale.floatValue.extend((1 / deviation).tolist())
        scale.hasBias = True
        scale.shapeBias.append(3)
        scale.bias.floatValue.extend((-mean / deviation).tolist())
        return "normalised"

    def convolve(self, value: str, convolution: _Convolution) -> str:
        layer = convolution.layer
        name = f"{layer.name}.convolved"
        parameters = self._layer(name, [value]).convolution
        parameters.outputChannels, parameters.kernelChannels = layer.weight_shape[:2]
        parameters.nGroups = layer.groups
        parameters.kernelSize.extend([layer.kernel] * 2)
        parameters.stride.extend([layer.stride] * 2)
        parameters.dilationFactor.extend([1, 1])
        # The numbers of the table, as in ONNX, and not this format's own rule for SAME.
        for start, end in (convolution.rows, convolution.columns):
            parameters.valid.paddingAmounts.borderAmounts.add(startEdgeSize=start, endEdgeSize=end)
        parameters.weights.floatValue.extend(convolution.weights.ravel().tolist())
        parameters.hasBias = True
        parameters.bias.floatValue.extend(convolution.bias.tolist())
        return name

    def clip(self, value: str, name: str) -> str:
        name = f"{name}.clipped"
        parameters = self._layer(name, [value]).clip
        parameters.minVal, parameters.maxVal = 0.0, CEILING
        return name

    def add(self, first: str, second: str, name: str) -> str:
        name = f"{name}.added"
        self._layer(name, [first, second]).add.SetInParent()
        return name

    def average(self, value: str) -> None:
        """From the last maps to the features, of rank 2 as the classifier's part takes them."""
        pooling = self._layer("averages", [value]).pooling
        pooling.type = pooling.AVERAGE
        pooling.globalPooling = True
        pooling.valid.SetInParent()
        self._layer(FEATURES, ["averages"]).flattenTo2D.axis = 1

    def _layer(self, name: str, inputs: list[str]) -> Any:
        """A new layer, whose output has its name."""
        layer = self._network.layers.add()
        layer.name = name
        layer.input.extend(inputs)
        layer.output.append(name)
        return layer


def _pixel_scale(preprocessing: Preprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel on a scale of 0 to 255."""
    return np.array(preprocessing.mean) * 255, np.array(preprocessing.standard_deviation) * 255
