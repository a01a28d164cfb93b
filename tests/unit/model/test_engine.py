import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import ONNX_FILE, Backbone, BackboneError, BackboneMetadata, NetworkKind, Precision
from ocelli_model.engine import OpenVinoEngine, TorchEngine, available_device, device_for, load_engine, needed_files
from tests.installed_backbone import installed_backbone
from tests.unit.model.images import make_pixels


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return installed_backbone()


@pytest.fixture(scope="module")
def images(backbone: Backbone) -> np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]:
    preprocessing = backbone.metadata.preprocessing
    return np.stack([make_pixels(seed, height=preprocessing.height, width=preprocessing.width) for seed in range(7)])


Images = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]


def test_an_image_has_the_same_features_alone_and_in_a_batch(backbone: Backbone, images: Images) -> None:
    engine = load_engine(backbone, threads=2, device=Accelerator.CPU)

    together = engine.features(images)

    for index in range(len(images)):
        assert np.array_equal(engine.features(images[index : index + 1])[0], together[index])


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(backbone: Backbone, images: Images) -> None:
    one, three = (load_engine(backbone, threads=threads, device=Accelerator.CPU) for threads in (1, 3))

    assert np.array_equal(one.features(images), three.features(images))


@pytest.mark.slow
def test_callers_in_several_threads_get_their_own_features(backbone: Backbone, images: Images) -> None:
    engine = load_engine(backbone, threads=2, device=Accelerator.CPU)
    expected = engine.features(images)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: engine.features(images[index : index + 1]), list(range(7)) * 5))

    assert all(np.array_equal(answer[0], expected[index % 7]) for index, answer in enumerate(answers))


@pytest.mark.slow
def test_openvino_reports_its_use_to_nobody() -> None:
    # In a process of its own, because this module imports OpenVINO itself.
    program = (
        "from ocelli_model.engine import load_engine; from tests.installed_backbone import installed_backbone; "
        "load_engine(installed_backbone(), threads=1); "
        "import openvino.tools.ovc.telemetry_utils as telemetry; print(telemetry.tm.__name__)"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["openvino.tools.ovc.telemetry_stub"]


def test_no_images_have_no_features(backbone: Backbone) -> None:
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)

    preprocessing = engine.metadata.preprocessing

    none = np.empty((0, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)

    assert engine.features(none).shape == (0, engine.metadata.feature_count)


def test_images_of_another_shape_are_refused(backbone: Backbone) -> None:
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)
    height, width = engine.metadata.preprocessing.height, engine.metadata.preprocessing.width

    for shape in ((1, 64, width, 3), (1, height, width, 4), (height, width, 3)):
        with pytest.raises(ValueError, match="decode them with this backbone's preprocessing"):
            engine.features(np.zeros(shape, dtype=np.uint8))


def test_a_published_backbone_is_computed_with_float32(backbone: Backbone) -> None:
    assert load_engine(backbone, threads=1, device=Accelerator.CPU).name == "OpenVINO CPU float32"


HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("precision", "computed"),
    [
        (None, "bfloat16" if HAS_BFLOAT16 else "float32"),
        (Precision.FASTEST, "bfloat16" if HAS_BFLOAT16 else "float32"),
        (Precision.FLOAT32, "float32"),
    ],
)
def test_a_backbone_with_a_node_dependent_precision_uses_that_of_the_artifact(
    backbone: Backbone, precision: Precision | None, computed: str
) -> None:
    stored = dataclasses.replace(backbone, metadata=dataclasses.replace(backbone.metadata, precision=Precision.FASTEST))

    assert load_engine(stored, threads=1, device=Accelerator.CPU, precision=precision).name == f"OpenVINO CPU {computed}"


def test_pytorch_does_not_use_tensor_float_32(backbone: Backbone) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    TorchEngine(backbone, torch_device="cpu", threads=1)

    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)


def test_a_file_that_cannot_run_is_an_error(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / ONNX_FILE).write_bytes(b"no network")

    with pytest.raises(BackboneError, match=r"OpenVINO cannot run model\.onnx"):
        OpenVinoEngine(dataclasses.replace(backbone, folder=tmp_path), threads=1)


def named(metadata: BackboneMetadata, name: str, kind: NetworkKind = NetworkKind.BODY) -> BackboneMetadata:
    return dataclasses.replace(metadata, name=name, kind=kind)


@pytest.mark.parametrize(
    ("name", "kind", "device"),
    [
        ("EfficientNetLite0", NetworkKind.BODY, Accelerator.GPU),
        ("EfficientNetLite0", NetworkKind.CLASSIFIER, Accelerator.GPU),
        ("resnet50", NetworkKind.BODY, Accelerator.GPU),
        ("HogColor", NetworkKind.BODY, Accelerator.CPU),
        ("ONNX", NetworkKind.ONNX, Accelerator.CPU),
    ],
)
def test_network_without_pytorch_code_runs_on_the_cpu_of_a_node_with_a_gpu(
    backbone: Backbone, name: str, kind: NetworkKind, device: Accelerator
) -> None:
    assert device_for(named(backbone.metadata, name, kind), Accelerator.GPU) is device


def test_pytorch_refuses_network_without_code(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"backbone HogColor .*: it has only an ONNX network.*run it on a CPU"):
        TorchEngine(dataclasses.replace(backbone, metadata=named(backbone.metadata, "HogColor")), torch_device="cpu", threads=1)


def test_pytorch_refuses_network_of_another_version(backbone: Backbone) -> None:
    older = dataclasses.replace(backbone.metadata, version="0")

    with pytest.raises(BackboneError, match=r"it has version 0, but this program runs .*; publish the backbone again"):
        TorchEngine(dataclasses.replace(backbone, metadata=older), torch_device="cpu", threads=1)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_error() -> None:
    with pytest.raises(BackboneError, match="PyTorch finds no GPU"):
        available_device(Accelerator.GPU)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_is_used() -> None:
    assert available_device(Accelerator.AUTO) is Accelerator.CPU


def test_a_cpu_needs_only_the_onnx_file() -> None:
    assert list(needed_files(Accelerator.CPU)) == [ONNX_FILE]


@pytest.mark.parametrize(
    "module",
    [
        "ocelli_model.backbones.families",
        "ocelli_model.publish",
        "ocelli_model.engine",
        "ocelli_model.artifact",
        "ocelli_training.evaluate",
    ],
)
def test_the_modules_of_the_cpu_path_import_no_torch_or_other_slow_libraries(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'torch', 'torchvision', 'sklearn', 'scipy', 'onnx'}} & set(sys.modules)))"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
