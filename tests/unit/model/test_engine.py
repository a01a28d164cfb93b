import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ocelli_api.classifier import Accelerator
from ocelli_model.backbone import ONNX_FILE, Backbone, BackboneError, load_backbone
from ocelli_model.engine import OpenVinoEngine, available_device, load_engine, needed_files
from ocelli_model.publish import HOG_COLOR, publish_backbone
from ocelli_storage.object_store import ObjectStore
from tests.unit.model.images import make_pixels


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    async def install() -> Backbone:
        store = ObjectStore.from_url((tmp_path / "store").as_uri())
        published = await publish_backbone(store, HOG_COLOR)
        return await load_backbone(store, published.digest, cache=tmp_path / "cache")

    return asyncio.run(install())


@pytest.fixture
def images() -> np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]:
    return np.stack([make_pixels(seed, height=128, width=128) for seed in range(7)])


Images = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]


def test_an_image_has_the_same_features_alone_and_in_a_batch(backbone: Backbone, images: Images) -> None:
    engine = load_engine(backbone, threads=2, device=Accelerator.CPU)

    together = engine.features(images)

    for index in range(len(images)):
        assert np.array_equal(engine.features(images[index : index + 1])[0], together[index])


def test_the_number_of_threads_changes_nothing(backbone: Backbone, images: Images) -> None:
    one, three = (load_engine(backbone, threads=threads, device=Accelerator.CPU) for threads in (1, 3))

    assert np.array_equal(one.features(images), three.features(images))


def test_callers_in_several_threads_get_their_own_features(backbone: Backbone, images: Images) -> None:
    engine = load_engine(backbone, threads=2, device=Accelerator.CPU)
    expected = engine.features(images)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: engine.features(images[index : index + 1]), list(range(7)) * 5))

    assert all(np.array_equal(answer[0], expected[index % 7]) for index, answer in enumerate(answers))


def test_no_images_have_no_features(backbone: Backbone) -> None:
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)

    assert engine.features(np.empty((0, 128, 128, 3), dtype=np.uint8)).shape == (0, engine.metadata.feature_count)


@pytest.mark.parametrize("shape", [(1, 64, 128, 3), (1, 128, 128, 4), (128, 128, 3)])
def test_images_of_another_shape_are_refused(backbone: Backbone, shape: tuple[int, ...]) -> None:
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)

    with pytest.raises(ValueError, match="decode them with this backbone's preprocessing"):
        engine.features(np.zeros(shape, dtype=np.uint8))


def test_hog_color_is_computed_with_float32(backbone: Backbone) -> None:
    assert load_engine(backbone, threads=1, device=Accelerator.CPU).name == "OpenVINO CPU float32"


def test_a_file_that_cannot_run_is_an_error(backbone: Backbone) -> None:
    (backbone.folder / ONNX_FILE).write_bytes(b"no network")

    with pytest.raises(BackboneError, match=r"OpenVINO cannot run model\.onnx"):
        OpenVinoEngine(backbone, threads=1)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_here_is_an_error() -> None:
    with pytest.raises(BackboneError, match="PyTorch finds none"):
        available_device(Accelerator.GPU)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_is_taken() -> None:
    assert available_device(Accelerator.AUTO) is Accelerator.CPU


def test_a_cpu_needs_only_the_onnx_file() -> None:
    assert list(needed_files(Accelerator.CPU)) == [ONNX_FILE]


@pytest.mark.parametrize(
    "module", ["ocelli_model.publish", "ocelli_model.engine", "ocelli_model.artifact", "ocelli_training.evaluate"]
)
def test_the_parts_that_run_on_a_cpu_import_neither_torch_nor_other_slow_libraries(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'torch', 'torchvision', 'sklearn', 'scipy', 'onnx'}} & set(sys.modules)))"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
