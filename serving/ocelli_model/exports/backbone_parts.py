"""The parts of exports that a backbone brings, made when it is published. Needs PyTorch and coremltools."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ocelli_model.backbone import CORE_ML_BODY_FILE, ONNX_BODY_FILE
from ocelli_model.exports.core_ml_parts import build_core_ml_body
from ocelli_model.exports.onnx_parts import build_onnx_body
from ocelli_model.preprocessing import Preprocessing


def build_body_files(network: nn.Module, onnx: bytes, preprocessing: Preprocessing) -> Mapping[str, bytes]:
    """The files by name; without Core ML where that has no layers for the network. `onnx` is the network as ONNX."""
    files = {ONNX_BODY_FILE: build_onnx_body(onnx, preprocessing)}
    core_ml = build_core_ml_body(network, preprocessing)
    if core_ml is not None:
        files[CORE_ML_BODY_FILE] = core_ml
    return files
