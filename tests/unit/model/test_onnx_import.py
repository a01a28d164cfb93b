"""Classifying networks imported from ONNX: which are accepted, their preprocessing, and the errors for all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ocelli_model.backbones.onnx_import import OnnxImportError, put_preprocessing_in_front, read_onnx
from ocelli_model.preprocessing import Preprocessing
from tests.networks import SHARES, build_onnx
from tests.unit.model.images import make_pixels

SIZE = 32
PREPROCESSING = Preprocessing(height=SIZE, width=SIZE, mean=(0.5, 0.4, 0.3), standard_deviation=(0.2, 0.25, 0.3))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "network.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def refusal(path: Path, preprocessing: Preprocessing = PREPROCESSING) -> str:
    with pytest.raises(OnnxImportError) as caught:
        put_preprocessing_in_front(read_onnx(path), preprocessing)
    return str(caught.value)


def run(data: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"images": images})
    return np.asarray(answer)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shape": (1, 3, SIZE, SIZE)},
        {"shape": (1, 3, "H", "W")},
        {"shape": ("N", 3, SIZE, SIZE)},
        {"opset": 9},
        {"opset": 13},
    ],
)
def test_pixels_are_normalised_and_turned_before_they_enter(
    save: Callable[[onnx.ModelProto], Path], options: dict[str, object]
) -> None:
    image = make_pixels(1, height=SIZE, width=SIZE)[None]

    data, count = put_preprocessing_in_front(read_onnx(save(build_onnx(**options))), PREPROCESSING)

    normalised = (image / 255 - PREPROCESSING.mean) / PREPROCESSING.standard_deviation
    assert count == 3
    assert run(data, image) == pytest.approx(normalised.mean((1, 2)) @ SHARES.T, abs=1e-4)


def test_the_same_file_gives_the_same_bytes(save: Callable[[onnx.ModelProto], Path]) -> None:
    path = save(build_onnx())
    assert put_preprocessing_in_front(read_onnx(path), PREPROCESSING) == put_preprocessing_in_front(
        read_onnx(path), PREPROCESSING
    )


def test_a_network_with_internal_names_of_ocelli_is_accepted(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    assert put_preprocessing_in_front(read_onnx(save(model)), PREPROCESSING)[1] == 3


def test_functions_that_come_with_the_file_are_inlined(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Positive", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Positive", ["before"], ["answer"], domain="own"))
    assert put_preprocessing_in_front(read_onnx(save(model)), PREPROCESSING)[1] == 3


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"\x00" * 40, b"", b"\x80\x02}q\x00."])
def test_bytes_that_are_not_onnx_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    assert "ONNX" in refusal(tmp_path / "x.onnx")


def test_a_file_that_is_cut_off_is_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    path = save(build_onnx())
    path.write_bytes(path.read_bytes()[:-20])
    assert "ONNX" in refusal(path)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"shape": ("N", "H", "W", 3)}, "export it with one input float32[N, 3, height, width]: channels first"),
        ({"shape": (8, 3, SIZE, SIZE)}, "takes 8 images; export it for one image"),
        ({"shape": ("N", 1, SIZE, SIZE)}, "export it with one input float32[N, 3, height, width]: three channels"),
        ({"shape": ("N", SIZE, SIZE, 3)}, "export it with one input float32[N, 3, height, width]: channels first"),
        ({"shape": ("N", 3, SIZE)}, "export it with one input float32[N, 3, height, width]"),
        ({"shape": ("N", 3, 64, 64)}, "its input has a height of 64 pixels, not 32; set images.height to 64"),
        ({"kind": TensorProto.UINT8}, "input pixels is uint8[N, 3, N, N]"),
    ],
)
def test_input_of_another_form_is_refused(
    save: Callable[[onnx.ModelProto], Path], options: dict[str, object], fact: str
) -> None:
    # Only the declaration is changed: the types of the network no longer match it.
    model = build_onnx()
    shape = options.get("shape", ("N", 3, "H", "W"))
    kind = options.get("kind", TensorProto.FLOAT)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", kind, shape))
    assert fact in refusal(save(model))


def test_two_inputs_are_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [2]))
    assert "it has 2 inputs" in refusal(save(model))


def test_two_outputs_are_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 3]))
    assert "it has 2 outputs" in refusal(save(model))


def test_output_of_another_rank_is_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("averages", TensorProto.FLOAT, ["N", 3, 1, 1]))
    assert "its output averages is float[N, 3, 1, 1]" in refusal(save(model))


def test_a_foreign_operator_is_refused_by_its_name(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    model.graph.node[-1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "operator Gemm of com.example" in refusal(save(model))


@pytest.mark.parametrize("opset", [6, 1000])
def test_an_opset_that_is_too_old_or_too_new_is_refused(save: Callable[[onnx.ModelProto], Path], opset: int) -> None:
    assert "opset" in refusal(save(build_onnx(opset=opset)))


def test_weights_in_another_file_are_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")
    assert "weights such as weights are in another file" in refusal(save(model))


def test_weights_with_nan_are_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    weights = SHARES.copy()
    weights[1, 1] = np.nan
    assert "contain NaN" in refusal(save(build_onnx(weights)))


def test_invalid_onnx_is_refused_and_the_cause_is_logged(
    save: Callable[[onnx.ModelProto], Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = build_onnx()
    model.graph.node[0].input[0] = "nowhere"
    assert refusal(save(model)).startswith("it is not valid ONNX; export it again")
    assert "nowhere" in caplog.records[-1].__dict__["cause"]


def test_a_network_that_does_not_fit_the_size_is_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    model = build_onnx()
    # Without the pooling, the input of the product depends on the size of the image.
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["pixels"], ["averages"]))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 3 * 64 * 64), np.float32), "weights"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", "K"]))
    assert "it cannot take images of 32x32 pixels" in refusal(save(model))
