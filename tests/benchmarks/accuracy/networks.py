"""The networks that are compared: backbones, ways to prepare an image, and precisions, each run by OpenVINO."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_model.backbone import NetworkKind
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.backbones.packaged_weights import read_packaged_weights
from ocelli_model.preprocessing import Preprocessing, ResizeMode

CALIBRATION_PICTURES = 200
_TIMED_PICTURES = 16
_TIMED_REPEATS = 6
_SQUASHED_SIDES = (224, 256, 288)
_QUANTISER = Path(__file__).with_name("quantise.py")


class NumberFormat(StrEnum):
    """The numeric precision of a network."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "INT8"


class NotMeasurableError(Exception):
    """This network cannot be run here. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is compared."""

    backbone: str
    preprocessing: Preprocessing
    numbers: NumberFormat = NumberFormat.FLOAT32

    @property
    def title(self) -> str:
        """Short enough for a column."""
        text = self.backbone.removeprefix("EfficientNet")
        height, short_side = self.preprocessing.height, self.preprocessing.short_side_pixels
        if self.preprocessing.resize is ResizeMode.SQUASH:
            text += f" squash {height}"
        else:
            text += f" crop {height} of {short_side}"
        return text if self.numbers is NumberFormat.FLOAT32 else f"{text} {self.numbers}"


