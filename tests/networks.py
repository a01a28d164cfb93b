"""Small pretrained networks made by tests: ONNX ones that distinguish colours, and torchvision's with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

COLOURS = ("red", "green", "blue")
PLAIN_IMAGES = {"mean": [0.0, 0.0, 0.0], "standardDeviation": [1.0, 1.0, 1.0], "height": 32}
"""`spec.pretrained.images` that do not change colours."""
SHARES = np.eye(3, dtype=np.float32) * 20
"""float32[outputs, 3]: each output rises with one colour's share of the image."""

_SHAPE: tuple[int | str, ...] = ("N", 3, "H", "W")


def build_onnx(
    weights: NDArray[np.float32] = SHARES,
    *,
    shape: Sequence[int | str] = _SHAPE,
    kind: int = TensorProto.FLOAT,
    last: str | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A network that averages each channel and multiplies the averages by weights [outputs, 3]; `last` is its last step."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["averages"]),
        helper.make_node("Flatten", ["averages"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["answer" if last is None else "sums"], transB=1),
    ]
    if last is not None:
        nodes.append(helper.make_node(last, ["sums"], ["answer"]))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", kind, list(shape))],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [shape[0], len(weights)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(0 * weights[:, 0], "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def onnx_bytes(*arguments: Any, **options: Any) -> bytes:
    """The file of `build_onnx`."""
    data: bytes = build_onnx(*arguments, **options).SerializeToString()
    return data


def save_torchvision(path: Path, name: str = "squeezenet1_1", *, outputs: int = 7, seed: int = 0, spread: float = 1.0) -> Path:
    """A state_dict of a whole network; `spread` multiplies its last layer, so that outputs differ more."""
    import safetensors.torch
    import torch
    from torchvision import models

    torch.manual_seed(seed)
    state = models.get_model(name, weights=None, num_classes=outputs).state_dict()
    last = list(state)[-2]
    state[last] = state[last] * spread
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def softmax_of_torchvision(path: Path, images: NDArray[np.uint8], name: str = "squeezenet1_1", *, outputs: int = 7) -> Any:
    """The output of PyTorch with float32 for uint8[N, height, width, 3], normalised as for ImageNet."""
    import torch
    from torchvision import models

    network = models.get_model(name, weights=None, num_classes=outputs)
    state: Mapping[str, torch.Tensor] = torch.load(path, weights_only=True)
    network.load_state_dict(state)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        return network.eval()((pixels - mean) / deviation).softmax(1).numpy()
