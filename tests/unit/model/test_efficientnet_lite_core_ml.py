"""EfficientNet-Lite as Core ML: the specification's own layers and weights give the features of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocelli_model.backbones import efficientnet_lite
from ocelli_model.backbones.efficientnet_lite_table import FEATURE_COUNT
from ocelli_model.exports.core_ml_parts import FEATURES, IMAGE, SCORES, build_core_ml_head, input_size
from ocelli_model.exports.heads import fold_calibration
from ocelli_model.exports.message_types import core_ml_messages
from ocelli_model.preprocessing import Preprocessing
from tests.unit.model.core_ml_interpreter import run_core_ml, run_core_ml_layer
from tests.unit.model.efficientnet import BOUND, NAME, reference, sized, weights_of
from tests.unit.model.photographs import photographs
from tests.unit.model.test_exports import make_heads

CLASS_NAMES = ("heron", "owl", "wren")
SQUASHED, CUT = sized(224, 224), efficientnet_lite.preprocessing_for(NAME)
BOTH = pytest.mark.parametrize("preprocessing", [SQUASHED, CUT], ids=["squashed", "cut"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch's threads spin while they wait: if tests share a processor, two take several times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def body(preprocessing: Preprocessing) -> bytes:
    return efficientnet_lite.build_core_ml_body(NAME, weights_of(NAME), preprocessing)


def whole(preprocessing: Preprocessing) -> bytes:
    heads = fold_calibration(make_heads(len(CLASS_NAMES), FEATURE_COUNT))
    return body(preprocessing) + build_core_ml_head(heads, CLASS_NAMES)


def parsed(data: bytes) -> Any:
    return core_ml_messages().Model.FromString(data)


def as_vision_shows_it(preprocessing: Preprocessing) -> Preprocessing:
    """The layers before the cut."""
    height, width = input_size(preprocessing)
    return Preprocessing(
        height=height,
        width=width,
        resize=preprocessing.resize,
        short_side_pixels=preprocessing.short_side_pixels,
        interpolation=preprocessing.interpolation,
    )


@pytest.mark.slow
@BOTH
def test_specification_has_the_features_of_the_reference(preprocessing: Preprocessing) -> None:
    features = run_core_ml_layer(parsed(body(preprocessing)), list(photographs(as_vision_shows_it(preprocessing))), FEATURES)
    assert features == pytest.approx(reference(NAME, photographs(preprocessing)), abs=BOUND)


@pytest.mark.slow
def test_export_gives_the_scores_of_the_server() -> None:
    images = photographs(SQUASHED)
    answers = run_core_ml(parsed(whole(SQUASHED)), list(images))
    given = np.array([[answer[name] for name in CLASS_NAMES] for answer in answers])
    heads = make_heads(len(CLASS_NAMES), FEATURE_COUNT)
    assert given == pytest.approx(heads.scores(reference(NAME, images)), abs=BOUND)


@BOTH
def test_values_have_unique_names_and_are_defined_before_use(preprocessing: Preprocessing) -> None:
    known = {IMAGE}
    for layer in parsed(whole(preprocessing)).neuralNetworkClassifier.layers:
        assert set(layer.input) <= known
        assert not set(layer.output) & known
        known.update(layer.output)
    assert known >= {FEATURES, SCORES}


def test_body_is_always_the_same() -> None:
    assert efficientnet_lite.build_core_ml_body(NAME, weights_of(NAME), CUT) == body(CUT)


def test_coremltools_reads_the_export_as_one_for_ios_13(tmp_path: Path) -> None:
    import coremltools
    from coremltools.models.neural_network import NeuralNetworkBuilder

    path = tmp_path / "birds.mlmodel"
    path.write_bytes(whole(CUT))
    specification = coremltools.utils.load_spec(str(path))
    model = coremltools.models.MLModel(specification, skip_model_load=True)
    assert specification.specificationVersion == coremltools._SPECIFICATION_VERSION_IOS_13
    assert model.input_description[IMAGE].startswith("RGB image: the shorter side scaled to 256")
    assert len(NeuralNetworkBuilder(spec=specification).layers) == len(specification.neuralNetworkClassifier.layers)
