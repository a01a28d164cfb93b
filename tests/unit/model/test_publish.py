import asyncio
import hashlib
import shutil
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
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneMetadata,
    BackboneUnavailableError,
    Precision,
    load_backbone,
    load_backbone_metadata,
)
from ocelli_model.backbones import hog_color, torchvision_backbones
from ocelli_model.engine import TorchEngine, load_engine
from ocelli_model.preprocessing import Interpolation, ResizeMode
from ocelli_storage.object_store import ObjectStore
from tests.unit.model.images import make_pixels

# The smallest of torchvision's networks.
NAME = "squeezenet1_1"
PUBLISHED_NAME = "squeezenet1_1-b8a52dc0.pth"


def make_weights(path: Path, *, seed: int = 0, name: str = NAME) -> Path:
    """A state_dict of the whole model, classifier and all, as torchvision publishes one; made once for each seed."""
    torch.manual_seed(seed)
    network = models.get_model(name, weights=None)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.from_url((tmp_path / "store").as_uri())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A store with one torchvision backbone, exported once; the file of its weights, and its digest."""
    folder = tmp_path_factory.mktemp("published")
    weights = make_weights(folder / PUBLISHED_NAME)
    published = install(ObjectStore.from_url((folder / "store").as_uri()), NAME, weights=str(weights))
    return folder / "store", weights, published.digest


def install(store: ObjectStore, name: str, **options: Any) -> publish.PublishedBackbone:
    return asyncio.run(publish.publish_backbone(store, name, **options))


def metadata_of(store: ObjectStore, digest: str) -> BackboneMetadata:
    return asyncio.run(load_backbone_metadata(store, digest))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published_store(published: tuple[Path, Path, str], tmp_path: Path) -> ObjectStore:
    """A store of the test's own with the backbone in it."""
    shutil.copytree(published[0], tmp_path / "published")
    return ObjectStore.from_url((tmp_path / "published").as_uri())


@pytest.fixture
def exporting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise AssertionError("exported again")

    monkeypatch.setattr(publish, "_export_torchvision", fail)


def test_hog_color_is_published_under_the_digest_of_its_metadata(store: ObjectStore) -> None:
    answer = install(store, "HogColor")

    assert str(answer) == f"HogColor={publish.packaged_hog_color()[0].digest}"
    assert metadata_of(store, answer.digest).name == "HogColor"


def test_hog_color_takes_no_weights(store: ObjectStore) -> None:
    with pytest.raises(BackboneUnavailableError, match="it has no weights"):
        install(store, "HogColor", weights="/somewhere")


def test_a_published_hog_color_of_the_same_version_stays_the_one(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install(store, "HogColor")
    metadata, files = publish.packaged_hog_color()
    exported_anew = {ONNX_FILE: files[ONNX_FILE] + b" "}
    changed = BackboneMetadata.parse(
        metadata.to_bytes().replace(
            metadata.files[ONNX_FILE].encode(), hashlib.sha256(exported_anew[ONNX_FILE]).hexdigest().encode()
        ),
        digest=hashlib.sha256(
            metadata.to_bytes().replace(
                metadata.files[ONNX_FILE].encode(), hashlib.sha256(exported_anew[ONNX_FILE]).hexdigest().encode()
            )
        ).hexdigest(),
    )
    monkeypatch.setattr(publish, "packaged_hog_color", lambda: (changed, exported_anew))

    assert install(store, "HogColor") == first


def test_versions_that_are_said_twice_agree() -> None:
    assert publish.TORCHVISION_VERSION == torchvision_backbones.VERSION
    assert publish.HOG_COLOR == hog_color.NAME


def test_a_torchvision_backbone_has_the_preprocessing_of_its_weights(published: tuple[Path, Path, str]) -> None:
    metadata = metadata_of(ObjectStore.from_url(published[0].as_uri()), published[2])

    preprocessing = metadata.preprocessing
    assert (preprocessing.height, preprocessing.width, preprocessing.short_side_pixels) == (224, 224, 256)
    assert (preprocessing.resize, preprocessing.interpolation) == (ResizeMode.SHORT_SIDE_CROP, Interpolation.BILINEAR)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.standard_deviation == (0.229, 0.224, 0.225)


def test_a_torchvision_backbone_says_where_its_weights_came_from(published: tuple[Path, Path, str]) -> None:
    metadata = metadata_of(ObjectStore.from_url(published[0].as_uri()), published[2])

    assert metadata.weights is not None
    assert (metadata.weights.origin, metadata.weights.sha256) == (PUBLISHED_NAME, sha256(published[1]))
    assert metadata.precision is Precision.FASTEST


def test_features_are_what_the_classifier_was_given(
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

    def test_a_pinned_digest_is_enough_and_nothing_is_read(
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

    def test_a_backbone_that_lost_a_file_is_published_anew(
        self, published_store: ObjectStore, published: tuple[Path, Path, str], tmp_path: Path
    ) -> None:
        (tmp_path / "published" / "backbones" / published[2] / WEIGHTS_FILE).unlink()

        with pytest.raises(AssertionError, match="exported again"):
            install(published_store, NAME, weights=str(published[1]))


class TestTheCommand:
    def test_it_prints_name_and_digest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status = publish.main(["--store", tmp_path.as_uri(), "HogColor"])

        assert status == 0
        assert capsys.readouterr().out == f"HogColor={publish.packaged_hog_color()[0].digest}\n"

    def test_it_says_what_is_wrong_and_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status = publish.main(["--store", tmp_path.as_uri(), "--weights", "/nowhere.pth", NAME])

        captured = capsys.readouterr()
        assert (status, captured.out) == (1, "")
        assert captured.err.startswith(f"backbone {NAME}: /nowhere.pth does not exist; ")

    def test_it_refuses_a_store_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert publish.main(["--store", "ftp://x", "HogColor"]) == 1
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

    def test_none_at_hand_means_no_backbone(self, store: ObjectStore, hub: Path) -> None:
        # Never a network that was only initialised.
        with pytest.raises(BackboneUnavailableError, match=rf"no published weights of it lie in {hub}; give its weights"):
            install(store, NAME)

    def test_weights_of_another_model_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        weights = make_weights(tmp_path / "weights.pth", name="shufflenet_v2_x0_5")

        assert "does not fit" in refusal(weights)

    def test_weights_of_other_shapes_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        state = models.get_model(NAME, weights=None).state_dict()
        state["features.0.weight"] = torch.zeros(1)
        torch.save(state, tmp_path / "weights.pth")

        assert "other shapes" in refusal(tmp_path / "weights.pth")

    def test_weights_that_are_no_numbers_are_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        state = models.get_model(NAME, weights=None).state_dict()
        state["features.0.weight"][0] = torch.nan
        torch.save(state, tmp_path / "weights.pth")

        assert "no finite numbers" in refusal(tmp_path / "weights.pth")

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

    def test_what_is_no_state_dict_is_refused(self, refusal: Callable[[Path], str], tmp_path: Path) -> None:
        torch.save([torch.zeros(1)], tmp_path / "weights.pth")

        assert "holds no state_dict" in refusal(tmp_path / "weights.pth")

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
