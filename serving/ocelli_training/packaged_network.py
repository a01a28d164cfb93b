"""Networks of packaged weights, and the meaning of their outputs. Without downloads, PyTorch and `onnx`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.classifier import PackagedLabels, PackagedWeightsName
from ocelli_model.backbone import (
    ONNX_FILE,
    WEIGHTS_FILE,
    BackboneMetadata,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
)
from ocelli_model.backbones import efficientnet_lite, open_nsfw
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS, read_packaged_weights
from ocelli_model.imagenet.label_set import load_imagenet, load_imagenet_food
from ocelli_training.pretrained_labels import Hierarchy, Labels, Translations, packaged_meaning
from ocelli_training.pretrained_network import Network

_LABEL_SETS = {
    PackagedLabels.IMAGENET: ("Ocelli's ImageNet-1k labels", load_imagenet),
    PackagedLabels.IMAGENET_FOOD: ("Ocelli's labels of ImageNet-1k's foods", load_imagenet_food),
}


@dataclass(frozen=True, kw_only=True)
class PackagedClassifier:
    """A network whose weights are a Python package."""

    labels: Labels | PackagedLabels
    """The labels of its outputs, where the definition names no others."""
    temperature: float
    """See `OutputHead`."""
    build: Callable[[bytes], Network]


def read_packaged_labels(labels: PackagedLabels) -> tuple[Labels, Hierarchy, Translations]:
    """Labels that are part of this program."""
    source, load = _LABEL_SETS[labels]
    return packaged_meaning(load(), source)


def build_packaged_network(name: PackagedWeightsName) -> Network:
    """Read the weights from their package and build the network's files.

    Raises:
        BackboneUnavailableError: the package is missing, or its file has another digest.
    """
    try:
        return PACKAGED_CLASSIFIERS[name].build(read_packaged_weights(name))
    except BackboneUnavailableError as error:
        raise BackboneUnavailableError(f"{error}; then raise spec.retrainNonce to try again") from error


def _build_efficientnet_lite(data: bytes) -> Network:
    name = PackagedWeightsName.EFFICIENTNET_LITE0
    preprocessing = efficientnet_lite.preprocessing_for(name)
    weights = efficientnet_lite.parse_weights(name, data)
    onnx, output_count = efficientnet_lite.build_onnx(name, weights, preprocessing, NetworkKind.CLASSIFIER)
    files = {ONNX_FILE: onnx, WEIGHTS_FILE: efficientnet_lite.to_safetensors(weights)}
    metadata = BackboneMetadata(
        name=name,
        version=efficientnet_lite.VERSION,
        preprocessing=preprocessing,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=PACKAGED_WEIGHTS[name].describe(),
        licence=PACKAGED_WEIGHTS[name].licence,
        files={file: sha256_hex(content) for file, content in files.items()},
        kind=NetworkKind.CLASSIFIER,
    )
    return Network(metadata=metadata, files=files, description=f"{name} (packaged weights)")


def _build_open_nsfw(data: bytes) -> Network:
    name = PackagedWeightsName.OPEN_NSFW
    onnx, output_count = open_nsfw.build_onnx(data)
    metadata = BackboneMetadata(
        name=name,
        version=open_nsfw.VERSION,
        preprocessing=open_nsfw.PREPROCESSING,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=PACKAGED_WEIGHTS[name].describe(),
        licence=PACKAGED_WEIGHTS[name].licence,
        files={ONNX_FILE: sha256_hex(onnx)},
        kind=NetworkKind.ONNX,
    )
    return Network(metadata=metadata, files={ONNX_FILE: onnx}, description=f"{name} (packaged weights)")


PACKAGED_CLASSIFIERS: Mapping[PackagedWeightsName, PackagedClassifier] = {
    PackagedWeightsName.EFFICIENTNET_LITE0: PackagedClassifier(
        labels=PackagedLabels.IMAGENET,
        # Trained with label smoothing, it is underconfident. Fitted on photographs, see docs/decisions/0011.
        temperature=0.7,
        build=_build_efficientnet_lite,
    ),
    PackagedWeightsName.OPEN_NSFW: PackagedClassifier(
        labels=Labels(source=f"the labels of {open_nsfw.NAME}", names=open_nsfw.LABELS), temperature=1.0, build=_build_open_nsfw
    ),
}
