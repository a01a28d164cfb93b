"""Exports: their parts, and their combination into one model."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ocelli_api.export import ExportFormat, PartPlace, build_core_ml_description
from ocelli_model.backbone import CORE_ML_BODY_FILE, ONNX_BODY_FILE, BackboneMetadata, save_backbone
from ocelli_model.exports.classifier_exports import ClassifierExports, build_exports
from ocelli_model.exports.core_ml_parts import build_core_ml_body, build_core_ml_head
from ocelli_model.exports.heads import fold_calibration
from ocelli_model.exports.message_types import core_ml_messages, onnx_messages, serialized
from ocelli_model.exports.onnx_parts import build_onnx_head
from ocelli_model.heads import Heads, normalised
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.store_url import open_store
from tests.installed_backbone import backbone_files, installed_backbone
from tests.unit.model.core_ml_interpreter import run_core_ml_head
from tests.unit.model.rejections import make_rejection

SCORE_BOUND = 1e-4
"""The only difference is the rounding of single precision."""


def make_heads(class_count: int, feature_count: int) -> Heads:
    random = np.random.default_rng(class_count)
    return Heads(
        weights=random.normal(size=(class_count, feature_count)).astype(np.float32),
        bias=random.normal(size=class_count).astype(np.float32),
        slope=random.uniform(0.5, 2, class_count).astype(np.float32),
        offset=random.normal(size=class_count).astype(np.float32),
    )


FEATURE_COUNT = 40


def make_features(count: int = 60) -> NDArray[np.float32]:
    """Features like those of networks: many zeros, and negative numbers for some activations. The last row is zero."""
    random = np.random.default_rng(3)
    features = np.maximum(random.gamma(0.5, 1.0, size=(count, FEATURE_COUNT)) - 0.2, 0) * random.choice(
        [1, 1, -0.3], FEATURE_COUNT
    )
    features[-1] = 0
    return features.astype(np.float32)


def made_of(kind: str) -> Heads:
    """Heads of any kind for `make_features`; see KINDS."""
    class_count, power, rank = KINDS[kind]
    rejection = None if rank is None else make_rejection(make_features(), power, rank=rank)
    return replace(make_heads(class_count, FEATURE_COUNT), power=power, rejection=rejection)


KINDS: dict[str, tuple[int, float | None, int | None]] = {
    "as they come": (3, None, None),
    "normalised": (3, 0.6, None),
    "normalised by length only": (3, 1.0, None),
    "rejecting": (3, None, 4),
    "normalised and rejecting": (3, 0.6, 4),
    "rejecting without directions": (3, 0.6, 0),
    "one class": (1, 0.6, 4),
}
"""The number of classes, the power, and the directions of the rejection."""


def onnx_scores(heads: Heads, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the classifier's part after one that returns features unchanged."""
    body = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["given"], ["features"])],
            "classifier",
            [onnx.helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, [1, FEATURE_COUNT])],
            [],
        ),
        ir_version=8,
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    names = [f"class {index}" for index in range(heads.class_count)]
    model = body.SerializeToString() + build_onnx_head(fold_calibration(heads), names)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.stack([session.run(["scores"], {"given": row[np.newaxis]})[0] for row in features])


def core_ml_scores(heads: Heads, features: NDArray[np.float32]) -> NDArray[np.float32]:
    names = [f"class {index}" for index in range(heads.class_count)]
    part = build_core_ml_head(fold_calibration(heads), names)
    return run_core_ml_head(core_ml_messages().Model.FromString(part), features)


