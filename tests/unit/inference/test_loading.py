"""From a real artifact in a store to predictions, and the errors if it cannot be loaded."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ocelli_api.classifier import Accelerator
from ocelli_inference.loading import LoadError, open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.predictor import Predictor
from ocelli_model.artifact import HEADS_FILE
from ocelli_model.backbone import ONNX_FILE
from ocelli_model.signature import Signer
from ocelli_storage.layout import ARTIFACT_METADATA, BACKBONES
from tests.unit.inference.artifacts import CLASS_NAMES, LOCATION, REVISION, install_artifact, make_jpeg, make_settings

pytestmark = pytest.mark.anyio

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return install_artifact(tmp_path_factory.mktemp("store"))


@pytest.fixture
async def predictor(store_url: str, metrics: Metrics) -> AsyncIterator[Predictor]:
    async with open_predictor(make_settings(store_url), metrics) as predictor:
        yield predictor


async def test_every_class_is_scored_in_the_definition_s_order(predictor: Predictor) -> None:
    prediction = await predictor.predict(make_jpeg(1))
    assert tuple(item.class_name for item in prediction.scores) == CLASS_NAMES
    assert all(0 <= item.score <= 1 for item in prediction.scores)


async def test_other_images_have_other_scores(predictor: Predictor) -> None:
    assert (await predictor.predict(make_jpeg(1))).scores != (await predictor.predict(make_jpeg(2))).scores


@pytest.mark.slow
async def test_the_same_bytes_have_the_same_scores_alone_and_in_a_batch(predictor: Predictor, metrics: Metrics) -> None:
    images = [make_jpeg(seed) for seed in range(40)]
    alone = [await predictor.predict(image) for image in images]
    together = await asyncio.gather(*(predictor.predict(image) for image in images))
    assert together == alone
    batches = metrics.registry.get_sample_value("ocelli_inference_batch_images_count")
    assert batches is not None
    assert batches < 1 + 40 + 40  # the warm-up, those alone, and fewer batches than images


async def test_predictor_has_predicted_before_it_is_returned(predictor: Predictor, metrics: Metrics) -> None:
    assert metrics.registry.get_sample_value("ocelli_inference_batch_images_sum") == 1


async def test_server_without_a_gpu_does_not_use_one(store_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_gpu(device: Accelerator) -> Accelerator:
        return Accelerator.GPU if device is Accelerator.AUTO else device

    monkeypatch.setattr("ocelli_inference.loading.available_device", find_gpu)
    async with open_predictor(make_settings(store_url, accelerator=Accelerator.CPU), metrics) as predictor:
        assert predictor.engine_name == "OpenVINO CPU float32"


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
async def test_server_that_needs_a_gpu_does_not_start_without_one(store_url: str, metrics: Metrics) -> None:
    with pytest.raises(LoadError, match="PyTorch finds no GPU"):
        async with open_predictor(make_settings(store_url, accelerator=Accelerator.GPU), metrics):
            pass


async def fail_to_load(store_url: str, metrics: Metrics, *, revision: str = REVISION) -> str:
    with pytest.raises(LoadError) as caught:
        async with open_predictor(make_settings(store_url, revision=revision), metrics):
            pass
    return str(caught.value)


async def test_a_missing_artifact_is_named(store_url: str, metrics: Metrics) -> None:
    assert "ffffffffff" in await fail_to_load(store_url, metrics, revision="ffffffffff")


async def test_a_damaged_artifact_is_not_served(tmp_path: Path, metrics: Metrics) -> None:
    url = await asyncio.to_thread(install_artifact, tmp_path)
    path = tmp_path / LOCATION.artifact_key(REVISION, HEADS_FILE)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert f"{HEADS_FILE} does not have the digest" in await fail_to_load(url, metrics)


async def test_an_artifact_of_another_revision_is_not_served(tmp_path: Path, metrics: Metrics) -> None:
    url = await asyncio.to_thread(install_artifact, tmp_path)
    path = tmp_path / LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "revision": "ffffffffff"}))
    assert "ffffffffff" in await fail_to_load(url, metrics)


async def test_another_valid_artifact_than_the_one_in_status_is_not_served(store_url: str, metrics: Metrics) -> None:
    settings = replace(make_settings(store_url), artifact_digest="ab" * 32)
    with pytest.raises(LoadError, match=f"instead of {'ab' * 32}; train the revision again"):
        async with open_predictor(settings, metrics):
            pass


async def test_an_unsigned_artifact_is_not_served_where_a_key_is_trusted(store_url: str, metrics: Metrics) -> None:
    settings = replace(make_settings(store_url), signing_public_keys=(SIGNER.public_key,))
    with pytest.raises(LoadError, match="it is not signed"):
        async with open_predictor(settings, metrics):
            pass


async def test_an_artifact_with_its_digest_and_signature_is_served(tmp_path: Path, metrics: Metrics) -> None:
    url = await asyncio.to_thread(install_artifact, tmp_path, SIGNER)
    digest = hashlib.sha256((tmp_path / LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)).read_bytes()).hexdigest()
    settings = replace(make_settings(url), artifact_digest=digest, signing_public_keys=(SIGNER.public_key,))
    async with open_predictor(settings, metrics) as predictor:
        assert (await predictor.predict(make_jpeg(1))).scores


async def test_a_missing_backbone_is_named_with_the_remedy(tmp_path: Path, metrics: Metrics) -> None:
    url = await asyncio.to_thread(install_artifact, tmp_path)
    for path in (tmp_path / BACKBONES).rglob("backbone.json"):
        path.unlink()
    assert "publish it with python -m ocelli_model.publish" in await fail_to_load(url, metrics)


async def test_a_damaged_backbone_is_not_served(tmp_path: Path, metrics: Metrics) -> None:
    url = await asyncio.to_thread(install_artifact, tmp_path)
    for path in (tmp_path / BACKBONES).rglob(ONNX_FILE):
        path.unlink()
        path.write_bytes(b"damaged")
    assert f"{ONNX_FILE} is damaged" in await fail_to_load(url, metrics)
