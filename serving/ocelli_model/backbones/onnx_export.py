"""Exports a PyTorch network to ONNX: uint8[N, height, width, 3] named `images` to float32[N, features] named `features`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import torch
from torch import nn

from ocelli_model.backbones.onnx_origins import strip_origins
from ocelli_model.preprocessing import Preprocessing

OPSET = 18
INPUT_NAME = "images"
OUTPUT_NAME = "features"


def export_onnx(network: nn.Module, preprocessing: Preprocessing) -> tuple[bytes, int]:
    """Export a network in evaluation mode.

    Returns:
        The ONNX model, without information on where and when it was made, and the number of features.

    Raises:
        ValueError: the output of the network is not float32[N, features].
    """
    # Two images: the exporter would treat a dimension of one as a constant.
    images = torch.zeros((2, preprocessing.height, preprocessing.width, 3), dtype=torch.uint8)
    with torch.inference_mode():
        features = network(images)
    if features.dim() != 2 or features.dtype != torch.float32:
        raise ValueError(
            f"the output of the network is {features.dtype} of shape {tuple(features.shape)}, not float32[N, features]"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (images,),
            path,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        model = onnx.load(path)
    strip_origins(model)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True), int(features.shape[1])
