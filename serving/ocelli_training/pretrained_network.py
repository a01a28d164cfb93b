"""The network of a pretrained classifier: from a file of weights to the files that engines run, checked by running it.

PyTorch is imported only for torchvision's networks, and only when they are built: an ONNX file needs none.
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
from ocelli_api.classifier import Accelerator, Activation, PretrainedImages, PretrainedWeights
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
from ocelli_training.pretrained_files import PretrainedError, WeightsFile, check_beginning

if TYPE_CHECKING:
    from ocelli_model.backbones.torchvision_backbones import PublishedWeights

ONNX_NAME = "ONNX"
ONNX_VERSION = "1"
"""Raise it with any change of what is put in front of a network."""
ONNX_SIDE_PIXELS = 224
"""Of a network whose input has no fixed size."""
SIZE_LIMIT_BYTES = 2_000_000_000
"""Of the weights of a network: an ONNX file holds no more."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_TOLERANCE = 0.01
"""How far numbers may be from scores, or their sum from 1, and still pass for them: engines round."""


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """What is to be made."""

    weights: PretrainedWeights
    images: PretrainedImages
    activation: Activation
    published: PublishedWeights | None
    file: WeightsFile


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network as it is stored."""

    metadata: BackboneMetadata
    files: Mapping[str, bytes]
    description: str
    """For people."""


def find_published(weights: PretrainedWeights) -> PublishedWeights | None:
    """What torchvision knows of the weights that are named; None where it is to know nothing.

    Raises:
        BackboneUnavailableError: torchvision does not know the name, or PyTorch is needed and is not here.
    """
    if weights.torchvision is None and weights.architecture is None:
        return None
    if importlib.util.find_spec("torchvision") is None:
        raise BackboneUnavailableError(
            f"weights {weights.torchvision or f'of a {weights.architecture}'}: torchvision's networks are read with PyTorch, "
            "which is not installed here; have trainers with PyTorch (an image that was built with "
            "ACCELERATOR=cuda; before `make run`: make .venv/.torch) and put the file of weights where docs/pretrained.md "
            "says, or give the network as an .onnx file in spec.pretrained.weights.url; then raise spec.retrainNonce"
        )
    from ocelli_model.backbones import torchvision_backbones

    if weights.torchvision is not None:
        return torchvision_backbones.find_published_weights(weights.torchvision)
    torchvision_backbones.check_architecture(weights.architecture or "")
    return None


def build_network(request: NetworkRequest, scratch: Path, *, threads: int) -> Network:
    """Read the weights, make the network's files of them, and run it once; `scratch` is an empty folder.

    Raises:
        PretrainedError: the file is no network that can be used, or not the one that is named.
        BackboneUnavailableError: PyTorch is needed and not here.
    """
    file, weights = request.file, request.weights
    check_beginning(file)
    if file.is_onnx and weights.architecture is not None:
        raise PretrainedError(
            f"{file.shown}: an .onnx file holds its network itself; remove spec.pretrained.weights.architecture"
        )
    if file.is_onnx:
        network = _import_onnx(request)
    elif request.published is None and weights.architecture is None:
        raise PretrainedError(
            f"{file.shown}: which network it belongs to is not known; set spec.pretrained.weights.architecture to "
            "torchvision's name of it, or give an .onnx file"
        )
    else:
        network = _export_torchvision(request, threads)
    check_answers(network, request.activation, scratch, shown=file.shown, threads=threads)
    return network


def choose_preprocessing(usual: Preprocessing, images: PretrainedImages) -> Preprocessing:
    """The usual preprocessing with what is set in its place.

    Raises:
        PretrainedError: what is set does not go together.
    """
    height, width = images.height or images.width or usual.height, images.width or images.height or usual.width
    resize, short_side = usual.resize, usual.short_side_pixels
    if images.short_side is not None:
        resize, short_side = ResizeMode.SHORT_SIDE_CROP, images.short_side
    elif images.height is not None or images.width is not None:
        resize, short_side = ResizeMode.SQUASH, None
    if short_side is not None and short_side < max(height, width):
        raise PretrainedError(
            f"images: shortSide is {short_side}, too little to cut {height}x{width} pixels out; "
            "raise it, or lower height and width"
        )
    return replace(
        usual,
        height=height,
        width=width,
        resize=resize,
        short_side_pixels=short_side,
        mean=usual.mean if images.mean is None else _three(images.mean),
        standard_deviation=usual.standard_deviation if images.standard_deviation is None else _three(images.standard_deviation),
    )


def _import_onnx(request: NetworkRequest) -> Network:
    from ocelli_model.backbones.onnx_import import OnnxImportError, put_preprocessing_in_front, read_onnx

    file = request.file
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
        preprocessing = choose_preprocessing(usual, request.images)
        data, output_count = put_preprocessing_in_front(network, preprocessing)
    except OnnxImportError as error:
        raise PretrainedError(f"{file.shown}: {error}") from error
    metadata = BackboneMetadata(
        name=ONNX_NAME,
        version=ONNX_VERSION,
        preprocessing=preprocessing,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=Weights(origin=ONNX_NAME, sha256=file.sha256),
        licence=None,
        files={ONNX_FILE: sha256_hex(data)},
        kind=NetworkKind.ONNX,
    )
    return Network(metadata=metadata, files={ONNX_FILE: data}, description=f"{ONNX_NAME} ({file.sha256[:12]})")


def _export_torchvision(request: NetworkRequest, threads: int) -> Network:
    import torch

    from ocelli_model.backbones import torchvision_backbones
    from ocelli_model.backbones.onnx_export import export_onnx

    torch.set_num_threads(threads)
    file, published = request.file, request.published
    architecture = request.weights.architecture if published is None else published.architecture
    assert architecture is not None
    usual, licence = torchvision_backbones.preprocessing_for(architecture, "" if published is None else published.file_name)
    preprocessing = choose_preprocessing(usual, request.images)
    what = file.shown if published is not None else f"{file.shown}, as a {architecture},"
    try:
        network = torchvision_backbones.build_classifier(architecture, file.path, preprocessing, what=what)
    except BackboneUnavailableError as error:
        raise PretrainedError(str(error)) from error
    size_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    if size_bytes > SIZE_LIMIT_BYTES:
        raise PretrainedError(
            f"{file.shown}: the network has {size_bytes / 1e9:.1f} GB of weights, at most {SIZE_LIMIT_BYTES / 1e9:.0f} GB "
            "can be served; give a smaller one"
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
    # Not the address: files of one digest make one artifact, wherever they lie.
    origin = architecture if published is None else published.name
    metadata = BackboneMetadata(
        name=architecture,
        version=TORCHVISION_VERSION,
        preprocessing=preprocessing,
        feature_count=output_count,
        precision=Precision.FLOAT32,
        weights=Weights(origin=origin, sha256=file.sha256),
        licence=None if published is None else licence,
        files={name: sha256_hex(data) for name, data in files.items()},
        kind=NetworkKind.CLASSIFIER,
    )
    description = f"{architecture} ({file.sha256[:12] if published is None else published.name})"
    return Network(metadata=metadata, files=files, description=description)


def check_answers(network: Network, activation: Activation, scratch: Path, *, shown: str, threads: int) -> None:
    """Run it as an inference server on a CPU will, and check that its answers fit the activation.

    `shown` is what messages call the weights; `scratch` is an empty folder.

    Raises:
        PretrainedError: it cannot be run, or its answers do not fit the activation.
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
        raise PretrainedError(
            f"{shown}: the network answers a test image with what is not a finite number; give an undamaged file"
        )
    _check_activation(shown, activation, answers)


def _check_activation(shown: str, activation: Activation, answers: NDArray[np.float32]) -> None:
    least, most = float(answers.min()), float(answers.max())
    are_scores = least >= -_TOLERANCE and most <= 1 + _TOLERANCE
    if activation is Activation.IDENTITY and not are_scores:
        raise PretrainedError(
            f"{shown}: the network answers a test image with numbers from {least:.3g} to {most:.3g}, which are not scores; "
            "set spec.pretrained.activation to Softmax or Sigmoid"
        )
    if activation is Activation.SOFTMAX and answers.shape[1] == 1:
        raise PretrainedError(
            f"{shown}: the network has one output, whose share of all is always 1; set spec.pretrained.activation to Sigmoid"
        )
    sums = answers.astype(np.float64).sum(axis=1)
    if activation is Activation.SOFTMAX and are_scores and answers.shape[1] > 1 and (np.abs(sums - 1) < _TOLERANCE).all():
        raise PretrainedError(
            f"{shown}: what the network answers adds up to 1, so it is scores already, and Softmax would level them; "
            "set spec.pretrained.activation to Identity"
        )


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
