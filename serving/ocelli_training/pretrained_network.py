"""The network of a pretrained classifier: from a file of weights to the files that engines run, checked by running it.

PyTorch is imported only to build torchvision's networks; an ONNX file does not need it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.classifier import Accelerator, Activation, Pretrained, PretrainedImages, PretrainedWeights
from ocelli_model.backbone import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneError,
    BackboneMetadata,
    BackboneUnavailableError,
    NetworkKind,
    Precision,
    Weights,
)
from ocelli_model.backbones.torchvision_family import VERSION as TORCHVISION_VERSION
from ocelli_model.engine import load_engine
from ocelli_model.preprocessing import Preprocessing, ResizeMode
from ocelli_training.pretrained_files import PretrainedError, check_beginning

if TYPE_CHECKING:
    from ocelli_model.backbones.published_weights import WeightsFile
    from ocelli_model.backbones.torchvision_backbones import PublishedWeights

ONNX_NAME = "ONNX"
ONNX_VERSION = "1"
"""Raise it with any change of the preprocessing that is put in front of a network."""
ONNX_SIDE_PIXELS = 224
"""For a network whose input has no fixed size."""
SIZE_LIMIT_BYTES = 2_000_000_000
"""Largest size of a network's weights: that of an ONNX file."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_TOLERANCE = 0.01
"""How far scores may be outside 0 to 1, or their sum from 1: engines round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network as it is stored."""

    metadata: BackboneMetadata
    files: Mapping[str, bytes]
    description: str
    """For people."""


def find_published(weights: PretrainedWeights) -> PublishedWeights | None:
    """The published weights that the spec names; None where it names none. An architecture is checked.

    Raises:
        BackboneUnavailableError: torchvision does not know the name, or PyTorch is needed and not installed.
    """
    if weights.torchvision is None and weights.architecture is None:
        return None
    if importlib.util.find_spec("torchvision") is None:
        raise BackboneUnavailableError(
            f"weights {weights.torchvision or f'of a {weights.architecture}'}: torchvision's networks need PyTorch, which this "
            "trainer does not have; use a trainer image that was built with ACCELERATOR=cuda (before `make run`: "
            "make .venv/.torch) and put the file of weights where docs/pretrained.md says, or set "
            "spec.pretrained.weights.url to the network as an .onnx file; then raise spec.retrainNonce"
        )
    from ocelli_model.backbones import torchvision_backbones

    if weights.torchvision is not None:
        return torchvision_backbones.find_published_weights(weights.torchvision)
    torchvision_backbones.check_architecture(weights.architecture or "")
    return None


def build_network(
    pretrained: Pretrained, published: PublishedWeights | None, file: WeightsFile, scratch: Path, *, threads: int
) -> Network:
    """Read the weights, build the network's files, and run them once; `scratch` is an empty folder.

    Raises:
        PretrainedError: the file is not a usable network, or not the one that the spec names.
        BackboneUnavailableError: PyTorch is needed and not installed.
    """
    architecture = pretrained.weights.architecture
    is_onnx = Path(file.name).suffix.lower() == ".onnx"
    check_beginning(file)
    if is_onnx and architecture is not None:
        raise PretrainedError(f"{file.shown}: an .onnx file contains its network; remove spec.pretrained.weights.architecture")
    if is_onnx:
        network = _import_onnx(file, pretrained.images)
    elif published is None and architecture is None:
        raise PretrainedError(
            f"{file.shown}: the network of these weights is not known; set spec.pretrained.weights.architecture to "
            "torchvision's name of it, or give an .onnx file"
        )
    else:
        network = _export_torchvision(pretrained, published, file, threads)
    check_answers(network, pretrained.activation, scratch, shown=file.shown, threads=threads)
    return network


def choose_preprocessing(usual: Preprocessing, images: PretrainedImages) -> Preprocessing:
    """The usual preprocessing, with the values that the spec sets.

    Raises:
        PretrainedError: the values contradict each other.
    """
    height, width = images.height or images.width or usual.height, images.width or images.height or usual.width
    resize, short_side = usual.resize, usual.short_side_pixels
    if images.short_side is not None:
        resize, short_side = ResizeMode.SHORT_SIDE_CROP, images.short_side
    elif images.height is not None or images.width is not None:
        resize, short_side = ResizeMode.SQUASH, None
    if short_side is not None and short_side < max(height, width):
        raise PretrainedError(
            f"images: shortSide {short_side} is too small to crop {height}x{width} pixels; raise it, or lower height and width"
        )
    return replace(
        usual,
        height=height,
        width=width,
        resize=resize,
        short_side_pixels=short_side,
        mean=_three(images.mean) or usual.mean,
        standard_deviation=_three(images.standard_deviation) or usual.standard_deviation,
    )


