"""A small artifact in its own store: EfficientNetLite0, heads with fixed random weights, two classes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import simplejpeg

from ocelli_api.classifier import Accelerator
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import Artifact, save_artifact
from ocelli_model.backbone import load_backbone_metadata
from ocelli_model.heads import Heads
from ocelli_model.signature import Signer
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from tests.installed_backbone import install_backbone

NAMESPACE = "team-a"
CLASSIFIER_ID = "dogs_19"
REVISION = "0123456789"
CLASS_NAMES = ("beagle", "husky")
LOCATION = ClassifierLocation(namespace=NAMESPACE, classifier_id=CLASSIFIER_ID)


def install_artifact(folder: Path, signer: Signer | None = None) -> str:
    """Publish backbone and artifact below the folder; the URL of the store."""
    url = folder.as_uri()
    backbone = install_backbone(folder)
    asyncio.run(_install(open_store(url), backbone.digest, signer))
    return url


def make_settings(
    store_url: str, *, revision: str = REVISION, accelerator: Accelerator = Accelerator.AUTO
) -> InferenceSettings:
    return InferenceSettings(
        store_url=store_url,
        classifier="team-a/dogs",
        namespace=NAMESPACE,
        classifier_id=CLASSIFIER_ID,
        revision=revision,
        bind_address="127.0.0.1",
        cpu_count=2,
        accelerator=accelerator,
        log_level="INFO",
    )


def make_jpeg(seed: int, *, height: int = 213, width: int = 320) -> bytes:
    """A picture of large coloured squares, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(coarse[rows][:, columns]))
    return encoded


async def _install(store: ObjectStore, backbone_digest: str, signer: Signer | None) -> None:
    metadata = await load_backbone_metadata(store, backbone_digest)
    random = np.random.default_rng(0)
    ones = np.ones(len(CLASS_NAMES), dtype=np.float32)
    heads = Heads(
        weights=random.normal(0, 0.5, (len(CLASS_NAMES), metadata.feature_count)).astype(np.float32),
        bias=0 * ones,
        slope=ones,
        offset=0 * ones,
    )
    artifact = Artifact(
        revision=REVISION,
        class_names=CLASS_NAMES,
        heads=heads,
        backbone_name=metadata.name,
        backbone_digest=backbone_digest,
        precision=metadata.precision,
        preprocessing=metadata.preprocessing,
        metrics={},
    )
    await save_artifact(store, LOCATION, artifact, signer)
