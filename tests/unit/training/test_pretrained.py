"""Pretrained classifiers by the trainer: from files of every kind to an artifact, and the messages about unusable ones."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocelli_api.classifier import parse_spec
from ocelli_api.export import PartPlace
from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_api.pods import Environment
from ocelli_api.settings import load_settings
from ocelli_model.artifact import Artifact, load_artifact
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, BackboneMetadata, load_backbone_metadata
from ocelli_model.backbones import torchvision_backbones
from ocelli_model.imagenet.label_set import load_imagenet, path_text
from ocelli_model.output_head import OutputHead
from ocelli_model.preprocessing import ResizeMode
from ocelli_storage.layout import REPORT_PAGE
from ocelli_training import pretrained_files
from ocelli_training.pretrained_files import PretrainedError, PretrainedReader
from ocelli_training.settings import TrainerSettings
from tests.networks import COLOURS, PLAIN_IMAGES, SHARES, onnx_bytes, save_torchvision

SQUEEZENET = "squeezenet1_1"
PUBLISHED = "SqueezeNet1_1_Weights.IMAGENET1K_V1"
PUBLISHED_FILE = "squeezenet1_1-b8a52dc0.pth"
LABELS = "\n".join(COLOURS)


class Files:
    """The folder of file sources, and a definition that names its files."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.folder: Path = trainer.file_sources

    def put(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"file:///{name}"

    def define(self, weights: Mapping[str, Any], **fields: Any) -> None:
        named = {
            key: {"url": value} if isinstance(value, str) and value.startswith(("file:", "http:")) else value
            for key, value in fields.items()
        }
        self.trainer.definition = {"pretrained": {"weights": dict(weights), **named}}

    def colours(self, **fields: Any) -> None:
        """An ONNX network that recognises colours, with labels."""
        if "labels" not in fields:
            fields["labels"] = self.put("labels.txt", LABELS)
        self.define({"url": self.put("colours.onnx", onnx_bytes())}, **{"images": PLAIN_IMAGES, **fields})

    def squeezenet(self, file: str = "weights.pth", **fields: Any) -> None:
        """A torchvision network of seven outputs."""
        save_torchvision(self.folder / file)
        labels = self.put("labels.txt", "\n".join("abcdefg"))
        self.define({"url": f"file:///{file}", "architecture": SQUEEZENET}, **{"labels": labels, **fields})

    def run(self) -> Artifact:
        outcome, exit_code = self.trainer.run()
        assert exit_code is ExitCode.SUCCEEDED, outcome.message
        return asyncio.run(load_artifact(self.trainer.store, self.trainer.location, self.trainer.revision))

    def network(self, artifact: Artifact) -> BackboneMetadata:
        prefix = self.trainer.location.network_prefix(self.trainer.revision)
        return asyncio.run(load_backbone_metadata(self.trainer.store, artifact.backbone_digest, prefix=prefix))

    def refusal(self, reason: OutcomeReason = OutcomeReason.INVALID_DATA, exit_code: ExitCode = ExitCode.INVALID_DATA) -> str:
        outcome, ended = self.trainer.run()
        assert (outcome.reason, ended) == (reason, exit_code), outcome.message
        assert not self.trainer.exists(self.trainer.artifact_key)
        assert outcome.message.startswith("Classifier team-a/dogs: ")
        message: str = outcome.message.removeprefix("Classifier team-a/dogs: ")
        return message


@pytest.fixture
def files(trainer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Files(trainer)


@pytest.fixture
def hub(files: Files, tmp_path: Path) -> Path:
    """Torch hub's cache, empty."""
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def any_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepts any file as the published one: tests cannot fetch the real ones."""
    monkeypatch.setattr(pretrained_files, "digest_prefix", lambda name: None)


def head_of(artifact: Artifact) -> OutputHead:
    assert isinstance(artifact.heads, OutputHead)
    return artifact.heads


class TestAnOnnxFile:
    @pytest.mark.slow
    def test_it_becomes_an_artifact_with_its_own_network(self, files: Files) -> None:
        files.colours()
        artifact = files.run()
        assert (artifact.class_names, artifact.backbone_place) == (COLOURS, PartPlace.ARTIFACT)
        assert set(files.network(artifact).files) == {ONNX_FILE}

    @pytest.mark.slow
    def test_it_needs_no_pytorch(self, files: Files) -> None:
        files.colours()
        # A Python in which PyTorch cannot be imported.
        (files.trainer.folder / "without").mkdir()
        for module in ("torch", "torchvision"):
            (files.trainer.folder / "without" / f"{module}.py").write_text("raise ImportError('none here')")
        process = files.trainer.start(PYTHONPATH=str(files.trainer.folder / "without"))
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log

    def test_a_fixed_input_size_of_the_network_is_used(self, files: Files) -> None:
        files.colours(images={})
        files.put("colours.onnx", onnx_bytes(shape=("N", 3, 48, 48)))
        preprocessing = files.run().preprocessing
        assert (preprocessing.height, preprocessing.width, preprocessing.short_side_pixels) == (48, 48, 54)

    def test_the_default_preprocessing_is_that_of_imagenet(self, files: Files) -> None:
        files.colours(images={})
        preprocessing = files.run().preprocessing
        assert (preprocessing.height, preprocessing.width, preprocessing.short_side_pixels) == (224, 224, 256)
        assert preprocessing.mean == (0.485, 0.456, 0.406)

    def test_a_height_alone_scales_the_whole_image_to_a_square(self, files: Files) -> None:
        files.colours(images={"height": 40})
        preprocessing = files.run().preprocessing
        assert (preprocessing.height, preprocessing.width, preprocessing.resize) == (40, 40, ResizeMode.SQUASH)

    def test_a_short_side_is_scaled_and_the_centre_cropped(self, files: Files) -> None:
        files.colours(images={"height": 40, "width": 30, "shortSide": 50})
        preprocessing = files.run().preprocessing
        assert (preprocessing.resize, preprocessing.short_side_pixels) == (ResizeMode.SHORT_SIDE_CROP, 50)
        assert (preprocessing.height, preprocessing.width) == (40, 30)


class TestATorchvisionNetwork:
    @pytest.mark.slow
    @pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
    def test_it_is_stored_for_cpu_and_gpu(self, files: Files, file: str) -> None:
        files.squeezenet(file)
        artifact = files.run()
        assert set(files.network(artifact).files) == {ONNX_FILE, WEIGHTS_FILE}
        assert head_of(artifact).output_count == 7

    @pytest.mark.slow
    def test_the_preprocessing_is_that_of_its_published_weights(self, files: Files) -> None:
        files.squeezenet(images={"mean": [0.5, 0.5, 0.5]})
        preprocessing = files.run().preprocessing
        assert (preprocessing.height, preprocessing.short_side_pixels, preprocessing.mean) == (224, 256, (0.5, 0.5, 0.5))

    @pytest.mark.slow
    def test_the_outcome_names_the_network(self, files: Files) -> None:
        files.squeezenet()
        outcome, _ = files.trainer.run()
        assert outcome.backbone.startswith("squeezenet1_1 (")
        assert outcome.accuracy is None

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_published_imagenet_weights_bring_labels_hierarchy_and_translations(self, files: Files) -> None:
        save_torchvision(files.folder / PUBLISHED_FILE, outputs=1000)
        files.define({"torchvision": PUBLISHED})
        head, expected = head_of(files.run()), load_imagenet()
        assert head.wording.type_hierarchies[:1000] == tuple(path_text(path) for path in expected.paths)
        assert head.wordings["es"].class_names[0] == expected.translate(expected.class_names[0], "es")

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_other_labels_replace_everything_of_the_packaged_ones(self, files: Files) -> None:
        save_torchvision(files.folder / PUBLISHED_FILE, outputs=3)
        files.define({"torchvision": PUBLISHED}, labels=files.put("labels.txt", LABELS))
        head = head_of(files.run())
        assert (head.class_names, head.wordings, head.wording.type_hierarchies) == (COLOURS, {}, (None, None, None))

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_another_hierarchy_is_combined_with_the_packaged_labels(self, files: Files) -> None:
        save_torchvision(files.folder / PUBLISHED_FILE, outputs=1000)
        files.define({"torchvision": PUBLISHED}, hierarchy=files.put("h.txt", "/swimmers/goldfish"))
        head = head_of(files.run())
        assert [path for path in head.wording.type_hierarchies if path] == ["/swimmers/goldfish"]
        assert len(head.class_names) == 1001

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_published_weights_are_read_from_torch_hub_s_cache(self, files: Files, hub: Path) -> None:
        save_torchvision(hub / PUBLISHED_FILE, outputs=3)
        files.define({"torchvision": PUBLISHED}, labels=files.put("labels.txt", LABELS))
        files.run()
        assert files.trainer.report["pretrained"]["weights"]["origin"] == "torch hub's cache"

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_published_weights_can_be_read_from_another_url(self, files: Files, web_server: Any) -> None:
        body = save_torchvision(files.folder / "x.pth", outputs=3).read_bytes()
        url = web_server.answer("/weights", body=body)
        files.define({"torchvision": PUBLISHED, "url": url}, labels=files.put("labels.txt", LABELS))
        files.run()
        assert files.trainer.report["pretrained"]["weights"]["origin"] == url

    @pytest.mark.slow
    @pytest.mark.usefixtures("any_digest")
    def test_the_place_of_the_file_does_not_change_the_artifact(self, files: Files, hub: Path) -> None:
        save_torchvision(hub / PUBLISHED_FILE, outputs=3)
        files.define({"torchvision": PUBLISHED}, labels=files.put("labels.txt", LABELS))
        first = files.run().digest
        files.trainer.delete_artifact()
        (hub / PUBLISHED_FILE).rename(files.folder / PUBLISHED_FILE)
        files.trainer.run(2)
        artifact = asyncio.run(load_artifact(files.trainer.store, files.trainer.location, files.trainer.revision))
        assert artifact.digest == first

    def test_a_published_file_that_was_changed_is_refused(self, files: Files, hub: Path) -> None:
        save_torchvision(hub / PUBLISHED_FILE, outputs=3)
        files.define({"torchvision": PUBLISHED})
        message = files.refusal()
        assert message.startswith(f"weights {PUBLISHED}, {PUBLISHED_FILE} in torch hub's cache: its SHA-256 is ")
        assert f"not b8a52dc0…, the one in the name {PUBLISHED_FILE}; the file is damaged or another one: replace it" in message

    @pytest.mark.usefixtures("any_digest")
    def test_a_pin_counts_wherever_the_file_is_found(self, files: Files, hub: Path) -> None:
        save_torchvision(hub / PUBLISHED_FILE, outputs=3)
        files.define({"torchvision": PUBLISHED, "url": "https://data.test/x.pth", "sha256": "a" * 64})
        assert ", not aaaaaaaaaaaa…, the pinned one" in files.refusal()


class TestAFolder:
    def test_everything_in_it_is_used(self, files: Files) -> None:
        files.put("food/network.onnx", onnx_bytes())
        files.put("food/labels.txt", LABELS)
        files.put("food/hierarchy.txt", "/colour/red\n/colour/blue")
        files.put("food/translations.json", json.dumps({"de": {"red": "Rot", "colour": "Farbe"}}))
        files.put("food/README.md", "where it came from")
        files.define({"url": "file:///food/"}, images=PLAIN_IMAGES, otherwise="non-food")
        head = head_of(files.run())
        assert head.wordings["de"].class_names == ("Rot", "green", "blue", "Farbe", "non-food")
        assert head.wordings["de"].type_hierarchies[0] == "/Farbe/Rot"

    def test_a_file_that_the_spec_names_wins_over_one_in_the_folder(self, files: Files) -> None:
        files.put("food/network.onnx", onnx_bytes())
        files.put("food/labels.txt", "nothing right")
        files.define({"url": "file:///food/"}, images=PLAIN_IMAGES, labels=files.put("labels.txt", LABELS))
        assert files.run().class_names == COLOURS

    def test_a_missing_folder_is_named_with_the_files_that_it_needs(self, files: Files) -> None:
        files.define({"url": "file:///food/"})
        message = files.refusal(OutcomeReason.SOURCE_UNREADABLE)
        assert message.startswith(f"weights file:///food/: there is no such folder; paths are relative to {files.folder}, as")
        assert "put one file of weights (.onnx, .safetensors, .pth, .pt) and labels.txt into it" in message
        assert str(files.folder / "food") in message

    def test_disabled_file_sources_are_reported(self, files: Files) -> None:
        files.trainer.environment[Environment.FILE_SOURCES_FOLDER] = ""
        files.define({"url": "file:///food/"})
        assert "file sources are not enabled; set a folder" in files.refusal(OutcomeReason.SOURCE_UNREADABLE)

    def test_one_without_weights_is_refused(self, files: Files) -> None:
        files.put("food/labels.txt", LABELS)
        files.define({"url": "file:///food/"})
        assert files.refusal() == (
            "weights file:///food/: the folder has no file of weights; put one there (.onnx, .safetensors, .pth, .pt)"
        )

    def test_one_with_two_files_of_weights_is_refused(self, files: Files) -> None:
        for name in ("food/a.onnx", "food/b.onnx", "food/labels.txt"):
            files.put(name, LABELS)
        files.define({"url": "file:///food/"})
        assert "has 2 files of weights, such as a.onnx and b.onnx; keep one of them there, or name the file" in files.refusal()

    def test_one_without_labels_is_refused(self, files: Files) -> None:
        files.put("food/network.onnx", onnx_bytes())
        files.define({"url": "file:///food/"})
        assert files.refusal().startswith("labels: file:///food/ has no labels.txt; put a text file of that name there")

    def test_state_dicts_need_the_name_of_their_network(self, files: Files) -> None:
        save_torchvision(files.folder / "x.pth")
        files.put("food/x.pth", (files.folder / "x.pth").read_bytes())
        files.put("food/labels.txt", LABELS)
        files.define({"url": "file:///food/"})
        assert "set spec.pretrained.weights.architecture to torchvision's name of it" in files.refusal()

    def test_a_link_out_of_the_folder_of_file_sources_is_not_followed(self, files: Files, tmp_path: Path) -> None:
        (tmp_path / "secret.onnx").write_bytes(onnx_bytes())
        files.put("food/labels.txt", LABELS)
        (files.folder / "food" / "network.onnx").symlink_to(tmp_path / "secret.onnx")
        files.define({"url": "file:///food/"})
        assert "leads out of the folder of file sources" in files.refusal(OutcomeReason.SOURCE_UNREADABLE)


class TestUnusableWeights:
    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            (b"<!DOCTYPE html><html>Sign in</html>", "it is a web page, not a file of weights"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "it is a Git LFS pointer"),
            (b"", "it is empty; give the whole file"),
        ],
    )
    @pytest.mark.parametrize("name", ["weights.onnx", "weights.pth"])
    def test_a_file_of_another_kind_is_named_as_such(self, files: Files, name: str, content: bytes, fact: str) -> None:
        architecture = {} if name.endswith(".onnx") else {"architecture": SQUEEZENET}
        files.define({"url": files.put(name, content), **architecture}, labels=files.put("labels.txt", LABELS))
        assert files.refusal().startswith(f"weights file:///{name}: {fact}")

    @pytest.mark.parametrize("name", ["weights.onnx", "weights.pth", "weights.safetensors"])
    def test_a_file_that_is_cut_off_is_refused(self, files: Files, name: str) -> None:
        if name.endswith(".onnx"):
            files.colours()
            content = onnx_bytes()
        else:
            files.squeezenet(name)
            content = (files.folder / name).read_bytes()
        files.trainer.definition["pretrained"]["weights"]["url"] = files.put(name, content[: len(content) // 2])
        message = files.refusal()
        assert message.startswith(f"weights file:///{name}")
        assert "fetch the file again" in message or "export it again" in message

    def test_weights_of_another_network_are_refused(self, files: Files) -> None:
        files.squeezenet()
        files.trainer.definition["pretrained"]["weights"]["architecture"] = "mobilenet_v3_small"
        message = files.refusal()
        assert message.startswith("weights file:///weights.pth, as a mobilenet_v3_small, does not fit: ")
        assert "name the network that it belongs to" in message

    def test_weights_that_are_not_numbers_are_refused(self, files: Files) -> None:
        files.squeezenet()
        import torch

        state = torch.load(files.folder / "weights.pth", weights_only=True)
        state["features.0.weight"][0] = torch.nan
        torch.save(state, files.folder / "weights.pth")
        assert "not finite numbers" in files.refusal()

    def test_a_pickle_that_runs_code_is_not_run(self, files: Files, tmp_path: Path) -> None:
        import torch

        class Harmful:
            def __reduce__(self) -> tuple[Any, tuple[Path]]:
                return Path.touch, (tmp_path / "harm",)

        files.squeezenet()
        torch.save({"features.0.weight": Harmful()}, files.folder / "weights.pth")
        assert "cannot be read as weights" in files.refusal()
        assert not (tmp_path / "harm").exists()

    def test_a_name_of_weights_that_torchvision_does_not_know_names_close_ones(self, files: Files) -> None:
        files.define({"torchvision": "ResNet50_Weights.IMAGENET1K_V3"})
        message = files.refusal(OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
        assert "did you mean ResNet50_Weights.IMAGENET1K_V" in message

    def test_a_network_that_torchvision_does_not_know_names_close_ones(self, files: Files) -> None:
        files.squeezenet()
        files.trainer.definition["pretrained"]["weights"]["architecture"] = "squeezenet"
        message = files.refusal(OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
        assert "no classification model named squeezenet; did you mean squeezenet1_" in message

    def test_without_pytorch_torchvision_s_networks_are_refused_with_the_remedy(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.squeezenet()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        message = files.refusal(OutcomeReason.BACKBONE_UNAVAILABLE, ExitCode.MISCONFIGURED)
        assert "torchvision's networks need PyTorch, which this trainer does not have; use a trainer image" in message
        assert (
            "put the file of weights where docs/pretrained.md says, or set spec.pretrained.weights.url to the network as an"
            in message
        )

    def test_an_architecture_for_an_onnx_file_is_refused(self, files: Files) -> None:
        files.colours()
        files.trainer.definition["pretrained"]["weights"]["architecture"] = SQUEEZENET
        assert "remove spec.pretrained.weights.architecture" in files.refusal()

    def test_a_size_that_the_network_does_not_take_is_refused(self, files: Files) -> None:
        files.squeezenet(images={"height": 16})
        assert "a squeezenet1_1 does not take 16x16 pixels" in files.refusal()

    def test_a_crop_larger_than_the_scaled_image_is_refused(self, files: Files) -> None:
        files.colours(images={"height": 64, "shortSide": 32})
        assert "shortSide 32 is too small to crop 64x64 pixels; raise it" in files.refusal()

    def test_a_pin_that_does_not_fit_is_refused(self, files: Files) -> None:
        files.colours()
        files.trainer.definition["pretrained"]["weights"]["sha256"] = "0" * 64
        digest = hashlib.sha256(onnx_bytes()).hexdigest()
        assert f"its SHA-256 is {digest}, not {'0' * 64}" in files.refusal()

    def test_weights_larger_than_the_limit_are_not_read(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        files.colours()
        path = files.folder / "colours.onnx"
        with path.open("ab") as file:
            # A sparse file: it uses no space on the disk.
            file.truncate(pretrained_files.WEIGHTS_LIMITS.zip_bytes + 1)
        assert "it has more than 2000 MB; give a smaller network" in files.refusal()


class TestActivations:
    def test_a_softmax_on_scores_is_refused(self, files: Files) -> None:
        files.colours()
        files.put("colours.onnx", onnx_bytes(last="Softmax"))
        assert "another Softmax would flatten them; set spec.pretrained.activation to Identity" in files.refusal()

    def test_scores_are_used_unchanged(self, files: Files) -> None:
        files.colours(activation="Identity")
        files.put("colours.onnx", onnx_bytes(last="Softmax"))
        assert files.run().class_names == COLOURS

    def test_outputs_that_are_not_scores_are_refused_for_identity(self, files: Files) -> None:
        files.colours(activation="Identity")
        message = files.refusal()
        assert "so they are not scores; set spec.pretrained.activation to Softmax or Sigmoid" in message

    def test_one_output_is_refused_for_softmax(self, files: Files) -> None:
        files.colours()
        files.put("colours.onnx", onnx_bytes(SHARES[:1]))
        files.put("labels.txt", "red")
        assert "the network has one output" in files.refusal()

    def test_one_output_is_enough_for_sigmoid(self, files: Files) -> None:
        files.colours(activation="Sigmoid", otherwise="not red")
        files.put("colours.onnx", onnx_bytes(SHARES[:1]))
        files.put("labels.txt", "red")
        assert files.run().class_names == ("red", "not red")

    def test_outputs_that_are_not_numbers_are_refused(self, files: Files) -> None:
        files.colours()
        files.put("colours.onnx", onnx_bytes(np.full((3, 3), 3e38, np.float32)))
        assert "are not finite numbers; give an undamaged file" in files.refusal()


class TestTexts:
    def test_a_wrong_number_of_labels_is_reported_with_both_numbers(self, files: Files) -> None:
        files.colours(labels=files.put("labels.txt", "red\ngreen"))
        assert files.refusal().startswith(
            "labels file:///labels.txt has 2 lines, the network has 3 outputs; give a line for each"
        )

    @pytest.mark.parametrize("role", ["labels", "hierarchy", "translations"])
    def test_a_missing_file_is_named_by_its_role(self, files: Files, role: str) -> None:
        files.colours(**{role: "file:///missing.txt"})
        message = files.refusal(OutcomeReason.SOURCE_UNREADABLE)
        assert message.startswith(f"{role} file:///missing.txt: there is no such file")

    @pytest.mark.parametrize("role", ["labels", "hierarchy", "translations"])
    def test_a_folder_in_place_of_a_file_is_refused(self, files: Files, role: str) -> None:
        files.colours(**{role: "file:///"})
        assert files.refusal().startswith(f"{role} file:///: it is a folder; name the file in it")

    def test_a_text_larger_than_the_limit_is_not_read(self, files: Files) -> None:
        files.colours(labels=files.put("labels.txt", b"x" * (5 * 1024 * 1024 + 1)))
        assert "labels file:///labels.txt: it has more than 5 MB; shorten it" in files.refusal()

    def test_a_pinned_text_is_verified(self, files: Files) -> None:
        files.colours()
        files.trainer.definition["pretrained"]["labels"]["sha256"] = "0" * 64
        assert files.refusal().startswith("labels file:///labels.txt: its SHA-256 is ")

    def test_texts_are_fetched_by_http(self, files: Files, web_server: Any) -> None:
        files.colours(labels=web_server.answer("/labels", body=LABELS.encode()))
        assert files.run().class_names == COLOURS


class TestUnreachableServers:
    @pytest.fixture
    def closed_url(self) -> str:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{taken.getsockname()[1]}/weights.onnx"

    def fault(self, files: Files, tmp_path: Path, published: Any = None) -> PretrainedError:
        """The error of a reader without retries."""
        limits = replace(pretrained_files.WEIGHTS_LIMITS, retry_delays_seconds=(), connect_seconds=1)
        settings = load_settings(TrainerSettings, {**files.trainer.environment, Environment.CPU_LIMIT: "1"})
        pretrained = parse_spec(files.trainer.definition).pretrained
        assert pretrained is not None

        async def read() -> None:
            async with PretrainedReader(settings, files.trainer.store, tmp_path, limits).read(pretrained, published):
                pass

        with pytest.raises(PretrainedError) as caught:
            asyncio.run(read())
        return caught.value

    def test_an_unreachable_address_is_a_transient_error(self, files: Files, tmp_path: Path, closed_url: str) -> None:
        files.define({"url": closed_url}, labels=files.put("labels.txt", LABELS))
        error = self.fault(files, tmp_path)
        assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, True)
        assert str(error).startswith(f"weights {closed_url}: the connection failed (")

    def test_an_address_that_is_not_found_is_a_permanent_error(self, files: Files, tmp_path: Path, web_server: Any) -> None:
        files.define({"url": f"{web_server.url}/gone.onnx"}, labels=files.put("labels.txt", LABELS))
        error = self.fault(files, tmp_path)
        assert (error.reason, error.transient) == (OutcomeReason.SOURCE_UNREADABLE, False)
        assert "the server answered 404" in str(error)

    def test_credentials_in_an_address_are_not_shown(self, files: Files, tmp_path: Path, web_server: Any) -> None:
        url = web_server.url.replace("http://", "http://user:secret@") + "/gone.onnx?token=secret"
        files.define({"url": url}, labels=files.put("labels.txt", LABELS))
        assert "secret" not in str(self.fault(files, tmp_path))

    def test_missing_published_weights_are_reported_with_every_place_for_them(
        self, files: Files, tmp_path: Path, hub: Path, closed_url: str
    ) -> None:
        published = replace(torchvision_backbones.find_published_weights(PUBLISHED), url=f"{closed_url}/{PUBLISHED_FILE}")
        files.define({"torchvision": PUBLISHED})
        message = str(self.fault(files, tmp_path, published))
        assert message.startswith(f"weights {PUBLISHED}, {closed_url}/{PUBLISHED_FILE}: the connection failed (")
        assert (
            f"put {PUBLISHED_FILE} into the folder of file sources ({files.folder}, as the trainer sees it) or torch hub's "
            f"cache ({hub}), or set spec.pretrained.weights.url to the address of a copy"
        ) in message

    def test_a_server_that_stays_down_lets_the_job_try_again(
        self, files: Files, closed_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quick = replace(pretrained_files.WEIGHTS_LIMITS, retry_delays_seconds=(0.01,))
        monkeypatch.setattr(pretrained_files, "WEIGHTS_LIMITS", quick)
        files.define({"url": closed_url}, labels=files.put("labels.txt", LABELS))
        files.refusal(OutcomeReason.SOURCE_UNREADABLE, ExitCode.FAILED)

    def test_a_server_that_does_not_answer_is_reported_within_a_minute(self) -> None:
        limits = pretrained_files.WEIGHTS_LIMITS
        attempts = len(limits.retry_delays_seconds) + 1
        assert attempts * limits.connect_seconds + sum(limits.retry_delays_seconds) < 60


class TestStoredResults:
    @pytest.mark.slow
    def test_the_same_definition_gives_the_same_artifact(self, files: Files) -> None:
        files.squeezenet(hierarchy=files.put("h.txt", "/x/a\n/x/b\n/y/c\n/y/d"))
        first = files.run().digest
        files.trainer.delete_artifact()
        outcome, _ = files.trainer.run(2)
        assert outcome.artifact_digest == first

    def test_an_existing_artifact_is_reused(self, files: Files) -> None:
        files.colours()
        digest = files.run().digest
        (files.folder / "colours.onnx").unlink()
        outcome, exit_code = files.trainer.run(2)
        assert (outcome.artifact_digest, exit_code) == (digest, ExitCode.SUCCEEDED)

    def test_the_definition_is_stored_with_it(self, files: Files) -> None:
        files.colours()
        files.run()
        assert json.loads(files.trainer.get(files.trainer.location.definition_key(files.trainer.revision))) == (
            files.trainer.definition
        )

    def test_the_report_names_the_files(self, files: Files) -> None:
        files.colours(translations=files.put("t.json", '{"de": {"red": "Rot", "mauve": "Lila"}}'))
        files.run()
        report = files.trainer.report["pretrained"]
        assert report["weights"] == {
            "origin": "file:///colours.onnx",
            "sha256": hashlib.sha256(onnx_bytes()).hexdigest(),
            "licence": None,
        }
        assert report["labels"] == {"origin": "file:///labels.txt", "sha256": hashlib.sha256(LABELS.encode()).hexdigest()}
        assert (report["outputs"], report["classes"], report["translatedClasses"], report["unusedTranslations"]) == (
            3,
            3,
            {"de": 1},
            1,
        )
        assert not files.trainer.exists(files.trainer.location.artifact_key(files.trainer.revision, REPORT_PAGE))

    def test_progress_reports_valid_data_only_after_all_checks(self, files: Files) -> None:
        files.colours(labels=files.put("labels.txt", "red"))
        files.refusal()
        assert not files.trainer.progress.data_valid
        files.put("labels.txt", LABELS)
        files.trainer.run(2)
        assert files.trainer.progress.data_valid


@pytest.mark.slow
def test_an_ordinary_training_loads_nothing_of_pretrained_ones(trainer: Any, make_example_zip: Any) -> None:
    trainer.add_class("red", make_example_zip(red=200))
    trainer.add_class("grey", make_example_zip(first_seed=100))
    process = trainer.start(PYTHONPROFILEIMPORTTIME="1")
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert "ocelli_training.fit" in imported
    assert not {name for name in imported if "pretrained" in name or name.partition(".")[0] in ("onnx", "torch", "torchvision")}
