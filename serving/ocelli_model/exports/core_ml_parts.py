"""The two parts of a Core ML export: a neural network classifier with one image input, for iOS 14 and macOS 11 or older ones.

The input has the size that the network wants; Vision brings an image of another size to it in the way that the input's
description names. All else is in the network: the crop, normalisation, the head.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocelli_model.exports.heads import REJECTION_DECAY, REJECTION_EXPONENTS, FoldedHead
from ocelli_model.exports.message_types import core_ml_messages
from ocelli_model.heads import REJECTION_START, Rejection
from ocelli_model.preprocessing import Preprocessing, ResizeMode

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

IMAGE = "image"
CLASS_LABEL = "classLabel"
SCORES = "classLabelProbs"
CROP_KEY = "ocelli.imageCropAndScale"
FEATURES = "features"
"""What the backbone's part gives and the classifier's part takes: float32[1, D]."""
_PREFIX = "ocelli_head_"
# The server's is 1e-12, which half precision has as 0: GPU and Neural Engine would divide 0 by 0.
_LEAST_LENGTH = 1e-6


def build_core_ml_body(network: nn.Module, preprocessing: Preprocessing) -> bytes | None:
    """The backbone's part, from an image to features; None where coremltools cannot express the network.

    `network` takes uint8[N, height, width, 3] and answers float32[N, features]. Needs PyTorch and coremltools.
    """
    specification = _convert(network, preprocessing)
    if specification is None:
        return None
    model = core_ml_messages().Model()
    model.specificationVersion = specification.specificationVersion
    converted = specification.neuralNetwork
    body = model.neuralNetworkClassifier
    body.layers.extend(converted.layers)
    body.preprocessing.extend(converted.preprocessing)
    body.arrayInputShapeMapping = converted.arrayInputShapeMapping
    body.imageInputShapeMapping = converted.imageInputShapeMapping
    add_image_input(model, preprocessing)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def add_image_input(model: Any, preprocessing: Preprocessing) -> None:
    """Describe the image that the network takes, and how Vision brings one of another size to it."""
    image = model.description.input.add()
    image.name = IMAGE
    image.shortDescription = _describe_input(preprocessing)
    kind = image.type.imageType
    kind.height, kind.width = input_size(preprocessing)
    kind.colorSpace = kind.RGB
    entry = model.description.metadata.userDefined
    entry[CROP_KEY] = "centerCrop" if preprocessing.resize is ResizeMode.SHORT_SIDE_CROP else "scaleFill"


def build_core_ml_head(head: FoldedHead, class_names: Sequence[str], *, description: str) -> bytes:
    """The classifier's part, from features to the scores of its classes. `description` is shown to whoever opens the file."""
    model = core_ml_messages().Model()
    network = model.neuralNetworkClassifier
    layers = _HeadLayers(network)
    inputs = FEATURES if head.power is None else _normalise(layers, head.power)
    margins = layers.product("product", inputs, head.weights, head.bias, output=_PREFIX + "margins")
    if head.rejection is None:
        layers.add("activation", "scores", margins, output=SCORES, sigmoid={})
    else:
        unrejected = layers.add("activation", "unrejected", margins, sigmoid={})
        factor = _rejection_factor(layers, inputs, head.rejection)
        layers.add("multiplyBroadcastable", "scores", unrejected, factor, output=SCORES)
    network.labelProbabilityLayerName = SCORES
    network.stringClassLabels.vector.extend(class_names)
    label = model.description.output.add()
    label.name = CLASS_LABEL
    label.shortDescription = "The class of the highest score"
    label.type.stringType.SetInParent()
    probabilities = model.description.output.add()
    probabilities.name = SCORES
    probabilities.shortDescription = "The score of each class, 0 to 1, each for itself; from 0.5 on an image counts as of it"
    probabilities.type.dictionaryType.stringKeyType.SetInParent()
    model.description.predictedFeatureName = CLASS_LABEL
    model.description.predictedProbabilitiesName = SCORES
    model.description.metadata.shortDescription = description
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _HeadLayers:
    """Adds the layers of a classifier's part. Values are float32[1, width]; methods return the names of those they add.

    Core ML has these layers from specification version 4 on, which is the least that the backbones' parts have.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    def add(self, kind: str, name: str, *inputs: str, output: str = "", **parameters: Any) -> str:
        """`kind` and `parameters` are those of the specification. The value has the layer's name, or that of `output`."""
        layer = self._network.layers.add(name=_PREFIX + name, input=inputs, output=[output or _PREFIX + name])
        message = getattr(layer, kind)
        # So that it is there without parameters, too.
        message.SetInParent()
        message.MergeFrom(type(message)(**parameters))
        return str(layer.output[0])

    def product(
        self, name: str, value: str, weights: NDArray[np.float32], bias: NDArray[np.float32], *, output: str = ""
    ) -> str:
        """`weights @ value + bias`."""
        outputs, inputs = weights.shape
        return self.add(
            "innerProduct",
            name,
            value,
            output=output,
            outputChannels=outputs,
            inputChannels=inputs,
            hasBias=True,
            weights={"floatValue": weights.ravel().tolist()},
            bias={"floatValue": bias.tolist()},
        )

    def unary(self, function: str, name: str, value: str, *, alpha: float = 0.0) -> str:
        """Of each number."""
        return self.add("unary", name, value, type=function, alpha=alpha, scale=1.0)

    def reduce(self, kind: str, name: str, value: str) -> str:
        """To float32[1, 1]."""
        return self.add(kind, name, value, axes=[-1], keepDims=True)


