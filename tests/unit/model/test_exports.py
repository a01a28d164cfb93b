"""Exports: their parts, and that these merge to one model."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from ocelli_api.export import ExportFormat, PartPlace
from ocelli_model.backbone import CORE_ML_BODY_FILE, ONNX_BODY_FILE, BackboneMetadata, save_backbone
from ocelli_model.exports.classifier_exports import ClassifierExports, build_exports
from ocelli_model.exports.core_ml_parts import build_core_ml_body
from ocelli_model.exports.heads import fold_calibration
from ocelli_model.exports.message_types import core_ml_messages, onnx_messages
from ocelli_model.heads import Heads
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.object_store import ObjectStore
from tests.installed_backbone import backbone_files, installed_backbone


def make_heads(class_count: int, feature_count: int) -> Heads:
    random = np.random.default_rng(class_count)
    return Heads(
        weights=random.normal(size=(class_count, feature_count)).astype(np.float32),
        bias=random.normal(size=class_count).astype(np.float32),
        slope=random.uniform(0.5, 2, class_count).astype(np.float32),
        offset=random.normal(size=class_count).astype(np.float32),
    )


def export(folder: Path, class_names: list[str], without: str = "") -> tuple[BackboneMetadata, ClassifierExports]:
    metadata, files = installed_backbone().metadata, backbone_files()
    if without:
        kept = {name: data for name, data in files.items() if name != without}
        metadata = BackboneMetadata(**{**vars(metadata), "files": {name: metadata.files[name] for name in kept}})
        files = kept

    async def build() -> ClassifierExports:
        store = ObjectStore.from_url(folder.as_uri())
        await save_backbone(store, metadata, files)
        heads = make_heads(len(class_names), metadata.feature_count)
        return await build_exports(store, metadata, heads, class_names, description="a test")

    return metadata, asyncio.run(build())


def whole(exports: ClassifierExports, export_format: ExportFormat) -> bytes:
    body, head = exports.parts[export_format]
    return backbone_files()[body.file] + exports.files[head.file]


def test_folded_heads_give_the_same_scores() -> None:
    heads = make_heads(4, 30)
    features = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    folded = fold_calibration(heads)
    scores = 1 / (1 + np.exp(-(features.astype(np.float64) @ folded.weights.T + folded.bias)))
    assert scores == pytest.approx(heads.scores(features), abs=1e-5)


@pytest.mark.parametrize(
    "class_names",
    [["one"], ["a", "b"], ["Äpfel & Birnen", "日本語", "a, b; c: d", "🦉"], [f"class {index}" for index in range(500)]],
    ids=["one", "two", "any characters", "500"],
)
def test_class_names_survive_in_both_formats(tmp_path: Path, class_names: list[str]) -> None:
    _, exports = export(tmp_path, class_names)
    core_ml = core_ml_messages().Model.FromString(whole(exports, ExportFormat.CORE_ML))
    model = onnx.load_from_string(whole(exports, ExportFormat.ONNX))
    constant = next(node for node in model.graph.node if node.output[0] == "class_names")
    assert list(core_ml.neuralNetworkClassifier.stringClassLabels.vector) == class_names
    assert [name.decode() for name in constant.attribute[0].strings] == class_names


def test_parts_name_their_digests_and_sizes(tmp_path: Path) -> None:
    _, exports = export(tmp_path, ["a", "b"])
    files = backbone_files()
    for body, head in exports.parts.values():
        assert (body.place, head.place) == (PartPlace.BACKBONE, PartPlace.ARTIFACT)
        for part, data in ((body, files[body.file]), (head, exports.files[head.file])):
            assert (part.sha256, part.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_same_heads_give_the_same_bytes(tmp_path: Path) -> None:
    assert export(tmp_path, ["a", "b"])[1].files == export(tmp_path, ["a", "b"])[1].files


def test_backbone_without_a_part_has_no_export_of_that_format(tmp_path: Path) -> None:
    _, exports = export(tmp_path, ["a", "b"], without=CORE_ML_BODY_FILE)
    assert list(exports.parts) == [ExportFormat.ONNX]
    assert list(exports.files) == ["head.onnx"]


def test_parts_hold_nothing_of_where_and_when_they_were_made() -> None:
    files = backbone_files()
    for name in (ONNX_BODY_FILE, CORE_ML_BODY_FILE):
        assert not [word for word in (b"/home/", b"site-packages", b"conversion_date", b"torch==") if word in files[name]]


def test_network_that_core_ml_cannot_express_has_no_core_ml_part() -> None:
    import torch

    class Sorting(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(images.float()[..., 0])[1]

    assert build_core_ml_body(Sorting(), Preprocessing(height=16, width=16)) is None


def test_message_types_are_those_of_the_packages() -> None:
    import coremltools

    assert onnx_messages().ModelProto is onnx.ModelProto
    assert core_ml_messages().Model is coremltools.proto.Model_pb2.Model


def test_parts_of_a_classifier_are_made_without_the_heavy_packages() -> None:
    program = (
        "import sys; from ocelli_model.exports import classifier_exports, message_types; "
        "message_types.core_ml_messages(); message_types.onnx_messages(); "
        "print({'coremltools', 'onnx', 'torch', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
