"""EfficientNet-Lite as ONNX and in PyTorch: the features and logits of the network that its weights were made for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, BackboneError, NetworkKind
from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.efficientnet_lite_table import all_layers, build_blocks
from ocelli_model.backbones.efficientnet_lite_torch import EfficientNetLite, load_network
from ocelli_model.engine import OpenVinoEngine
from ocelli_model.exports.heads import fold_calibration
from ocelli_model.exports.onnx_parts import build_onnx_body, build_onnx_head
from ocelli_model.preprocessing import decode_image
from tests.unit.model.efficientnet import (
    BOUND,
    NAME,
    installed,
    reference,
    reference_network,
    sized,
    weights_of,
)
from tests.unit.model.images import make_file
from tests.unit.model.photographs import photographs
from tests.unit.model.test_exports import make_heads

EXPORT_BOUND = 0.01
"""For scores of losslessly compressed images, as in tests/contract/test_export_parity.py."""
CLASS_NAMES = ("heron", "owl", "wren")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch's threads spin while they wait: if tests share a processor, two take several times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_onnx(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    answer: NDArray[np.float32] = session_of(model).run(["features"], {"images": images})[0]
    return answer


def session_of(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NetworkKind.BODY, NetworkKind.CLASSIFIER])
def test_openvino_gives_the_features_and_logits_of_the_reference(kind: NetworkKind, tmp_path: Path) -> None:
    backbone = installed(tmp_path, kind=kind)
    images = photographs(backbone.metadata.preprocessing)
    computed = OpenVinoEngine(backbone, threads=1).features(images)
    assert computed == pytest.approx(reference(NAME, images, kind), abs=BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("name", efficientnet_lite.NAMES)
def test_onnx_gives_the_logits_of_the_reference(name: str) -> None:
    preprocessing = efficientnet_lite.preprocessing_for(name)
    images = photographs(preprocessing)
    model, count = efficientnet_lite.build_onnx(name, weights_of(name), preprocessing, NetworkKind.CLASSIFIER)
    logits = run_onnx(model, images)
    assert logits.shape == (2, count)
    assert logits == pytest.approx(reference(name, images, NetworkKind.CLASSIFIER), abs=BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("name", efficientnet_lite.NAMES)
def test_module_gives_the_logits_of_the_reference(name: str, tmp_path: Path) -> None:
    backbone = installed(tmp_path, name, NetworkKind.CLASSIFIER)
    images = photographs(backbone.metadata.preprocessing)
    with torch.inference_mode():
        logits = load_network(backbone)(torch.from_numpy(images)).numpy()
    assert logits == pytest.approx(reference(name, images, NetworkKind.CLASSIFIER), abs=BOUND)


# Each stride meets even and odd numbers of rows.
@pytest.mark.slow
@pytest.mark.parametrize("size", [(97, 131), (104, 120), (260, 288)], ids=str)
def test_images_of_any_size_are_padded_as_in_the_reference(size: tuple[int, int], tmp_path: Path) -> None:
    backbone = installed(tmp_path, preprocessing=sized(*size))
    images = photographs(backbone.metadata.preprocessing)
    expected = reference(NAME, images)
    with torch.inference_mode():
        in_torch = load_network(backbone)(torch.from_numpy(images)).numpy()
    assert in_torch == pytest.approx(expected, abs=BOUND)
    assert run_onnx((tmp_path / ONNX_FILE).read_bytes(), images) == pytest.approx(expected, abs=BOUND)


def test_photograph_of_a_palace_is_classified_as_a_palace() -> None:
    """The published names of the outputs are ImageNet's, in its order."""
    preprocessing = efficientnet_lite.preprocessing_for(NAME)
    model, _ = efficientnet_lite.build_onnx(NAME, weights_of(NAME), preprocessing, NetworkKind.CLASSIFIER)
    assert run_onnx(model, photographs(preprocessing)).argmax(axis=1).tolist() == [698, 985]


@pytest.mark.parametrize(("name", "blocks"), [("EfficientNetLite0", 16), ("EfficientNetLite1", 21), ("EfficientNetLite2", 21)])
def test_table_has_the_blocks_of_the_reference(name: str, blocks: int) -> None:
    ours = build_blocks(name)[1:-1]
    theirs = reference_network(name)._blocks
    assert len(ours) == len(theirs) == blocks
    for block, other in zip(ours, theirs, strict=True):
        arguments = other._block_args
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        assert (block.layers[-2].kernel, block.layers[-2].stride) == (arguments.kernel_size, stride)
        assert (block.layers[0].input_channels, block.layers[-1].output_channels) == (
            arguments.input_filters,
            arguments.output_filters,
        )


def test_onnx_accepts_any_number_of_images() -> None:
    preprocessing = sized(96, 96)
    model, _ = efficientnet_lite.build_onnx(NAME, weights_of(NAME), preprocessing, NetworkKind.BODY)
    images = np.concatenate([photographs(preprocessing)] * 3)
    session = session_of(model)
    whole = session.run(None, {"images": images})[0]
    alone = [session.run(None, {"images": image[np.newaxis]})[0] for image in images]
    assert whole == pytest.approx(np.concatenate(alone), abs=1e-5)


