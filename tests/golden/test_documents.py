"""Documents that are stored or hashed keep their exact form: revisions, definitions, status, outcomes, artifact metadata.

Each file in `documents/` was recorded before the code that reads and writes documents was replaced. `OCELLI_REWRITE_GOLDEN=1`
rewrites them; a changed line means that stored objects, hashes or artifacts change, which needs a migration.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ocelli_api.classifier import Activation, parse_classifier, parse_spec
from ocelli_api.classifier_status import parse_status
from ocelli_api.documents import build_document, parse_fields
from ocelli_api.export import ArtifactSummary, ExportFormat, ExportPart, PartPlace
from ocelli_api.lifecycle import lifecycle
from ocelli_api.outcome import Outcome, ProgressReport, parse_termination_message
from ocelli_api.prediction import ClassScore, Prediction
from ocelli_api.revision import definition, spec_revision, training_hash
from ocelli_model.artifact import Artifact
from ocelli_model.backbone import BackboneMetadata, NetworkKind, Precision, Weights
from ocelli_model.heads import Heads
from ocelli_model.output_head import OutputClass, OutputHead
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

FOLDER = Path(__file__).parent / "documents"
EXAMPLES = Path(__file__).resolve().parents[2] / "crds" / "examples"
LATER = {"fieldOfALaterRelease": {"a": [1]}}

Document = dict[str, Any]

PINNED: Document = {
    "classes": [
        {"name": "beagle", "examples": [{"upload": "a" * 64}, {"url": "https://data.test/b.zip", "sha256": "b" * 64}]},
        {"name": "Hündchen 犬", "examples": [{"upload": "c" * 64, "round": 2}]},
    ]
}
UNPINNED: Document = {
    "classes": [
        {"name": "beagle", "examples": [{"url": "https://data.test/beagle.zip"}]},
        {"name": "husky", "examples": [{"url": "file:///huskies/", "round": 3}]},
    ]
}
PLACED: Document = {
    "resources": {"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "runtimeClassName": "nvidia",
}


def with_changes(base: Document, changes: Mapping[str, Any]) -> Document:
    """`base` with values at dotted paths, such as `classes.0.examples.0.round`, added or replaced."""
    document = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = document
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        place[last] = value
    return document


SPEC_CHANGES: tuple[tuple[str, Document, Document], ...] = (
    *(
        (kind, base, changes)
        for kind, base in (("pinned", PINNED), ("unpinned", UNPINNED))
        for changes in (
            {},
            {"displayName": "Dogs"},
            {"negativeExamples": [{"upload": "d" * 64}, {"url": "https://data.test/n.zip", "sha256": "e" * 64, "round": 2}]},
            {"negativeExamples": [{"url": "https://data.test/n.zip"}]},
            {"negativeExamples": []},
            {"model.backbone": "Auto", "model.strategy": "LinearProbe", "model.seed": 0},
            {"model.backbone": "mobilenet_v3_large"},
            {"model.strategy": "FineTune"},
            {"model.seed": 7},
            {"evaluation.holdoutFraction": 0.2},
            {"evaluation.holdoutFraction": 0.25},
            {"retrainNonce": 4},
            {"pinnedRevision": "0123456789"},
            {"dataRetention": "DropAfterTraining"},
            {"training.accelerator": "GPU"},
            {"training.accelerator": "Auto"},
            {"training": PLACED},
            {"training.runtimeClassName": "nvidia"},
            {"training.priorityClassName": "batch"},
            {"training.backoffLimit": 0},
            {"training.activeDeadlineSeconds": 60},
            {"serving.replicas": 3},
            {"serving": {**PLACED, "accelerator": "GPU"}},
            {"serving.autoscaling": {}},
            {"serving.autoscaling": {"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilization": 60}},
            {"classes.0.examples.0.customer": "f" * 32},
            {"classes.0.examples.0.erased": True},
            {"classes.0.examples.0.erased": False, "classes.0.examples.0.round": 1},
            {"classes.0.examples.0.erased": True, "classes.0.examples.0.customer": "f" * 32, "retrainNonce": 1},
            LATER | {f"{part}.later": 1 for part in ("model", "evaluation", "training", "serving")},
        )
    ),
    *(
        ("pretrained", {"pretrained": {"weights": weights}}, changes)
        for weights in (
            {"packaged": "EfficientNetLite0"},
            {"packaged": "OpenNSFW"},
            {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"},
            {"torchvision": "ResNet50_Weights.IMAGENET1K_V2", "url": "https://data.test/w.pth", "sha256": "a" * 64},
            {"url": "file:///food/"},
            {"url": "https://data.test/a.onnx", "sha256": "a" * 64},
            {"url": "https://data.test/a.pth", "architecture": "resnet18"},
        )
        for changes in ({}, {"retrainNonce": 2})
    ),
    *(
        ("pretrained", {"pretrained": {"weights": {"url": "https://data.test/a.onnx", "sha256": "a" * 64}}}, changes)
        for changes in (
            {"pretrained.labels": {"packaged": "ImageNet"}},
            {"pretrained.labels": {"packaged": "ImageNetFood"}, "retrainNonce": 3},
            {"pretrained.labels": {"url": "https://data.test/l.txt"}, "retrainNonce": 3},
            {"pretrained.labels": {"url": "https://data.test/l.txt", "sha256": "b" * 64}, "retrainNonce": 3},
            {"pretrained.hierarchy": {"url": "https://data.test/h.txt"}},
            {"pretrained.hierarchy": {"url": "https://data.test/h.txt", "sha256": "c" * 64}},
            {"pretrained.translations": {"url": "https://data.test/t.json"}},
            {"pretrained.translations": {"url": "https://data.test/t.json", "sha256": "d" * 64}},
            {"pretrained.activation": "Softmax", "pretrained.images": {}},
            {"pretrained.activation": "Sigmoid"},
            {"pretrained.activation": "Identity"},
            {"pretrained.otherwise": "non-food"},
            {"pretrained.images": {"height": 260}},
            {"pretrained.images": {"width": 260, "shortSide": 288}},
            {"pretrained.images": {"mean": [0, 0.5, 1], "standardDeviation": [0.5, 1, 0.25]}},
            {"pretrained.later": 1, "pretrained.weights.later": 1, "pretrained.images": {"later": 1}},
        )
    ),
)

INTERVAL: Document = {"lower": "0.871", "upper": "0.967"}
HISTORY: list[Document] = [
    {
        "revision": "0123456789",
        "trainedAt": "2026-01-02T03:04:05Z",
        "accuracy": "0.934",
        "accuracyInterval": INTERVAL,
        "judgedImages": 120,
        "artifactDigest": "a" * 64,
        "backbone": "EfficientNetLite0 (Auto)",
    },
    {"revision": "abcdef0123", "trainedAt": "2026-01-01T00:00:00Z", "accuracy": "0.9"},
    {"revision": "0000000000", "trainedAt": "2025-12-31T00:00:00Z"},
]
CONDITIONS: list[Document] = [
    {
        "type": "Ready",
        "status": "True",
        "reason": "Served",
        "message": "revision 0123456789 answers",
        "observedGeneration": 7,
        "lastTransitionTime": "2026-01-02T03:04:06.789Z",
    },
    {"type": "OfALaterRelease", "status": "Unknown", "reason": "Later", "lastTransitionTime": "2026-01-02T03:04:06Z"},
    {"type": "Stalled", "status": "False"},
]
FULL_STATUS: Document = {
    "observedGeneration": 7,
    "classifierID": "dogs_19",
    "conditions": CONDITIONS,
    "servedRevision": "0123456789",
    "settledRevision": "0123456789",
    "trainingRevision": "1111111111",
    "attempt": 4,
    "observedRetrainNonce": 2,
    "failedRevision": "2222222222",
    "failedTrainingHash": "3333333333",
    "failedRolloutHash": "4444444444444444",
    "history": HISTORY,
    "endpoint": "http://dogs.team-a.svc:8080",
    "accuracy": "0.934",
    "accuracyInterval": INTERVAL,
    "judgedImages": 120,
    "backbone": "EfficientNetLite0 (Auto)",
    "progress": {"percent": 40, "stage": "Fitting", "estimatedCompletion": "2026-01-02T03:05:00Z"},
    "trainedAt": "2026-01-02T03:04:05Z",
    "retrainedAt": "2026-01-02T03:04:07Z",
}
STATUSES: dict[str, Document] = {
    "empty": {},
    "unseen": {"observedGeneration": -1},
    "full": FULL_STATUS,
    "measured progress": {
        "observedGeneration": 1,
        "progress": {
            "percent": 40,
            "stage": "Extracting",
            "images": 64,
            "imagesTotal": 500,
            "device": "OpenVINO CPU float32",
            "accuracy": "0.934",
        },
    },
    "progress without an estimate": {"observedGeneration": 1, "progress": {"percent": 0, "stage": "Reading"}},
    "later release": {
        **LATER,
        "observedGeneration": 1,
        "history": [{**HISTORY[2], **LATER}],
        "conditions": [{**CONDITIONS[0], **LATER}],
        "accuracyInterval": {**INTERVAL, **LATER},
    },
    **{f"only {name}": {name: value} for name, value in FULL_STATUS.items()},
    "null lists": {"conditions": None, "history": None},
}

FULL_OUTCOME: Document = {
    "reason": "Succeeded",
    "message": "learned from 120 images",
    "revision": "0123456789",
    "attempt": 3,
    "accuracy": 0.934,
    "accuracyInterval": [0.871, 0.967],
    "judgedImages": 120,
    "artifactDigest": "a" * 64,
    "backbone": "EfficientNetLite0 (Auto)",
    "backboneDigest": "b" * 64,
    "finishedAt": "2026-01-02T03:04:05.678Z",
}
SMALLEST_OUTCOME = {name: FULL_OUTCOME[name] for name in ("reason", "message", "revision", "attempt")}
OUTCOMES: dict[str, Document] = {
    "full": FULL_OUTCOME,
    **{f"only {name}": {**SMALLEST_OUTCOME, name: value} for name, value in FULL_OUTCOME.items()},
    **{f"without {name}": {key: value for key, value in FULL_OUTCOME.items() if key != name} for name in SMALLEST_OUTCOME},
    **{
        f"reason {reason}": {**SMALLEST_OUTCOME, "reason": reason}
        for reason in ("InvalidData", "SourceUnreadable", "BackboneUnavailable", "Failed", "OfALaterRelease")
    },
    "later release": {**FULL_OUTCOME, **LATER},
    "long message": {**FULL_OUTCOME, "message": "犬" * 2000},
    "half a surrogate pair": {**FULL_OUTCOME, "message": "a\ud83d.jpg"},
    **{
        f"{name} {value!r}": {**FULL_OUTCOME, name: value}
        for name, value in (
            ("backbone", {"name": "x"}),
            ("backbone", ""),
            ("backbone", "x" * 513),
            ("finishedAt", "yesterday"),
            ("finishedAt", 7),
            ("accuracy", None),
            ("accuracyInterval", None),
            ("accuracyInterval", [0.9]),
            ("accuracyInterval", True),
            ("message", 7),
            ("revision", None),
            ("attempt", "3"),
        )
    },
}
FULL_PROGRESS: Document = {
    "stage": "Fitting",
    "percent": 40,
    "dataValid": True,
    "estimatedCompletion": "2026-01-02T03:05:00Z",
}
MEASURED_PROGRESS: Document = {
    **FULL_PROGRESS,
    "images": 64,
    "imagesTotal": 500,
    "device": "OpenVINO CPU float32",
    "accuracy": 0.934,
}
PROGRESS: dict[str, Document] = {
    "full": FULL_PROGRESS,
    "measured": MEASURED_PROGRESS,
    "later release": {**FULL_PROGRESS, **LATER},
    **{f"without {name}": {key: value for key, value in FULL_PROGRESS.items() if key != name} for name in FULL_PROGRESS},
    **{
        f"{name} {value!r}": {**FULL_PROGRESS, name: value}
        for name, value in (
            ("stage", "Dreaming"),
            ("percent", 39.9),
            ("percent", "many"),
            ("dataValid", 0),
            ("estimatedCompletion", None),
            ("estimatedCompletion", "soon"),
        )
    },
}
PART: Document = {"place": "Artifact", "file": "model.mlmodel.part", "sha256": "c" * 64, "sizeBytes": 1234}
FULL_SUMMARY: Document = {
    "classes": [{"name": "beagle", "threshold": 0.5}, {"name": "husky"}],
    "backbone": {"name": "EfficientNetLite0", "digest": "d" * 64, "place": "Artifact"},
    "exports": {"model.mlmodel": [{**PART, "place": "Backbone"}, PART], "model.onnx": []},
}
SUMMARIES: dict[str, Document] = {
    "full": FULL_SUMMARY,
    "first release": {"classes": FULL_SUMMARY["classes"], "backbone": {"digest": "d" * 64}},
    "later release": with_changes(FULL_SUMMARY, {"later": 1, "backbone.later": 1, "classes.0.later": 1}),
    **{f"without {name}": {key: value for key, value in FULL_SUMMARY.items() if key != name} for name in FULL_SUMMARY},
    "another format": {**FULL_SUMMARY, "exports": {"model.zip": []}},
    "another place": with_changes(FULL_SUMMARY, {"backbone.place": "Moon"}),
    "a part without its file": {**FULL_SUMMARY, "exports": {"model.onnx": [{**PART, "file": None}, {"place": "Artifact"}]}},
}


def plain(value: Any) -> Any:
    """A typed value as JSON, by the names of its fields in Python."""
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Enum) else value


def attempt(build: Callable[[], Any]) -> Any:
    """What `build` returns, or that it refuses the document."""
    try:
        return build()
    except (KeyError, TypeError, ValueError):
        return "refused"


def describe_spec(document: Document) -> Document:
    spec = parse_spec(document)
    assert definition(parse_spec(definition(spec))) == definition(spec)
    return {
        "revision": spec_revision(spec),
        "current": spec.pinned_revision or spec_revision(spec),
        "training": training_hash(spec.training),
        "definition": definition(spec),
    }


def record_specs() -> Document:
    found = {path.stem: describe_spec(yaml.safe_load(path.read_text())["spec"]) for path in sorted(EXAMPLES.glob("*.yaml"))}
    for kind, base, changes in SPEC_CHANGES:
        name = f"{kind} {json.dumps(base['pretrained']['weights']) if kind == 'pretrained' else ''} {json.dumps(changes)}"
        assert name not in found
        found[name] = describe_spec(with_changes(base, changes))
    return found


def record_classifiers() -> Document:
    metadata = {
        "namespace": "team-a",
        "name": "dogs",
        "uid": "11111111-2222-3333-4444-555555555555",
        "generation": 7,
        "resourceVersion": "42",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"ocelli.dev/classifier-id": "dogs_19", "ocelli.dev/created-by": "gateway"},
        "annotations": {"ocelli.dev/created-at": "2026-01-01T00:00:00.123456+00:00"},
        **LATER,
    }
    full_spec = with_changes(
        PINNED,
        {
            "displayName": "Dogs",
            "negativeExamples": [{"upload": "d" * 64, "customer": "f" * 32, "erased": True, "round": 2}],
            "model": {"backbone": "EfficientNetLite0", "strategy": "LinearProbe", "seed": 7},
            "evaluation": {"holdoutFraction": 0.25},
            "training": {
                **PLACED,
                "accelerator": "GPU",
                "priorityClassName": "batch",
                "backoffLimit": 0,
                "activeDeadlineSeconds": 60,
            },
            "serving": {
                **PLACED,
                "accelerator": "Auto",
                "autoscaling": {"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilization": 60},
            },
            "dataRetention": "DropAfterTraining",
            "retrainNonce": 4,
            "pinnedRevision": "0123456789",
        },
    )
    full_pretrained = {
        "pretrained": {
            "weights": {"url": "https://data.test/a.pth", "sha256": "a" * 64, "architecture": "resnet18"},
            "labels": {"url": "https://data.test/l.txt", "sha256": "b" * 64},
            "hierarchy": {"url": "https://data.test/h.txt", "sha256": "c" * 64},
            "translations": {"url": "https://data.test/t.json"},
            "activation": "Sigmoid",
            "otherwise": "other",
            "images": {"height": 1, "width": 2, "shortSide": 3, "mean": [0, 0.5, 1], "standardDeviation": [1, 1, 1]},
        }
    }
    smallest = {"namespace": "team-a", "name": "dogs"}
    manifests = {
        "full": {"metadata": metadata, "spec": full_spec, "status": FULL_STATUS},
        "pretrained": {"metadata": metadata, "spec": full_pretrained},
        "deleted": {"metadata": {**metadata, "deletionTimestamp": "2026-01-02T00:00:00Z"}, "spec": UNPINNED, "status": {}},
        "smallest": {"metadata": smallest, "spec": UNPINNED},
        "nulls": {
            "metadata": {**smallest, "labels": None, "annotations": None, "creationTimestamp": None},
            "spec": {
                **UNPINNED,
                **dict.fromkeys(("negativeExamples", "model", "evaluation", "training", "serving", "pretrained")),
                "classes": [{"name": "a", "examples": []}, {"name": "b", "examples": []}],
            },
            "status": None,
        },
        "no classes": {"metadata": smallest, "spec": {"displayName": "Dogs"}},
        "no class name": {"metadata": smallest, "spec": with_changes(UNPINNED, {"classes": [{"examples": []}]})},
        "no weights": {"metadata": smallest, "spec": {"pretrained": {}}},
        "other activation": {"metadata": smallest, "spec": with_changes(full_pretrained, {"pretrained.activation": "Tanh"})},
        "other accelerator": {"metadata": smallest, "spec": with_changes(UNPINNED, {"training.accelerator": "TPU"})},
        "other retention": {"metadata": smallest, "spec": {**UNPINNED, "dataRetention": "Forget"}},
        "no revision in history": {"metadata": smallest, "spec": UNPINNED, "status": {"history": [{}]}},
        "other condition status": {
            "metadata": smallest,
            "spec": UNPINNED,
            "status": {"conditions": [{"type": "Ready", "status": "Maybe"}]},
        },
    }

    def describe(manifest: Document) -> Document:
        classifier = parse_classifier(manifest)
        return {"parsed": plain(classifier), "lifecycle": str(lifecycle(classifier)), "id": classifier.classifier_id}

    return {name: attempt(lambda manifest=manifest: describe(manifest)) for name, manifest in manifests.items()}  # type: ignore[misc]


def record_statuses() -> Document:
    return {name: build_document(parse_status(document)) for name, document in STATUSES.items()}


def record_outcomes() -> Document:
    def describe(document: Document) -> Document:
        outcome = parse_fields(Outcome, document)
        message = outcome.to_termination_message()
        read = parse_termination_message(message)
        assert read is not None
        assert dataclasses.replace(read, message="") == dataclasses.replace(outcome, message="")
        return {"parsed": plain(outcome), "stored": outcome.to_json(), "terminationMessage": message}

    return {name: attempt(lambda item=document: describe(item)) for name, document in OUTCOMES.items()}  # type: ignore[misc]


def record_progress() -> Document:
    return {
        name: attempt(lambda item=document: parse_fields(ProgressReport, item).to_json())  # type: ignore[misc]
        for name, document in PROGRESS.items()
    }


def record_summaries() -> Document:
    return {
        name: attempt(lambda item=document: plain(ArtifactSummary.parse(item)))  # type: ignore[misc]
        for name, document in SUMMARIES.items()
    }


def record_predictions() -> Document:
    scores = (
        ClassScore(class_name="beagle", score=0.93),
        ClassScore(class_name="owl", score=1, type_hierarchy="/animal/bird/owl"),
    )
    prediction = Prediction(classifier_id="dogs_19", revision="0123456789", scores=scores)
    document = build_document(prediction)
    answer: Document = {**document, **LATER, "predictions": [{**item, **LATER} for item in document["predictions"]]}
    odd = {
        "later release": answer,
        "whole score": with_changes(document, {"predictions": [{"class": "a", "score": 1}]}),
        "score as text": with_changes(document, {"predictions": [{"class": "a", "score": "0.5"}]}),
        "no score": with_changes(document, {"predictions": [{"class": "a"}]}),
        "no predictions": with_changes(document, {"predictions": []}),
        "no id": {key: value for key, value in document.items() if key != "classifierID"},
    }
    return {
        "document": document,
        "parsed": {
            name: attempt(lambda item=item: plain(parse_fields(Prediction, item)))  # type: ignore[misc]
            for name, item in odd.items()
        },
    }


def record_artifacts() -> Document:
    heads = Heads(
        weights=np.arange(6, dtype=np.float32).reshape(2, 3),
        bias=np.array([0.5, -0.5], dtype=np.float32),
        slope=np.array([1.5, 2.5], dtype=np.float32),
        offset=np.array([0.25, 0.125], dtype=np.float32),
    )
    outputs = OutputHead(
        activation=Activation.SOFTMAX,
        output_count=3,
        classes=(
            OutputClass(name="owl", outputs=(0, 2), ancestors=("animal", "bird"), translations={"de": "Eule"}),
            OutputClass(name="tree", outputs=(1,)),
        ),
        temperature=1.5,
    )
    squash = Preprocessing(height=224, width=224)
    crop = Preprocessing(
        height=240,
        width=260,
        resize=ResizeMode.SHORT_SIDE_CROP,
        short_side_pixels=288,
        interpolation=Interpolation.BICUBIC,
        mean=(0.485, 0.456, 0.406),
        standard_deviation=(0.229, 0.224, 0.225),
    )
    exports = {
        ExportFormat.CORE_ML: (
            ExportPart(place=PartPlace.BACKBONE, file="model.mlmodel.part", sha256="c" * 64, size_bytes=123),
            ExportPart(place=PartPlace.ARTIFACT, file="head.mlmodel.part", sha256="d" * 64, size_bytes=45),
        ),
        ExportFormat.ONNX: (),
    }
    named: Document = {"classifier_id": "dogs_19"}
    common: Document = {
        "revision": "0123456789",
        "class_names": ("beagle", "husky"),
        "backbone_name": "EfficientNetLite0",
        "backbone_digest": "a" * 64,
        "metrics": {"accuracy": 0.934, "classes": []},
        "library_versions": {"ocelli": "0.1.0", "numpy": "2.4.0"},
    }
    trained: Document = {
        "heads": heads,
        "precision": Precision.FLOAT32,
        "preprocessing": squash,
        "exports": exports,
    }
    imported: Document = {
        "heads": outputs,
        "precision": Precision.FLOAT32,
        "preprocessing": crop,
        "backbone_place": PartPlace.ARTIFACT,
    }
    artifacts = {
        "heads": Artifact(**common, **trained),
        "outputs": Artifact(**common, **imported),
        "format 2 heads": Artifact(**common, **named, **trained),
        "format 2 outputs": Artifact(**common, **named, **imported),
        "format 1": Artifact(**common, **named, heads=heads, precision=None, preprocessing=squash),
    }
    backbones = {
        "full": BackboneMetadata(
            name="resnet18",
            version="3",
            preprocessing=crop,
            feature_count=512,
            precision=Precision.FASTEST,
            weights=Weights(origin="https://data.test/w.pth", sha256="b" * 64, provenance="made by the tests"),
            licence="BSD-3-Clause",
            files={"model.xml": "c" * 64},
            kind=NetworkKind.CLASSIFIER,
        ),
        "smallest": BackboneMetadata(
            name="HogColor",
            version="1",
            preprocessing=squash,
            feature_count=8,
            precision=Precision.FLOAT32,
            weights=None,
            licence=None,
            files={},
        ),
        "weights of unknown provenance": BackboneMetadata(
            name="resnet18",
            version="3",
            preprocessing=squash,
            feature_count=512,
            precision=Precision.FLOAT32,
            weights=Weights(origin="w.pth", sha256="b" * 64),
            licence=None,
            files={"model.xml": "c" * 64},
        ),
    }
    return {
        "artifacts": {
            name: {"digest": artifact.digest, "document": json.loads(artifact.to_files()[0])}
            for name, artifact in artifacts.items()
        },
        "outputHead": json.loads(artifacts["outputs"].to_files()[1]["head.json"]),
        "backbones": {
            name: {"digest": metadata.digest, "document": json.loads(metadata.to_bytes())}
            for name, metadata in backbones.items()
        },
    }


RECORDED: dict[str, Callable[[], Document]] = {
    "specs": record_specs,
    "classifiers": record_classifiers,
    "statuses": record_statuses,
    "outcomes": record_outcomes,
    "progress": record_progress,
    "artifact_summaries": record_summaries,
    "predictions": record_predictions,
    "artifacts": record_artifacts,
}


@pytest.mark.parametrize("name", RECORDED)
def test_documents_keep_their_recorded_form(name: str) -> None:
    file = FOLDER / f"{name}.json"
    # Not sorted: where a document is stored as it is written, the order of its keys is part of its bytes.
    text = json.dumps(RECORDED[name](), indent=1) + "\n"
    if os.environ.get("OCELLI_REWRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()