def _import_onnx(file: WeightsFile, images: PretrainedImages) -> Network:
    from ocelli_model.backbones.onnx_import import OnnxImportError, put_preprocessing_in_front, read_onnx

    try:
        network = read_onnx(file.path)
        height, width = network.height or ONNX_SIDE_PIXELS, network.width or ONNX_SIDE_PIXELS
        usual = Preprocessing(
            height=height,
            width=width,
            resize=ResizeMode.SHORT_SIDE_CROP,
            short_side_pixels=max(height, width) * 8 // 7,
            mean=_IMAGENET_MEAN,
            standard_deviation=_IMAGENET_DEVIATION,
        )
        preprocessing = choose_preprocessing(usual, images)
        data, output_count = put_preprocessing_in_front(network, preprocessing)
    except OnnxImportError as error:
        raise PretrainedError(f"{file.shown}: {error}") from error
    metadata = BackboneMetadata(
        name=ONNX_NAME,
        version=ONNX_VERSION,
        preprocessing=preprocessing,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=Weights(origin=ONNX_NAME, sha256=file.weights.sha256),
        licence=None,
        files={ONNX_FILE: sha256_hex(data)},
        kind=NetworkKind.ONNX,
    )
    return Network(metadata=metadata, files={ONNX_FILE: data}, description=f"{ONNX_NAME} ({file.weights.sha256[:12]})")


def _export_torchvision(pretrained: Pretrained, published: PublishedWeights | None, file: WeightsFile, threads: int) -> Network:
    import torch

    from ocelli_model.backbones import torchvision_backbones
    from ocelli_model.backbones.onnx_export import export_onnx

    torch.set_num_threads(threads)
    architecture = pretrained.weights.architecture if published is None else published.architecture
    assert architecture is not None
    usual, licence = torchvision_backbones.preprocessing_for(architecture, "" if published is None else published.file_name)
    preprocessing = choose_preprocessing(usual, pretrained.images)
    what = file.shown if published is not None else f"{file.shown}, as a {architecture},"
    try:
        network = torchvision_backbones.build_classifier(architecture, file.path, preprocessing, what=what)
    except BackboneUnavailableError as error:
        raise PretrainedError(str(error)) from error
    size_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    if size_bytes > SIZE_LIMIT_BYTES:
        raise PretrainedError(
            f"{file.shown}: the network has {size_bytes / 1e9:.1f} GB of weights; at most {SIZE_LIMIT_BYTES / 1e9:.0f} GB "
            "can be served: give a smaller one"
        )
    try:
        with torch.inference_mode():
            network(torch.zeros((1, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise PretrainedError(
            f"images: a {architecture} does not take {preprocessing.height}x{preprocessing.width} pixels; "
            "correct height and width, or leave them out"
        ) from error
    onnx, output_count = export_onnx(network, preprocessing)
    files = {ONNX_FILE: onnx, WEIGHTS_FILE: torchvision_backbones.network_weights(network)}
    # Not the address: files of one digest give one artifact, wherever they come from.
    origin = architecture if published is None else published.name
    metadata = BackboneMetadata(
        name=architecture,
        version=TORCHVISION_VERSION,
        preprocessing=preprocessing,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=Weights(origin=origin, sha256=file.weights.sha256),
        licence=None if published is None else licence,
        files={name: sha256_hex(data) for name, data in files.items()},
        kind=NetworkKind.CLASSIFIER,
    )
    description = f"{architecture} ({file.weights.sha256[:12] if published is None else published.name})"
    return Network(metadata=metadata, files=files, description=description)


def check_answers(network: Network, activation: Activation, scratch: Path, *, shown: str, threads: int) -> None:
    """Run the network as an inference server on a CPU does, and check that its outputs fit the activation.

    `shown` is what messages call the weights; `scratch` is an empty folder.

    Raises:
        PretrainedError: it cannot be run, or its outputs do not fit the activation.
    """
    preprocessing = network.metadata.preprocessing
    for name, data in network.files.items():
        (scratch / name).write_bytes(data)
    noise = np.random.default_rng(0).integers(0, 256, (2, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    try:
        engine = load_engine(Backbone(metadata=network.metadata, folder=scratch), threads=threads, device=Accelerator.CPU)
        answers = engine.features(noise)
    except (BackboneError, RuntimeError, ValueError) as error:
        raise PretrainedError(f"{shown}: the network cannot be run; give another one") from error
    if not np.isfinite(answers).all():
        raise PretrainedError(f"{shown}: the network's outputs for a test image are not finite numbers; give an undamaged file")
    _check_activation(shown, activation, answers)


def _check_activation(shown: str, activation: Activation, answers: NDArray[np.float32]) -> None:
    least, most = float(answers.min()), float(answers.max())
    are_scores = least >= -_TOLERANCE and most <= 1 + _TOLERANCE
    if activation is Activation.IDENTITY and not are_scores:
        raise PretrainedError(
            f"{shown}: the network's outputs for a test image are from {least:.3g} to {most:.3g}, so they are not scores; "
            "set spec.pretrained.activation to Softmax or Sigmoid"
        )
    if activation is Activation.SOFTMAX and answers.shape[1] == 1:
        raise PretrainedError(
            f"{shown}: the network has one output, for which Softmax is always 1; set spec.pretrained.activation to Sigmoid"
        )
    sums = answers.astype(np.float64).sum(axis=1)
    if activation is Activation.SOFTMAX and are_scores and answers.shape[1] > 1 and (np.abs(sums - 1) < _TOLERANCE).all():
        raise PretrainedError(
            f"{shown}: the network's outputs add up to 1, so they are scores already, and another Softmax would flatten them; "
            "set spec.pretrained.activation to Identity"
        )


def _three(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])
