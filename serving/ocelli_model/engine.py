"""Engines run backbones: OpenVINO on a CPU, PyTorch on a GPU. Trainer and inference server use the same ones.

The features of an image do not depend on the other images of a batch: OpenVINO computes each image separately, one per thread;
PyTorch gets padded batches of one size. Importing this module does not import torch.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, BackboneError, BackboneMetadata, NetworkKind, Precision
from ocelli_model.backbones.families import find_family

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    """A backbone that is ready to run."""

    @property
    def name(self) -> str:
        """For logs and metrics, such as `OpenVINO CPU float32`."""
        ...

    @property
    def metadata(self) -> BackboneMetadata:
        """Metadata of the backbone."""
        ...

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From uint8[N, height, width, 3] to float32[N, features]; N may be 0. Blocks; calls run one after another.

        A row is bit-identical for the same image.

        Raises:
            ValueError: the images do not have the shape or dtype of the backbone's preprocessing.
        """
        ...


def available_device(device: Accelerator = Accelerator.AUTO) -> Accelerator:
    """The device for a setting: CPU or GPU. `Auto` is a GPU if there is one that PyTorch can use.

    Imports torch only if an NVIDIA driver is present.

    Raises:
        BackboneError: the setting is a GPU, and there is none that PyTorch can use.
    """
    if device is Accelerator.CPU:
        return device
    if Path("/dev/nvidiactl").exists() and importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return Accelerator.GPU
    if device is Accelerator.GPU:
        raise BackboneError(
            "engine: the accelerator is GPU, but PyTorch finds no GPU; use an image with PyTorch for GPUs on a GPU node, "
            "or set the accelerator to CPU"
        )
    return Accelerator.CPU


def device_for(metadata: BackboneMetadata, device: Accelerator) -> Accelerator:
    """The device returned by `available_device`, or the CPU for a network that cannot run in PyTorch."""
    runs_in_pytorch = metadata.kind is not NetworkKind.ONNX and find_family(metadata.name) is not None
    return device if runs_in_pytorch else Accelerator.CPU


def needed_files(device: Accelerator) -> Sequence[str]:
    """The files of a backbone that `load_engine` needs on a device returned by `device_for`."""
    return (WEIGHTS_FILE,) if device is Accelerator.GPU else (ONNX_FILE,)


def load_engine(
    backbone: Backbone, *, threads: int, device: Accelerator = Accelerator.AUTO, precision: Precision | None = None
) -> Engine:
    """Load a backbone, and run it once so that the first image is not slow.

    `precision` is that of the artifact's features; None: that of the backbone.

    Raises:
        BackboneError: the files cannot be run, or there is no such device.
    """
    if threads < 1:
        raise ValueError(f"engine: the number of threads is {threads}; it must be at least 1")
    engine: Engine
    if device_for(backbone.metadata, available_device(device)) is Accelerator.GPU:
        engine = TorchEngine(backbone, torch_device="cuda", threads=threads, precision=precision)
    else:
        engine = OpenVinoEngine(backbone, threads=threads, precision=precision)
    preprocessing = backbone.metadata.preprocessing
    engine.features(np.zeros((threads, preprocessing.height, preprocessing.width, 3), dtype=np.uint8))
    return engine


class OpenVinoEngine:
    """A backbone's ONNX file in OpenVINO, on a CPU."""

    def __init__(self, backbone: Backbone, *, threads: int, precision: Precision | None = None) -> None:
        """`precision`: see `load_engine`."""
        # OpenVINO reports each of its imports to its makers, from a child process, if this package is there. An entry without
        # a module makes the import fail; OpenVINO then uses a stand-in of its own that sends nothing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self.metadata = backbone.metadata
        preprocessing = self.metadata.preprocessing
        core = openvino.Core()
        fastest = (precision or self.metadata.precision) is Precision.FASTEST
        in_bfloat16 = fastest and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.name = f"OpenVINO CPU {'bfloat16' if in_bfloat16 else 'float32'}"
        try:
            model = core.read_model(backbone.folder / ONNX_FILE)
            model.reshape([1, preprocessing.height, preprocessing.width, 3])
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    # Without the hint OpenVINO uses bfloat16 if the processor supports it.
                    "INFERENCE_PRECISION_HINT": "bf16" if in_bfloat16 else "f32",
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": threads,
                    # Pods share the cores of a node. With pinning, two servers could wait for one core while another is idle.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise BackboneError(
                f"backbone {backbone.name} ({backbone.digest}): OpenVINO cannot run {ONNX_FILE}; publish it again"
            ) from error
        self._requests = openvino.AsyncInferQueue(compiled, threads)
        self._requests.set_callback(_copy_features)
        self._lock = threading.Lock()

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        _refuse_images(images, self.metadata)
        features = np.empty((len(images), self.metadata.feature_count), dtype=np.float32)
        with self._lock:
            for index in range(len(images)):
                self._requests.start_async({0: images[index : index + 1]}, (features, index))
            self._requests.wait_all()
        return features


class TorchEngine:
    """A backbone's PyTorch network, with float32, or with bfloat16 on a GPU if the precision allows it."""

    def __init__(self, backbone: Backbone, *, torch_device: str, threads: int, precision: Precision | None = None) -> None:
        """`precision`: see `load_engine`."""
        import torch

        from ocelli_model.backbones.families import load_network

        self.metadata = backbone.metadata
        self._device = torch.device(torch_device)
        on_gpu = self._device.type == "cuda"
        if not on_gpu:
            torch.set_num_threads(threads)
        # TensorFloat-32 keeps 10 bits of a float32's mantissa. By default PyTorch uses it for convolutions.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        fastest = (precision or self.metadata.precision) is Precision.FASTEST
        self._autocast = on_gpu and fastest and torch.cuda.is_bf16_supported()
        self.name = f"PyTorch {'GPU' if on_gpu else 'CPU'} {'bfloat16' if self._autocast else 'float32'}"
        # All batches have one size: libraries choose algorithms by the batch size, and these round differently.
        self._batch_size = 32 if on_gpu else 4
        self._network = load_network(backbone).to(self._device)
        self._lock = threading.Lock()

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        _refuse_images(images, self.metadata)
        features = np.empty((len(images), self.metadata.feature_count), dtype=np.float32)
        with self._lock, torch.inference_mode():
            for start in range(0, len(images), self._batch_size):
                chunk = images[start : start + self._batch_size]
                features[start : start + len(chunk)] = self._run(chunk)[: len(chunk)].float().cpu().numpy()
        return features

    def _run(self, images: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        batch = np.zeros((self._batch_size, *images.shape[1:]), dtype=np.uint8)
        batch[: len(images)] = images
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
            answer: torch.Tensor = self._network(torch.from_numpy(batch).to(self._device))
        return answer


def _copy_features(request: Any, target: tuple[NDArray[np.float32], int]) -> None:
    features, index = target
    features[index] = request.get_output_tensor().data[0]


def _refuse_images(images: NDArray[np.uint8], metadata: BackboneMetadata) -> None:
    wanted = (metadata.preprocessing.height, metadata.preprocessing.width, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ValueError(
            f"backbone {metadata.name}: the images are {images.dtype}{list(images.shape)}, not uint8{['N', *wanted]}; "
            "decode them with this backbone's preprocessing"
        )