def compared_networks() -> list[Network]:
    """First the default backbone; all others differ from it in one property, or are larger."""
    default = efficientnet_lite.preprocessing_for(DEFAULT_BACKBONE)
    squashed = [
        replace(default, resize=ResizeMode.SQUASH, short_side_pixels=None, height=side, width=side) for side in _SQUASHED_SIDES
    ]
    ways = [default, replace(default, height=256, width=256), *squashed]
    networks = [Network(backbone=DEFAULT_BACKBONE, preprocessing=way) for way in dict.fromkeys(ways)]
    networks += [
        Network(backbone=name, preprocessing=efficientnet_lite.preprocessing_for(name))
        for name in efficientnet_lite.NAMES
        if name != DEFAULT_BACKBONE
    ]
    networks += [replace(networks[0], numbers=numbers) for numbers in (NumberFormat.BFLOAT16, NumberFormat.INT8)]
    return networks


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Makes networks and features, and caches expensive results in a folder."""

    folder: Path
    quantiser_python: Path | None
    """A Python interpreter that has NNCF; None if there is none."""

    def build(self, network: Network, calibration: NDArray[np.uint8]) -> Model:
        """The network as a model. `calibration` are decoded pictures, read only for INT8.

        Raises:
            NotMeasurableError: it cannot be run here.
        """
        onnx = _build_onnx(network.backbone, network.preprocessing)
        file = self.folder / f"{_digest(onnx)}.onnx"
        _write(file, onnx)
        if network.numbers is NumberFormat.INT8:
            file = self._quantise(file, calibration)
        if network.numbers is NumberFormat.BFLOAT16 and "BF16" not in _capabilities():
            raise NotMeasurableError("this processor has no bfloat16")
        return Model(network=network, file=file)

    def features(self, model: Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of every image, read from the folder if they were computed before. float32[N, features]."""
        key = _digest(model.file.stem.encode(), str(model.network.numbers).encode(), _openvino_version(), images.tobytes())
        file = self.folder / f"{key}.npy"
        if not file.exists():
            computed = model.run(images, threads=len(os.sched_getaffinity(0)))
            temporary = self.folder / f"{key}.tmp.npy"
            np.save(temporary, computed, allow_pickle=False)
            temporary.replace(file)
        features: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return features

    def _quantise(self, onnx: Path, calibration: NDArray[np.uint8]) -> Path:
        if self.quantiser_python is None:
            raise NotMeasurableError("NNCF is not installed; run make benchmark-accuracy")
        target = self.folder / f"int8-{_digest(onnx.stem.encode(), calibration.tobytes())}.xml"
        if not target.exists():
            pictures = self.folder / "calibration.npy"
            np.save(pictures, calibration, allow_pickle=False)
            command = [str(self.quantiser_python), str(_QUANTISER), str(onnx), str(pictures), str(target)]
            # With this variable NNCF sends nothing about its use to anyone.
            done = subprocess.run(command, env={**os.environ, "NNCF_CI": "1"}, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise NotMeasurableError(f"NNCF failed: {done.stderr.strip().splitlines()[-1:]}")
        return target


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that OpenVINO can run."""

    network: Network
    file: Path
    """ONNX, or OpenVINO's own format if it is quantised."""

    def run(self, images: NDArray[np.uint8], *, threads: int) -> NDArray[np.float32]:
        """Features float32[N, D], an image at a time on each thread."""
        import openvino

        features: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(images)

        def keep(request: Any, index: int) -> None:
            features[index] = request.get_output_tensor().data[0].copy()

        requests = openvino.AsyncInferQueue(self._compile(threads), threads)
        requests.set_callback(keep)
        for index in range(len(images)):
            requests.start_async({0: images[index : index + 1]}, index)
        requests.wait_all()
        return np.stack(features)

    def milliseconds(self, images: NDArray[np.uint8]) -> float:
        """Time of one image on one thread: the shortest mean of several rounds."""
        request = self._compile(1).create_infer_request()
        images = images[:_TIMED_PICTURES]
        request.infer({0: images[:1]})
        rounds = []
        for _ in range(_TIMED_REPEATS):
            started = time.perf_counter()
            for index in range(len(images)):
                request.infer({0: images[index : index + 1]})
            rounds.append((time.perf_counter() - started) / len(images))
        return 1000 * min(rounds)

    def _compile(self, threads: int) -> Any:
        import openvino

        core = openvino.Core()
        model = core.read_model(self.file)
        model.reshape([1, self.network.preprocessing.height, self.network.preprocessing.width, 3])
        hint = "bf16" if self.network.numbers is NumberFormat.BFLOAT16 else "f32"
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
        return core.compile_model(model, "CPU", {**options, "ENABLE_CPU_PINNING": False})


def imagenet_probabilities(backbone: str, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The output of the backbone's own last layer: softmax over the 1,000 classes of ImageNet."""
    weights = _read_weights(backbone)
    last = efficientnet_lite.CLASSIFIER
    logits = features.astype(np.float64) @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How far ImageNet's probabilities move from those of float32, over all pictures and classes."""

    largest: float
    mean: float
    """Of each picture's largest."""
    other_top: float
    """The share of the pictures that get another class."""


def measure_disagreement(backbone: str, features: NDArray[np.float32], exact: NDArray[np.float32]) -> Disagreement:
    """Features of the same pictures, computed otherwise and with float32."""
    others, probabilities = imagenet_probabilities(backbone, features), imagenet_probabilities(backbone, exact)
    moved = np.abs(others - probabilities).max(axis=1)
    return Disagreement(
        largest=float(moved.max()),
        mean=float(moved.mean()),
        other_top=float((others.argmax(axis=1) != probabilities.argmax(axis=1)).mean()),
    )


def choose_calibration(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pictures that INT8 is calibrated with: spread evenly over all of them."""
    return images[:: max(1, len(images) // CALIBRATION_PICTURES)][:CALIBRATION_PICTURES]


@functools.cache
def _read_weights(backbone: str) -> Any:
    return efficientnet_lite.parse_weights(backbone, read_packaged_weights(backbone))


@functools.cache
def _build_onnx(backbone: str, preprocessing: Preprocessing) -> bytes:
    return efficientnet_lite.build_onnx(backbone, _read_weights(backbone), preprocessing, NetworkKind.BODY)[0]


@functools.cache
def _capabilities() -> tuple[str, ...]:
    import openvino

    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _openvino_version() -> bytes:
    import openvino

    return str(openvino.__version__).encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(file)
