"""The two parts of a Core ML export: a neural network classifier with one image input, for iOS 14 and macOS 11 or older ones.

The input has the size that the network needs; Vision scales an image of another size as the input's description says.
Everything else is in the network: crop, normalisation, head.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocelli_model.exports.core_ml_layers import CoreMlLayers
from ocelli_model.exports.heads import REJECTION_DECAY, REJECTION_EXPONENTS
from ocelli_model.exports.message_types import core_ml_messages, serialized
from ocelli_model.heads import REJECTION_START, Heads, Rejection
from ocelli_model.preprocessing import Preprocessing, ResizeMode

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

IMAGE = "image"
CLASS_LABEL = "classLabel"
SCORES = "classLabelProbs"
CROP_KEY = "ocelli.imageCropAndScale"
FEATURES = "features"
"""Output of the backbone's part and input of the classifier's part: float32[1, D]."""
_PREFIX = "ocelli_head_"
# The server's value is 1e-12, which is 0 in half precision: GPU and Neural Engine would divide 0 by 0.
_LEAST_LENGTH = 1e-6


def build_core_ml_body(network: nn.Module, preprocessing: Preprocessing) -> bytes | None:
    """The backbone's part, from an image to features; None if coremltools cannot express the network.

    `network` is from uint8[N, height, width, 3] to float32[N, features]. Needs PyTorch and coremltools.
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
    return serialized(model)


def add_image_input(model: Any, preprocessing: Preprocessing) -> None:
    """Describe the input image of the network, and how Vision scales an image of another size to it."""
    image = model.description.input.add()
    image.name = IMAGE
    image.shortDescription = _describe_input(preprocessing)
    kind = image.type.imageType
    kind.height, kind.width = input_size(preprocessing)
    kind.colorSpace = kind.RGB
    entry = model.description.metadata.userDefined
    entry[CROP_KEY] = "centerCrop" if preprocessing.resize is ResizeMode.SHORT_SIDE_CROP else "scaleFill"


def build_core_ml_head(head: Heads, class_names: Sequence[str]) -> bytes:
    """The classifier's part, from features to the scores of its classes."""
    model = core_ml_messages().Model()
    network = model.neuralNetworkClassifier
    layers = CoreMlLayers(network, _PREFIX)
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
    return serialized(model)


def _normalise(layers: CoreMlLayers, power: float) -> str:
    """As `ocelli_model.heads.normalised`."""
    magnitudes = layers.unary("ABS", "magnitudes", FEATURES)
    raised = layers.unary("POWER", "raised", magnitudes, alpha=power)
    signed = layers.add("multiplyBroadcastable", "signed", layers.add("sign", "signs", FEATURES), raised)
    length = layers.reduce("reduceL2", "length", signed)
    divisor = layers.unary("THRESHOLD", "divisor", length, alpha=_LEAST_LENGTH)
    return layers.add("divideBroadcastable", "normalised", signed, divisor)


def _rejection_factor(layers: CoreMlLayers, inputs: str, rejection: Rejection) -> str:
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
    """Height and width of the image input, before a crop."""
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
    """The converter's specification from image to features; None if it has no layers for the network."""
    import torch
    from torch import nn

    # coremltools draws progress bars, and warns about every version that it was not tested with.
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    height, width = input_size(preprocessing)
    top, left = round((height - preprocessing.height) / 2), round((width - preprocessing.width) / 2)

    class FromImage(nn.Module):
        """Takes float32[1, 3, height, width] of 0 to 255, as Core ML passes images."""

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
        # Its errors have no common type, and all mean the same.
        logger.warning("network cannot be expressed in Core ML", extra={"cause": f"{type(error).__name__}: {error}"[:500]})
        return None
    return core_ml_messages().Model.FromString(converted.get_spec().SerializeToString())