@pytest.mark.parametrize("kind", [NetworkKind.BODY, NetworkKind.CLASSIFIER])
def test_onnx_is_valid_and_always_the_same(kind: NetworkKind) -> None:
    preprocessing = efficientnet_lite.preprocessing_for(NAME)
    first, second = (efficientnet_lite.build_onnx(NAME, weights_of(NAME), preprocessing, kind)[0] for _ in range(2))
    onnx.checker.check_model(onnx.load_from_string(first), full_check=True)
    assert first == second


def test_imported_onnx_network_is_not_built() -> None:
    with pytest.raises(ValueError, match="EfficientNetLite0: there is no network of kind ONNX"):
        efficientnet_lite.build_onnx(NAME, weights_of(NAME), sized(96, 96), NetworkKind.ONNX)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NetworkKind.BODY, NetworkKind.CLASSIFIER], ids=["squashed", "cropped"])
def test_onnx_export_gives_the_scores_of_the_server(kind: NetworkKind) -> None:
    preprocessing = efficientnet_lite.preprocessing_for(NAME)
    network, count = efficientnet_lite.build_onnx(NAME, weights_of(NAME), preprocessing, NetworkKind.BODY)
    heads = make_heads(len(CLASS_NAMES), count)
    exported = build_onnx_body(network, preprocessing) + build_onnx_head(fold_calibration(heads), CLASS_NAMES)
    onnx.checker.check_model(onnx.load_from_string(exported), full_check=True)
    session = session_of(exported)
    for pixels in photographs(sized(427, 640)):
        given = session.run(["scores"], {"image": pixels})[0]
        server = decode_image(make_file(pixels, "PNG"), preprocessing)
        expected = heads.scores(run_onnx(network, server[np.newaxis]))[0]
        assert given == pytest.approx(expected, abs=EXPORT_BOUND)


@pytest.mark.slow
def test_files_are_made_without_the_heavy_packages() -> None:
    program = (
        "import sys\n"
        "from ocelli_model.backbone import NetworkKind\n"
        "from ocelli_model.backbones import efficientnet_lite as lite\n"
        "from ocelli_model.backbones.packaged_weights import read_packaged_weights\n"
        "from ocelli_model.exports.onnx_parts import build_onnx_body\n"
        f"name = {NAME!r}\n"
        "weights = lite.parse_weights(name, read_packaged_weights(name))\n"
        "prepared = lite.preprocessing_for(name)\n"
        "build_onnx_body(lite.build_onnx(name, weights, prepared, NetworkKind.BODY)[0], prepared)\n"
        "lite.build_core_ml_body(name, weights, prepared), lite.to_safetensors(weights)\n"
        "print({'torch', 'onnx', 'coremltools', 'openvino'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_weights_have_the_names_of_the_module() -> None:
    network = EfficientNetLite(NAME, sized(96, 96), NetworkKind.CLASSIFIER)
    wanted = [key for key in network.state_dict() if not key.endswith(".num_batches_tracked")]
    assert sorted(weights_of(NAME)) == sorted(wanted)


def test_module_can_be_fine_tuned(tmp_path: Path) -> None:
    network = load_network(installed(tmp_path, preprocessing=sized(64, 64))).train()
    images = torch.from_numpy(np.concatenate([photographs(sized(64, 64))] * 2))
    before = network.get_buffer("stem.norm.running_mean").clone()
    network(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    moved = network.get_buffer("stem.norm.running_mean") - before
    assert 0 < moved.abs().max() < 0.05 * before.abs().max()


def test_module_reports_damaged_weights(tmp_path: Path) -> None:
    backbone = installed(tmp_path, preprocessing=sized(64, 64))
    (tmp_path / WEIGHTS_FILE).write_bytes((tmp_path / WEIGHTS_FILE).read_bytes()[:-1])
    with pytest.raises(BackboneError, match=r"EfficientNetLite0 .*model.safetensors cannot be read as weights; publish"):
        load_network(backbone)


def test_module_reports_weights_of_another_network(tmp_path: Path) -> None:
    backbone = installed(tmp_path, preprocessing=sized(64, 64))
    (tmp_path / WEIGHTS_FILE).write_bytes(efficientnet_lite.to_safetensors(weights_of("EfficientNetLite2")))
    with pytest.raises(BackboneError, match="has weights with wrong shapes; publish the backbone again"):
        load_network(backbone)


def test_module_names_missing_weights(tmp_path: Path) -> None:
    backbone = installed(tmp_path, kind=NetworkKind.CLASSIFIER)
    body = {key: values for key, values in weights_of(NAME).items() if not key.startswith("classifier")}
    (tmp_path / WEIGHTS_FILE).write_bytes(efficientnet_lite.to_safetensors(body))
    with pytest.raises(BackboneError, match=r"does not fit: it has no classifier.weight; publish the backbone again"):
        load_network(backbone)


def test_a_wrong_batch_norm_changes_the_features_noticeably() -> None:
    """The bound of these tests detects an epsilon of 1e-5 instead of the right one."""
    layer = next(all_layers(NAME))
    variance = weights_of(NAME)[f"{layer.name}.norm.running_var"]
    altered = {**weights_of(NAME), f"{layer.name}.norm.running_var": variance - np.float32(1e-3) + np.float32(1e-5)}
    preprocessing = sized(96, 96)
    images = photographs(preprocessing)
    features = run_onnx(efficientnet_lite.build_onnx(NAME, altered, preprocessing, NetworkKind.BODY)[0], images)
    assert np.abs(features - reference(NAME, images)).max() > BOUND
