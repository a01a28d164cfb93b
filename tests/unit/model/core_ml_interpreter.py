"""Runs the layers of a Core ML neural network with PyTorch, one by one, from the specification alone.

Core ML itself runs on Apple's systems only. It is not part of the product: with it, tests on any machine check that a file's
declared preprocessing, layers and weights give the scores that the server gives. An unknown layer is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ocelli_model.exports.core_ml_parts import FEATURES


class UnknownLayerError(Exception):
    """The interpreter does not know what a layer does."""


def run_core_ml(model: Any, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, float]]:
    """The probabilities by class name, of each image uint8[height, width, 3] of the declared size."""
    _read_weights.clear()
    return [_run(model, pixels) for pixels in images]


def run_core_ml_layer(model: Any, images: Sequence[NDArray[np.uint8]], name: str) -> NDArray[np.float32]:
    """The output of one layer for each image; also for a part of a model."""
    _read_weights.clear()
    return np.concatenate([_values(model, pixels)[name].numpy() for pixels in images])


def run_core_ml_head(model: Any, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores float32[N, C] of a classifier's part alone for features float32[N, D], row by row."""
    _read_weights.clear()
    network = model.neuralNetworkClassifier
    rows = [_run_layers(network, {FEATURES: torch.from_numpy(row[np.newaxis])}) for row in features]
    return np.concatenate([values[network.labelProbabilityLayerName].numpy() for values in rows])


def _run(model: Any, pixels: NDArray[np.uint8]) -> dict[str, float]:
    network = model.neuralNetworkClassifier
    scores = _values(model, pixels)[network.labelProbabilityLayerName].flatten().tolist()
    return dict(zip(network.stringClassLabels.vector, scores, strict=True))


