"""How `hog_color.zip` was recorded: a store as version 0.1.0 left it, at commit 8acbefe, the last one with HogColor.

The program needs that commit: `git worktree add ../recording 8acbefe`, copy this folder there, then
`python -m tests.earlier_release.record` from there. It is kept to show where the recording came from; what reads the recording
is `recording.py`.

A classifier was learned from generated shapes (two classes and negatives, uploaded as REST does), served by the inference
server's own predictor on one core, and described as its operator described it.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Accelerator, Manifest, parse_classifier, parse_spec
from ocelli_api.outcome import Outcome
from ocelli_api.pods import Environment
from ocelli_api.revision import definition, spec_revision, training_hash
from ocelli_api.settings import load_settings
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.settings import InferenceSettings
from ocelli_model.publish import publish_backbone
from ocelli_operator.observed import StoredArtifact
from ocelli_operator.status import build_status_document
from ocelli_storage.layout import DEFINITION, ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_training.attempt import run_attempt
from ocelli_training.settings import TrainerSettings
from tests.unit.operator.factories import UID, World

COMMIT = "8acbefe"
ARCHIVE = Path(__file__).parent / "hog_color.zip"
LOCATION = ClassifierLocation(namespace="team-a", classifier_id="shapes_1941945966")
EXAMPLES = 12
SIDE = 96


def draw(kind: str, seed: int) -> bytes:
    """A circle, a square or, as a negative, stripes: of any colour, size and place, on noise."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 70, (SIDE, SIDE, 3), dtype=np.uint8) + random.integers(0, 120, 3, dtype=np.uint8)
    image = Image.fromarray(noise.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    colour = tuple(int(value) for value in random.integers(120, 256, 3))
    size, left, top = (int(value) for value in random.integers((30, 5, 5), (60, 30, 30)))
    if kind == "circle":
        pen.ellipse((left, top, left + size, top + size), fill=colour)
    elif kind == "square":
        pen.rectangle((left, top, left + size, top + size), fill=colour)
    else:
        for row in range(top % 12, SIDE, 12):
            pen.line((0, row, SIDE, row + size // 3), fill=colour, width=4)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def pack(kind: str, first_seed: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for seed in range(first_seed, first_seed + EXAMPLES):
            archive.writestr(zipfile.ZipInfo(f"{seed}.jpg"), draw(kind, seed))
    return file.getvalue()


async def upload(store: ObjectStore, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    await store.put(LOCATION.upload_key(digest), data)
    return {"upload": digest, "round": 1}


async def make_spec(store: ObjectStore) -> dict[str, Any]:
    """With the defaults that the API server fills in."""
    return {
        "displayName": "shapes",
        "classes": [
            {"name": "circle", "examples": [await upload(store, pack("circle", 100))]},
            {"name": "square", "examples": [await upload(store, pack("square", 200))]},
        ],
        "negativeExamples": [await upload(store, pack("stripes", 300))],
        "dataRetention": "Keep",
        "evaluation": {"holdoutFraction": 0.2},
        "model": {"backbone": "Auto", "seed": 0, "strategy": "LinearProbe"},
        "retrainNonce": 0,
        "serving": {"accelerator": "CPU", "replicas": 1},
        "training": {"accelerator": "Auto", "activeDeadlineSeconds": 3600, "backoffLimit": 2},
    }


async def train(store: ObjectStore, spec: dict[str, Any], scratch: Path) -> Outcome:
    parsed = parse_spec(spec)
    revision = spec_revision(parsed)
    await store.put(LOCATION.training_key(revision, 1, DEFINITION), json.dumps(definition(parsed)).encode())
    environment = {
        Environment.STORE_URL: store.url,
        Environment.CLASSIFIER: "team-a/dogs",
        Environment.NAMESPACE: LOCATION.namespace,
        Environment.CLASSIFIER_ID: LOCATION.classifier_id,
        Environment.REVISION: revision,
        Environment.BACKBONES: str(await publish_backbone(store, "HogColor")),
        Environment.SCRATCH_FOLDER: str(scratch),
        Environment.CPU_LIMIT: "1",
        Environment.ATTEMPT: "1",
    }
    outcome, _ = await run_attempt(load_settings(TrainerSettings, environment), store, scratch)
    assert outcome.succeeded, outcome
    return outcome


async def score(store: ObjectStore, revision: str, images: dict[str, bytes]) -> dict[str, Any]:
    """By image and class: the score that is answered, and the same before it is rounded."""
    settings = InferenceSettings(
        store_url=store.url,
        classifier="team-a/dogs",
        namespace=LOCATION.namespace,
        classifier_id=LOCATION.classifier_id,
        revision=revision,
        bind_address="127.0.0.1",
        cpu_count=1,
        accelerator=Accelerator.CPU,
        log_level="INFO",
    )
    scores = {}
    async with open_predictor(settings, Metrics()) as predictor:
        for name, data in images.items():
            answered = {item.class_name: item.score for item in (await predictor.predict(data)).scores}
            features = await predictor._batcher.features(data)
            exact = predictor.classifier.head.scores(features[np.newaxis])[0]
            scores[name] = {"answered": answered, "exact": dict(zip(answered, map(float, exact), strict=True))}
    return scores


def describe(spec: dict[str, Any], outcome: Outcome) -> Manifest:
    """The Classifier as the operator leaves it when its revision is served; named as `World` expects."""
    manifest: Manifest = {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {
            "namespace": LOCATION.namespace,
            "name": "dogs",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "329",
            "creationTimestamp": "2026-11-25T11:03:17Z",
            "labels": {CLASSIFIER_ID_LABEL: LOCATION.classifier_id},
        },
        "spec": spec,
    }
    world = World()
    world.see(classifier=parse_classifier(manifest))
    world.step()
    world.step()
    world.see(
        artifact=StoredArtifact(
            revision=outcome.revision,
            accuracy=f"{outcome.accuracy:.3f}",
            digest=outcome.artifact_digest,
            backbone=outcome.backbone,
            finished_at=outcome.finished_at,
        )
    )
    world.settle()
    return {**manifest, "status": build_status_document(world.status)}


async def record(folder: Path) -> None:
    store = ObjectStore.from_url((folder / "store").as_uri())
    spec = await make_spec(store)
    outcome = await train(store, spec, folder / "scratch")
    images = {f"{kind}-{seed}.jpg": draw(kind, seed) for kind in ("circle", "square", "stripes") for seed in (901, 902, 903)}
    parsed = parse_spec(spec)
    recorded = {
        "commit": COMMIT,
        "classifier": describe(spec, outcome),
        "outcome": outcome.to_json(),
        "revision": spec_revision(parsed),
        "revisionWithHogColorNamed": spec_revision(parse_spec({**spec, "model": {"backbone": "HogColor"}})),
        "trainingHash": training_hash(parsed.training),
        "scores": await score(store, outcome.revision, images),
    }
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in (folder / "store").rglob("*") if path.is_file()):
            archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes(), zipfile.ZIP_DEFLATED)
        for name, data in images.items():
            archive.writestr(zipfile.ZipInfo(f"images/{name}"), data)
        text = json.dumps(recorded, indent=1, ensure_ascii=False).encode()
        archive.writestr(zipfile.ZipInfo("recorded.json"), text, zipfile.ZIP_DEFLATED)


def main() -> int:
    """Write the archive beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("store", "scratch"):
            (Path(folder) / name).mkdir()
        asyncio.run(record(Path(folder)))
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
