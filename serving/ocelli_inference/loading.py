"""Loads a revision from the store: artifact, backbone, engine, warm-up."""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg

from ocelli_api.classifier import Accelerator
from ocelli_api.export import PartPlace
from ocelli_api.prediction import Prediction
from ocelli_inference.batching import BatchRules, FeatureBatcher
from ocelli_inference.metrics import Metrics
from ocelli_inference.predictor import Predictor, ServedClassifier
from ocelli_inference.settings import InferenceSettings
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact
from ocelli_model.backbone import BackboneError, load_backbone, load_backbone_metadata
from ocelli_model.engine import Engine, available_device, device_for, load_engine, needed_files
from ocelli_model.image_decoder import ImageDecoder
from ocelli_model.output_head import OutputHead
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectStoreError
from ocelli_storage.store_url import open_store

_log = logging.getLogger(__name__)

# On a CPU the engine runs the images of a batch in parallel, one per thread. A few rounds keep the threads busy; in a larger
# batch the first image would only wait for the last. On a GPU a batch runs as one.
_ROUNDS_IN_A_BATCH = 4
_BATCH_ON_GPU = 32


class LoadError(Exception):
    """The revision cannot be served. The message names the object, the fact and the remedy."""


@asynccontextmanager
async def open_predictor(settings: InferenceSettings, metrics: Metrics) -> AsyncIterator[Predictor]:
    """The revision of the settings, loaded, verified and warm: its predictor has made a real prediction.

    Raises:
        LoadError: artifact or backbone is missing or damaged, or does not work.
    """
    try:
        artifact, engine, rules = await _load(settings)
    except (ObjectStoreError, ArtifactError, BackboneError) as error:
        raise LoadError(str(error)) from error
    batcher = FeatureBatcher(
        open_image=ImageDecoder(artifact.preprocessing).open,
        compute_features=engine.features,
        decode_threads=settings.cpu_count,
        rules=rules,
        metrics=metrics,
    )
    classifier = ServedClassifier(
        classifier_id=settings.classifier_id,
        revision=settings.revision,
        class_names=artifact.class_names,
        head=artifact.heads,
    )
    if isinstance(artifact.heads, OutputHead):
        hierarchies = artifact.heads.wording.type_hierarchies
        classifier = replace(classifier, type_hierarchies=hierarchies, wordings=artifact.heads.wordings)
    async with batcher:
        predictor = Predictor(classifier, batcher, engine_name=engine.name)
        await _warm_up(predictor)
        yield predictor


async def _load(settings: InferenceSettings) -> tuple[Artifact, Engine, BatchRules]:
    store = open_store(settings.store_url)
    location = ClassifierLocation(namespace=settings.namespace, classifier_id=settings.classifier_id)
    artifact = await load_artifact(
        store,
        location,
        settings.revision,
        expected_digest=settings.artifact_digest or None,
        trusted=settings.signing_public_keys,
    )
    own = artifact.backbone_place is PartPlace.ARTIFACT
    prefix = location.network_prefix(settings.revision) if own else None
    metadata = await load_backbone_metadata(store, artifact.backbone_digest, prefix=prefix)
    device = device_for(metadata, await asyncio.to_thread(available_device, settings.accelerator))
    # The files of a backbone are not needed after it was loaded, so there is no cache to share and to clean up.
    with tempfile.TemporaryDirectory(prefix="ocelli-backbone-") as folder:
        files = needed_files(device)
        backbone = await load_backbone(store, artifact.backbone_digest, cache=Path(folder), files=files, prefix=prefix)
        engine = await asyncio.to_thread(
            load_engine, backbone, threads=settings.cpu_count, device=device, precision=artifact.precision
        )
    limit_images = _BATCH_ON_GPU if device is Accelerator.GPU else _ROUNDS_IN_A_BATCH * settings.cpu_count
    return artifact, engine, BatchRules(limit_images=limit_images)


async def _warm_up(predictor: Predictor) -> Prediction:
    """Predict an image of noise, in the same way as every image."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    try:
        prediction = await predictor.predict(simplejpeg.encode_jpeg(noise))
    except Exception as error:
        _log.exception("the first prediction failed")
        raise LoadError(
            "the first prediction failed; see the log of the server, and train again if it fails repeatedly"
        ) from error
    if not all(math.isfinite(item.score) for item in prediction.scores):
        raise LoadError("the first prediction has scores that are not finite numbers; train again")
    return prediction
