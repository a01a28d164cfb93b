"""A classifier with revisions that were really trained, behind a real gateway.

The cluster and the inference server are the fakes of the gateway's tests; images, trainings and all stored files are real.
"""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ocelli_api.classifier import parse_classifier
from ocelli_api.outcome import Outcome
from ocelli_api.pods import Environment
from ocelli_api.revision import definition, spec_revision
from ocelli_api.settings import load_settings
from ocelli_storage.layout import DEFINITION, ClassifierLocation
from ocelli_training.attempt import run_attempt
from ocelli_training.settings import TrainerSettings
from ocelli_training.stop_request import StopRequest
from tests.gateway_harness.images import build_zip
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import V3Client
from tests.installed_backbone import install_backbone

CLASSES = ("ring", "box", "cross")
HOSTILE_NAME = "<img src=x onerror=alert(1)>.jpg"
SERVED_SCORES = {"ring": 0.9130000000000001, "box": 0.04100000000000001, "cross": 1e-05}
"""Of the stub of the inference server. They have more digits than people write."""
_SIDE = 160
_SHAPES = {
    "ring": lambda draw, box, ink: draw.ellipse(box, outline=ink, width=12),
    "box": lambda draw, box, ink: draw.rectangle(box, outline=ink, width=12),
    "cross": lambda draw, box, ink: (
        draw.line(box, fill=ink, width=12),
        draw.line((box[0], box[3], box[2], box[1]), fill=ink, width=12),
    ),
}


def draw(shape: str | None, seed: int) -> bytes:
    """A JPEG file of a shape of any place, size and colour on noise; None: the noise only."""
    random = np.random.default_rng((seed, 7 + len(shape or "")))
    image = Image.fromarray(random.integers(150, 256, (_SIDE, _SIDE, 3), dtype=np.uint8))
    if shape is not None:
        side, left, top = random.integers(60, 100), *random.integers(10, 50, 2)
        ink = tuple(int(value) for value in random.integers(0, 120, 3))
        _SHAPES[shape](ImageDraw.Draw(image), [int(left), int(top), int(left + side), int(top + side)], ink)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def shape_zips(count: int = 24) -> dict[str, bytes]:
    """A zip for each class: the one of "ring" also has two boxes, a text file, and a file with a hostile name."""
    files = {name: {f"{name}-{seed}.jpg": draw(name, seed) for seed in range(count)} for name in CLASSES}
    files["ring"] |= {"really-a-box.jpg": draw("box", 1001), HOSTILE_NAME: draw("box", 1002), "broken.jpg": b"no image"}
    return {name: build_zip(entries) for name, entries in files.items()}


def noise_zip(count: int = 12) -> bytes:
    """Negative examples."""
    return build_zip({f"noise-{seed}.jpg": draw(None, seed) for seed in range(count)})


@dataclass(kw_only=True)
class TrainedClassifier:
    """A classifier of a stage, and the revisions that it was trained to, the newest first."""

    stage: Stage
    classifier_id: str
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def create(
        cls, client: V3Client, name: str, zips: Mapping[str, bytes], negatives: bytes | None = None
    ) -> TrainedClassifier:
        """Upload the zips, train, and serve."""
        files = [(f"{class_name}_positive_examples", (f"{class_name}.zip", data)) for class_name, data in zips.items()]
        if negatives is not None:
            files.append(("negative_examples", ("negatives.zip", negatives)))
        created = cls(stage=client.stage, classifier_id=client.created(name, files))
        created.train()
        return created

    @property
    def revisions(self) -> list[str]:
        return [entry["revision"] for entry in self.history]

    def train(self) -> str:
        """Train what the spec says now, in this process, and serve it. Returns the revision."""
        spec = parse_classifier(self.stage.classifier(self.classifier_id)).spec
        revision = spec_revision(spec)
        # The browser's library keeps an event loop running in the thread of the tests.
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(self._run, revision, definition(spec)).result()
        assert outcome.succeeded, outcome.message
        entry = {"revision": revision, "trainedAt": outcome.finished_at, "promotedAt": outcome.finished_at}
        self.history.insert(0, entry | _figures(outcome))
        self.stage.finish_training(self.classifier_id, SERVED_SCORES, figures={"history": self.history, **_figures(outcome)})
        return revision

    def _run(self, revision: str, spec: Mapping[str, Any]) -> Outcome:
        location = ClassifierLocation(namespace=NAMESPACE, classifier_id=self.classifier_id)
        store = self.stage.objects
        key = location.training_key(revision, 1, DEFINITION)
        self.stage.run(store.put(key, json.dumps(spec).encode()))
        with tempfile.TemporaryDirectory() as scratch:
            environment = {
                Environment.STORE_URL: store.url,
                Environment.CLASSIFIER: f"{NAMESPACE}/{self.classifier_id}",
                Environment.NAMESPACE: NAMESPACE,
                Environment.CLASSIFIER_ID: self.classifier_id,
                Environment.REVISION: revision,
                Environment.ATTEMPT: "1",
                Environment.BACKBONES: str(install_backbone(self.stage.store_folder)),
                Environment.SCRATCH_FOLDER: scratch,
                Environment.TERMINATION_MESSAGE_PATH: str(Path(scratch) / "termination"),
                Environment.CPU_LIMIT: "2",
            }
            settings = load_settings(TrainerSettings, environment)
            folder = Path(scratch) / "attempt"
            folder.mkdir()
            outcome, _ = asyncio.run(run_attempt(settings, store, folder, StopRequest(_refuse_to_end)))
        return outcome


def _figures(outcome: Outcome) -> dict[str, Any]:
    """What the operator writes of an outcome into the status."""
    assert outcome.accuracy is not None
    assert outcome.accuracy_interval is not None
    lower, upper = outcome.accuracy_interval
    return {
        "accuracy": f"{outcome.accuracy:.4f}",
        "accuracyInterval": {"lower": f"{lower:.4f}", "upper": f"{upper:.4f}"},
        "judgedImages": outcome.judged_images,
    }


def _refuse_to_end(number: int) -> None:
    raise AssertionError(f"signal {number} must not reach the process of the tests")