def _normalise(layers: _HeadLayers, power: float) -> str:
    """As `ocelli_model.heads.normalised`."""
    magnitudes = layers.unary("ABS", "magnitudes", FEATURES)
    raised = layers.unary("POWER", "raised", magnitudes, alpha=power)
    signed = layers.add("multiplyBroadcastable", "signed", layers.add("sign", "signs", FEATURES), raised)
    length = layers.reduce("reduceL2", "length", signed)
    divisor = layers.unary("THRESHOLD", "divisor", length, alpha=_LEAST_LENGTH)
    return layers.add("divideBroadcastable", "normalised", signed, divisor)


def _rejection_factor(layers: _HeadLayers, inputs: str, rejection: Rejection) -> str:
    """As `ocelli_model.heads.Rejection`: float32[1, 1]."""
    outside = layers.product("outside", inputs, rejection.linear, rejection.constant)
    square = layers.reduce("reduceMin", "nearest", outside)
    if len(rejection.directions):
        inside = layers.product("inside", inputs, rejection.directions, rejection.centre)
        square = layers.add(
            "subtractBroadcastable", "square", square, layers.reduce("reduceSumSquare", "inside_square", inside)
        )
    positive = layers.unary("THRESHOLD", "positive_square", square, alpha=0.0)
    distance = layers.unary("SQRT", "distance", positive)
    falling = {"alpha": -REJECTION_DECAY, "beta": REJECTION_DECAY * REJECTION_START}
    exponent = layers.add("activation", "falling", distance, linear=falling)
    least, greatest = REJECTION_EXPONENTS
    bounded = layers.add("clip", "exponent", exponent, minVal=least, maxVal=greatest)
    return layers.unary("EXP", "factor", bounded)


def input_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the image input: before the crop, where there is one."""
    side = preprocessing.short_side_pixels
    return (preprocessing.height, preprocessing.width) if side is None else (side, side)


def _describe_input(preprocessing: Preprocessing) -> str:
    height, width = input_size(preprocessing)
    if preprocessing.resize is not ResizeMode.SHORT_SIDE_CROP:
        return f"RGB image, scaled to {width}x{height} whatever its shape (VNImageCropAndScaleOption.scaleFill)"
    return (
        f"RGB image: the shorter side scaled to {preprocessing.short_side_pixels}, the middle square of it "
        "(VNImageCropAndScaleOption.centerCrop)"
    )


def _convert(network: nn.Module, preprocessing: Preprocessing) -> Any:
    """The converter's specification of image to features, or None where it has no layers for the network."""
    import torch
    from torch import nn

    # It draws progress bars and warns of every version that it was not tested with.
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    height, width = input_size(preprocessing)
    top, left = round((height - preprocessing.height) / 2), round((width - preprocessing.width) / 2)

    class FromImage(nn.Module):
        """float32[1, 3, height, width] of 0 to 255, as Core ML hands images on."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            cut = image[:, :, top : top + preprocessing.height, left : left + preprocessing.width]
            answer: torch.Tensor = self.network(cut.permute(0, 2, 3, 1))
            return answer

    example = torch.zeros((1, 3, height, width))
    try:
        with torch.inference_mode():
            traced = torch.jit.trace(FromImage().eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        converted = coremltools.convert(
            traced,
            convert_to="neuralnetwork",
            inputs=[coremltools.ImageType(name=IMAGE, shape=tuple(example.shape), color_layout=coremltools.colorlayout.RGB)],
            outputs=[coremltools.TensorType(name=FEATURES)],
        )
    except Exception as error:
        # Its errors have no common type; what they mean is always the same.
        logger.warning("network cannot be expressed in Core ML", extra={"cause": f"{type(error).__name__}: {error}"[:500]})
        return None
    return core_ml_messages().Model.FromString(converted.get_spec().SerializeToString())