def export(folder: Path, class_names: list[str], without: str = "") -> tuple[BackboneMetadata, ClassifierExports]:
    metadata, files = installed_backbone().metadata, backbone_files()
    if without:
        kept = {name: data for name, data in files.items() if name != without}
        metadata = BackboneMetadata(**{**vars(metadata), "files": {name: metadata.files[name] for name in kept}})
        files = kept

    async def build() -> ClassifierExports:
        store = open_store(folder.as_uri())
        await save_backbone(store, metadata, files)
        heads = make_heads(len(class_names), metadata.feature_count)
        return await build_exports(store, metadata, heads, class_names)

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", [onnx_scores, core_ml_scores], ids=["ONNX", "Core ML"])
def test_classifiers_part_has_the_scores_of_the_heads(
    run: Callable[[Heads, NDArray[np.float32]], NDArray[np.float32]], kind: str
) -> None:
    heads, features = made_of(kind), make_features()
    assert run(heads, features) == pytest.approx(heads.scores(features), abs=SCORE_BOUND)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, rank) in KINDS.items() if rank is not None])
def test_rejections_of_these_tests_reject_some_images_fully_and_some_partly(kind: str) -> None:
    heads = made_of(kind)
    assert heads.rejection is not None
    inputs = make_features().astype(np.float64)
    factors = heads.rejection.factors(inputs if heads.power is None else normalised(inputs, heads.power))
    counts = [(factors == 1).sum(), ((factors > 0.1) & (factors < 0.9)).sum(), (factors < 0.02).sum()]
    assert min(counts) >= 5


@pytest.mark.parametrize("run", [onnx_scores, core_ml_scores], ids=["ONNX", "Core ML"])
def test_scores_stay_between_0_and_1(run: Callable[[Heads, NDArray[np.float32]], NDArray[np.float32]]) -> None:
    heads = replace(made_of("normalised and rejecting"), offset=np.full(3, 40, dtype=np.float32))
    scores = run(heads, make_features())
    assert (scores.min() >= 0, scores.max()) == (True, 1)


def test_heads_without_power_and_rejection_have_the_files_of_earlier_releases() -> None:
    folded = fold_calibration(
        Heads(
            weights=(np.arange(10, dtype=np.float32).reshape(2, 5) - 4) / 8,
            bias=np.array([0.5, -0.25], dtype=np.float32),
            slope=np.array([2, 0.5], dtype=np.float32),
            offset=np.array([0, 1], dtype=np.float32),
        )
    )
    # Earlier releases stored the description in the part that now follows it.
    described = build_core_ml_head(folded, ["a", "b"]) + build_core_ml_description("a test")
    files = build_onnx_head(folded, ["a", "b"]), serialized(core_ml_messages().Model.FromString(described))
    assert [hashlib.sha256(data).hexdigest() for data in files] == [
        "c0193ea45690c5fff6763ae8cb9be31938c22be75e1e2163d3aa413c072c6346",
        "c452ed2e65b5446dce646d9ad3fe12db0a50b740a5c33eaaf91797da57254364",
    ]


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ["", "hunde_1, Äpfel 🦉", "x" * 20_000])
def test_a_description_replaces_an_earlier_one(text: str) -> None:
    parts = build_core_ml_description("earlier") + build_core_ml_description(text)
    assert core_ml_messages().Model.FromString(parts).description.metadata.shortDescription == text


@pytest.mark.slow
def test_same_heads_give_the_same_bytes(tmp_path: Path) -> None:
    assert export(tmp_path, ["a", "b"])[1].files == export(tmp_path, ["a", "b"])[1].files


def test_backbone_without_a_part_has_no_export_of_that_format(tmp_path: Path) -> None:
    _, exports = export(tmp_path, ["a", "b"], without=CORE_ML_BODY_FILE)
    assert list(exports.parts) == [ExportFormat.ONNX]
    assert list(exports.files) == ["head.onnx"]


def test_parts_do_not_contain_the_place_or_time_of_their_creation() -> None:
    files = backbone_files()
    for name in (ONNX_BODY_FILE, CORE_ML_BODY_FILE):
        assert not [word for word in (b"/home/", b"site-packages", b"conversion_date", b"torch==") if word in files[name]]


@pytest.mark.slow
def test_network_that_core_ml_cannot_express_has_no_core_ml_part() -> None:
    import torch

    class Sorting(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(images.float()[..., 0])[1]

    assert build_core_ml_body(Sorting(), Preprocessing(height=16, width=16)) is None


@pytest.mark.slow
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
