"""Scores of a tuned network, in the engine of an inference server with a GPU and in that of one without.

Import it after `prepare_imports`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import WEIGHTS_FILE, Backbone, Precision
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.efficientnet_lite_torch import network_weights
from ocelli_model.backbones.families import build_tuned
from ocelli_model.engine import Engine, OpenVinoEngine, TorchEngine
from ocelli_model.heads import Heads
from ocelli_training.fit import FEATURE_POWER
from tests.gpu_check.tuning import PreparedTuning, count_cores


class Scorer:
    """Scores pictures."""

    def __init__(self, prepared: PreparedTuning, scratch: Path) -> None:
        """`scratch` is a folder."""
        self._prepared, self._scratch = prepared, scratch
        libraries = ("openvino", "onnx", "coremltools")
        self._has_openvino = all(importlib.util.find_spec(name) is not None for name in libraries)

    @property
    def cpu_engine(self) -> str:
        """OpenVINO serves on CPUs; where it is not installed, PyTorch stands in for it."""
        return "OpenVINO, CPU" if self._has_openvino else "PyTorch, CPU"

    def served(self, network: Path, pictures: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
        """float32[N, C]: of a network that was tuned, as an inference server with that device answers."""
        tuned = self._prepared.build_network()
        tuned.load_state_dict(safetensors.torch.load_file(network))
        heads = Heads(
            weights=tuned.head.weight.detach().numpy(),
            bias=tuned.head.bias.detach().numpy(),
            slope=np.ones(len(tuned.head.bias), dtype=np.float32),
            offset=np.zeros(len(tuned.head.bias), dtype=np.float32),
            power=FEATURE_POWER,
        )
        backbone = self._prepared.backbone
        if self._has_openvino:
            metadata, files = build_tuned(backbone.metadata, tuned.body.eval())
        else:
            files = {WEIGHTS_FILE: efficientnet_lite.to_safetensors(network_weights(tuned.body))}
            metadata = replace(backbone.metadata, files={name: sha256_hex(data) for name, data in files.items()})
        folder = self._scratch / "served"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return heads.scores(self._engine(Backbone(metadata=metadata, folder=folder), device).features(pictures))

    def untuned(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32[N, C]: of the linear heads."""
        engine = TorchEngine(self._prepared.backbone, torch_device=self._prepared.device.type, threads=count_cores())
        return replace(self._prepared.heads, rejection=None).scores(engine.features(pictures))

    def _engine(self, backbone: Backbone, device: str) -> Engine:
        if device == "cpu" and self._has_openvino:
            return OpenVinoEngine(backbone, threads=count_cores(), precision=Precision.FLOAT32)
        return TorchEngine(backbone, torch_device=device, threads=count_cores(), precision=Precision.FLOAT32)