def _values(model: Any, pixels: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Everything that is computed, by name."""
    network = model.neuralNetworkClassifier
    (declared,) = model.description.input
    image = declared.type.imageType
    assert pixels.shape == (image.height, image.width, 3)
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    return _run_layers(network, {declared.name: _scaled(network, planes)})


def _run_layers(network: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    values = dict(given)
    for layer in network.layers:
        kind = layer.WhichOneof("layer")
        if kind not in LAYERS:
            raise UnknownLayerError(f"layer {layer.name}: {kind}")
        answer = LAYERS[kind](getattr(layer, kind), [values[name] for name in layer.input])
        answers = answer if isinstance(answer, list) else [answer]
        values.update(zip(layer.output, answers, strict=True))
    return values


def _scaled(network: Any, image: Tensor) -> Tensor:
    for item in network.preprocessing:
        scaler = item.scaler
        bias = torch.tensor([scaler.redBias, scaler.greenBias, scaler.blueBias]).view(1, 3, 1, 1)
        image = image * scaler.channelScale + bias
    return image


Layer = Callable[[Any, list[Tensor]], Any]


_read_weights: dict[int, tuple[Any, Tensor]] = {}
"""Of the running model, by the identity of its messages; this also keeps them alive."""


def _weights(weights: Any, *shape: int) -> Tensor:
    if id(weights) not in _read_weights:
        _read_weights[id(weights)] = (weights, torch.from_numpy(np.array(weights.floatValue, dtype=np.float32)))
    return _read_weights[id(weights)][1].view(*shape)


def _padding(params: Any, oneof: str) -> tuple[int, int, int, int]:
    assert params.WhichOneof(oneof) == "valid"
    borders = params.valid.paddingAmounts.borderAmounts
    if not borders:
        return (0, 0, 0, 0)
    (top, left) = borders
    return (left.startEdgeSize, left.endEdgeSize, top.startEdgeSize, top.endEdgeSize)


def _convolution(params: Any, inputs: list[Tensor]) -> Tensor:
    (image,) = inputs
    assert not params.isDeconvolution
    height, width = params.kernelSize
    groups = params.nGroups or 1
    weights = _weights(params.weights, params.outputChannels, params.kernelChannels, height, width)
    bias = _weights(params.bias, params.outputChannels) if params.hasBias else None
    padded = functional.pad(image, _padding(params, "ConvolutionPaddingType"))
    return functional.conv2d(
        padded,
        weights,
        bias,
        stride=tuple(params.stride) or 1,
        dilation=tuple(params.dilationFactor) or 1,
        groups=groups,
    )


def _pooling(params: Any, inputs: list[Tensor]) -> Tensor:
    (image,) = inputs
    names = {0: "max", 1: "average"}
    kind = names[params.type]
    if params.globalPooling:
        return image.amax((2, 3), keepdim=True) if kind == "max" else image.mean((2, 3), keepdim=True)
    padding = params.WhichOneof("PoolingPaddingType")
    size, stride = tuple(params.kernelSize), tuple(params.stride)
    if padding == "includeLastPixel":
        (top, left) = params.includeLastPixel.paddingAmounts
        assert kind == "max"
        return functional.max_pool2d(image, size, stride, padding=(top, left), ceil_mode=True)
    if kind == "max":
        borders = _padding(params, "PoolingPaddingType")
        return functional.max_pool2d(functional.pad(image, borders, value=-math.inf), size, stride)
    assert _padding(params, "PoolingPaddingType") == (0, 0, 0, 0)
    return functional.avg_pool2d(image, size, stride)


def _pad(params: Any, inputs: list[Tensor]) -> Tensor:
    (image,) = inputs
    (top, left) = params.paddingAmounts.borderAmounts
    amounts = (left.startEdgeSize, left.endEdgeSize, top.startEdgeSize, top.endEdgeSize)
    kind = params.WhichOneof("PaddingType")
    if kind == "constant":
        return functional.pad(image, amounts, value=params.constant.value)
    return functional.pad(image, amounts, mode={"reflection": "reflect", "replication": "replicate"}[kind])


def _crop(params: Any, inputs: list[Tensor]) -> Tensor:
    (image,) = inputs
    (top, left) = params.cropAmounts.borderAmounts
    height, width = image.shape[-2:]
    return image[..., top.startEdgeSize : height - top.endEdgeSize, left.startEdgeSize : width - left.endEdgeSize]


def _scale(params: Any, inputs: list[Tensor]) -> Tensor:
    """With one factor for each channel, or one for all."""
    (image,) = inputs
    assert len(params.shapeScale) == 1
    scaled = image * _weights(params.scale, params.shapeScale[0], 1, 1)
    if not params.hasBias:
        return scaled
    assert len(params.shapeBias) == 1
    return scaled + _weights(params.bias, params.shapeBias[0], 1, 1)


def _unary(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    value = value * (params.scale or 1.0) + params.shift
    epsilon = params.epsilon
    operations: dict[int, Callable[[Tensor], Tensor]] = {
        0: lambda x: torch.sqrt(x),
        1: lambda x: torch.rsqrt(x + epsilon),
        2: lambda x: 1 / (x + epsilon),
        3: lambda x: x**params.alpha,
        4: torch.exp,
        5: torch.log,
        6: torch.abs,
        7: lambda x: torch.clamp(x, min=params.alpha),
    }
    return operations[params.type](value)


def _activation(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    kind = params.WhichOneof("NonlinearityType")
    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "ReLU": torch.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "linear": lambda x: params.linear.alpha * x + params.linear.beta,
        "sigmoidHard": lambda x: torch.clamp(params.sigmoidHard.alpha * x + params.sigmoidHard.beta, 0, 1),
    }
    return operations[kind](value)


def _slice(params: Any, inputs: list[Tensor]) -> Tensor:
    """The older slice: along channel, height or width, counted from the end."""
    (value,) = inputs
    axis = {0: -3, 1: -2, 2: -1}[params.axis]
    end = params.endIndex if params.endIndex else value.shape[axis]
    index = [slice(None)] * value.dim()
    index[axis] = slice(params.startIndex, end if end != -1 else None, params.stride or 1)
    return value[tuple(index)]


def _slice_static(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    index: list[slice | int] = []
    for axis, begin in enumerate(params.beginIds):
        if axis < len(params.squeezeMasks) and params.squeezeMasks[axis]:
            index.append(begin)
            continue
        first = None if params.beginMasks[axis] else begin
        last = None if params.endMasks[axis] else params.endIds[axis]
        index.append(slice(first, last, params.strides[axis]))
    return value[tuple(index)]


def _reduce(name: str) -> Layer:
    def reduce(params: Any, inputs: list[Tensor]) -> Tensor:
        (value,) = inputs
        axes = list(range(value.dim())) if params.reduceAll else list(params.axes)
        operations: dict[str, Callable[..., Tensor]] = {
            "sum": torch.sum,
            "mean": torch.mean,
            "max": torch.amax,
            "min": torch.amin,
            "length": torch.linalg.vector_norm,
            "squares": lambda x, **over: (x * x).sum(**over),
        }
        answer: Tensor = operations[name](value, dim=axes, keepdim=params.keepDims)
        return answer

    return reduce


def _arg_max(params: Any, inputs: list[Tensor]) -> Tensor:
    answer = inputs[0].argmax(params.axis, keepdim=not params.removeDim)
    return answer.float()


def _gather(params: Any, inputs: list[Tensor]) -> Tensor:
    return inputs[0].gather(params.axis, inputs[1].long())


def _expand(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    rank = value.dim() + len(params.axes)
    for axis in sorted(axis % rank for axis in params.axes):
        value = value.unsqueeze(axis)
    return value


def _squeeze(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    for axis in sorted((axis % value.dim() for axis in params.axes), reverse=True):
        value = value.squeeze(axis)
    return value


def _constant(params: Any, inputs: list[Tensor]) -> Tensor:
    return _weights(params.data, *params.shape)


def _inner_product(params: Any, inputs: list[Tensor]) -> Tensor:
    weights = _weights(params.weights, params.outputChannels, params.inputChannels)
    answer = inputs[0] @ weights.T
    return answer + _weights(params.bias, params.outputChannels) if params.hasBias else answer


def _batch_norm(params: Any, inputs: list[Tensor]) -> Tensor:
    (value,) = inputs
    shape = (1, params.channels, 1, 1)
    gamma, beta = _weights(params.gamma, *shape), _weights(params.beta, *shape)
    mean, variance = _weights(params.mean, *shape), _weights(params.variance, *shape)
    return (value - mean) / torch.sqrt(variance + params.epsilon) * gamma + beta


def _add(params: Any, inputs: list[Tensor]) -> Tensor:
    return inputs[0] + params.alpha if len(inputs) == 1 else sum(inputs[1:], inputs[0])


def _multiply(params: Any, inputs: list[Tensor]) -> Tensor:
    if len(inputs) == 1:
        return inputs[0] * params.alpha
    product = inputs[0]
    for item in inputs[1:]:
        product = product * item
    return product


def _two(operation: Callable[[Tensor, Tensor], Tensor]) -> Layer:
    return lambda params, inputs: operation(inputs[0], inputs[1])


def _compare(operation: Callable[[Tensor, Any], Tensor]) -> Layer:
    return lambda params, inputs: operation(inputs[0], inputs[1] if len(inputs) > 1 else params.alpha).float()


LAYERS: dict[str, Layer] = {
    "activation": _activation,
    "add": _add,
    "addBroadcastable": _two(torch.add),
    "argMax": _arg_max,
    "atan": lambda params, inputs: torch.atan(inputs[0]),
    "batchnorm": _batch_norm,
    "clip": lambda params, inputs: torch.clamp(inputs[0], params.minVal, params.maxVal),
    "concat": lambda params, inputs: torch.cat(inputs, dim=-3),
    "concatND": lambda params, inputs: torch.cat(inputs, dim=params.axis),
    "convolution": _convolution,
    "crop": _crop,
    "divideBroadcastable": _two(torch.div),
    "expandDims": _expand,
    "flattenTo2D": lambda params, inputs: inputs[0].flatten(params.axis),
    "gatherAlongAxis": _gather,
    "greaterEqual": _compare(torch.ge),
    "greaterThan": _compare(torch.gt),
    "innerProduct": _inner_product,
    "lessEqual": _compare(torch.le),
    "lessThan": _compare(torch.lt),
    "loadConstantND": _constant,
    "min": lambda params, inputs: torch.minimum(inputs[0], inputs[1]),
    "max": lambda params, inputs: torch.maximum(inputs[0], inputs[1]),
    "multiply": _multiply,
    "multiplyBroadcastable": _two(torch.mul),
    "padding": _pad,
    "pooling": _pooling,
    "reduceL2": _reduce("length"),
    "reduceMax": _reduce("max"),
    "reduceMean": _reduce("mean"),
    "reduceMin": _reduce("min"),
    "reduceSum": _reduce("sum"),
    "reduceSumSquare": _reduce("squares"),
    "reshapeStatic": lambda params, inputs: inputs[0].reshape(tuple(params.targetShape)),
    "scale": _scale,
    "sign": lambda params, inputs: torch.sign(inputs[0]),
    "slice": _slice,
    "sliceStatic": _slice_static,
    "squeeze": _squeeze,
    "subtractBroadcastable": _two(torch.sub),
    "transpose": lambda params, inputs: inputs[0].permute(tuple(params.axes)),
    "unary": _unary,
    "whereBroadcastable": lambda params, inputs: torch.where(inputs[0] != 0, inputs[1], inputs[2]),
}
