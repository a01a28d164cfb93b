"""The two parts of a Core ML export: a neural network classifier with one image input, for iOS 14 and macOS 11 or older ones.

The input has the size that the network wants; Vision brings an image of another size to it in the way that the input's
description names. All else is in the network: the crop, normalisation, the head.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocelli_model.exports.heads import LinearHead
from ocelli_model.exports.message_types import core_ml_messages
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


def build_core_ml_head(head: LinearHead, class_names: Sequence[str], *, description: str) -> bytes:
    """The classifier's part, from features to the scores of its classes. `description` is shown to whoever opens the file."""
    model = core_ml_messages().Model()
    network = model.neuralNetworkClassifier
    product = network.layers.add()
    product.name = _PREFIX + "product"
    product.input.append(FEATURES)
    product.output.append(_PREFIX + "margins")
    layer = product.innerProduct
    layer.outputChannels, layer.inputChannels = head.weights.shape
    layer.hasBias = True
    layer.weights.floatValue.extend(head.weights.ravel().tolist())
    layer.bias.floatValue.extend(head.bias.tolist())
    scores = network.layers.add()
    scores.name = _PREFIX + "scores"
    scores.input.append(_PREFIX + "margins")
    scores.output.append(SCORES)
    scores.activation.sigmoid.SetInParent()
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
