"""In every mode, the preprocessing in ONNX exports gives the same pixels as the server."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ocelli_model.exports.onnx_parts import IMAGE, build_onnx_body
from ocelli_model.preprocessing import Preprocessing, ResizeMode, decode_image
from tests.unit.model.images import make_file, make_pixels

MODES = {
    "squash": Preprocessing(height=40, width=36),
    "short side": Preprocessing(height=40, width=36, resize=ResizeMode.SHORT_SIDE_CROP, short_side_pixels=48),
    "squash and crop": Preprocessing(height=40, width=36, resize=ResizeMode.SQUASH_CROP, short_side_pixels=48),
}


def build_pixels(preprocessing: Preprocessing) -> onnxruntime.InferenceSession:
    """An export's first part, followed by a network that returns its pixels."""
    shape = ["N", preprocessing.height, preprocessing.width, 3]
    network = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["features"], to=TensorProto.FLOAT)],
        "pixels",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    body = onnx.load_from_string(build_onnx_body(model.SerializeToString(), preprocessing))
    body.graph.output.append(network.output[0])
    return onnxruntime.InferenceSession(body.SerializeToString())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(96, 128), (150, 50), (30, 31)])
def test_exports_prepare_images_as_the_server_does(mode: str, size: tuple[int, int]) -> None:
    pixels = make_pixels(height=size[0], width=size[1])
    expected = decode_image(make_file(pixels, "PNG"), MODES[mode])
    (given,) = build_pixels(MODES[mode]).run(["features"], {IMAGE: pixels})
    assert np.abs(given[0] - expected).max() <= 1
