"""The rules of the CRD on a real API server: what it accepts and refuses, and with which messages."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.names import FORBIDDEN_CLASS_CHARACTERS
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import CLASSIFIERS, EVENTS, Resource
from ocelli_local import SyncClusterAccess
from tests.unit.cluster.test_client_bodies import TEXTS

pytestmark = pytest.mark.cluster

CRDS = Path(__file__).resolve().parents[2] / "crds"
DIGEST = "a" * 64
UNPOLLED = "pollInterval cannot poll a source with a secretRef, in a bucket or in a file"


def make_class(name: str = "cat", **source: Any) -> dict[str, Any]:
    return {"name": name, "examples": [source or {"url": "https://data.test/cat.zip"}]}


def make_classifier(*, name: str = "dogs", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"classes": [make_class("cat"), make_class("dog")], **spec},
    }


def make_pretrained(
    labels: dict[str, Any] | None = None, images: dict[str, Any] | None = None, **weights: Any
) -> dict[str, Any]:
    given = {key: value for key, value in (("labels", labels), ("images", images)) if value is not None}
    manifest = make_classifier()
    return {**manifest, "spec": {"pretrained": {"weights": weights, **given}}}


def with_spec(manifest: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**manifest, "spec": {**manifest["spec"], **spec}}


LABELS = {"url": "https://data.test/labels.txt"}


@pytest.fixture(scope="session")
def api_server(local_cluster: SyncClusterAccess) -> SyncClusterAccess:
    local_cluster.apply(CRDS / "classifier.yaml")
    return local_cluster


def create(api_server: SyncClusterAccess, manifest: dict[str, Any]) -> str:
    """The API server's error for a server-side dry run, empty if it accepts the object."""
    done = api_server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", input_text=yaml.safe_dump(manifest), check=False
    )
    return done.stderr if done.returncode else ""


ACCEPTED = {
    "two classes": make_classifier(),
    "one class and negatives": make_classifier(
        classes=[make_class()], negativeExamples=[{"url": "https://data.test/none.zip"}]
    ),
    "a pinned source": make_classifier(
        classes=[make_class("a", url="https://data.test/a.zip", sha256=DIGEST), make_class("b")]
    ),
    "an upload": make_classifier(classes=[make_class("a", upload=DIGEST, round=2), make_class("b")]),
    "a folder": make_classifier(classes=[make_class("a", url="file:///cats/"), make_class("b")]),
    "a name of 48 characters": make_classifier(name="x" * 48),
    "a class name of 128 characters": make_classifier(classes=[make_class("é" * 128), make_class("b")]),
    "500 classes of 4 sources": make_classifier(
        classes=[
            {"name": str(number), "examples": [{"url": f"https://data.test/{part}.zip"} for part in range(4)]}
            for number in range(500)
        ]
    ),
    "weights published by torchvision": make_pretrained(torchvision="ResNet50_Weights.IMAGENET1K_V2"),
    "own weights": make_pretrained(LABELS, url="https://data.test/a.pth", architecture="resnet50", sha256=DIGEST),
    "a folder of weights": make_pretrained(url="file:///food/"),
    "an ONNX file": make_pretrained(LABELS, url="https://data.test/a.onnx"),
    "packaged weights": make_pretrained(packaged="OpenNSFW"),
    "packaged weights and labels": make_pretrained({"packaged": "ImageNetFood"}, packaged="EfficientNetLite0"),
    "packaged weights with own labels": make_pretrained(LABELS, packaged="EfficientNetLite0"),
    "packaged labels of own weights": make_pretrained({"packaged": "ImageNet"}, url="https://data.test/a.onnx"),
    "an autoscaler": make_classifier(serving={"autoscaling": {"maxReplicas": 3}}),
    "GPUs": make_classifier(
        training={"accelerator": "GPU", "runtimeClassName": "nvidia"},
        serving={"accelerator": "Auto", "runtimeClassName": "nvidia"},
    ),
    "several workers": make_classifier(model={"strategy": "FineTune"}, training={"workers": 16}),
    "gates": make_classifier(promotion={"minAccuracy": "0.7", "maxAccuracyDrop": "0", "approval": "Manual"}),
    "an approval": make_classifier(approvedRevision="abcdef0123"),
    "pretrained weights with an approval": with_spec(make_pretrained(packaged="OpenNSFW"), promotion={"approval": "Manual"}),
    "a test set of one class": make_classifier(evaluation={"classes": [make_class("dog", upload=DIGEST)]}),
    "a test set of 500 classes": make_classifier(
        classes=[make_class("é" * 120 + str(number)) for number in range(500)],
        evaluation={"classes": [make_class("é" * 120 + str(499 - number)) for number in range(500)]},
    ),
    "buckets with a Secret": make_classifier(
        classes=[make_class("a", url="s3://training/a/", secretRef={"name": "s3-read"}), make_class("b", url="az://b/c.zip")],
        negativeExamples=[{"url": "gs://training/none.csv", "secretRef": {"name": "gs.read"}}],
    ),
    "polls": make_classifier(pollInterval="5m", evaluation={"classes": [make_class("dog")]}),
    "polls next to pinned sources and uploads": make_classifier(
        pollInterval="1h",
        classes=[
            make_class("a", url="s3://a/b.zip", secretRef={"name": "own"}, sha256=DIGEST),
            {"name": "b", "examples": [{"upload": DIGEST}, {"url": "http://data.test/b.zip"}]},
        ],
    ),
    "corrections": make_classifier(
        corrections=[{"image": DIGEST, "class": "dog"}, {"image": "b" * 64, "class": ""}],
    ),
    "2,000 corrections of 500 classes": make_classifier(
        classes=[make_class("é" * 60 + str(number)) for number in range(500)],
        corrections=[{"image": sha256_hex(str(number).encode()), "class": "é" * 60 + "499"} for number in range(2000)],
    ),
    "a queue": make_classifier(training={"queueName": "gpus.team-a"}),
    "quantities": make_classifier(training={"resources": {"limits": {"cpu": 2, "memory": "4Gi", "nvidia.com/gpu": 1}}}),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_valid_object_is_accepted(api_server: SyncClusterAccess, what: str) -> None:
    assert create(api_server, ACCEPTED[what]) == ""


@pytest.mark.parametrize("example", sorted((CRDS / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_accepted(api_server: SyncClusterAccess, example: Path) -> None:
    assert create(api_server, yaml.safe_load(example.read_text())) == ""


REFUSED = {
    "a name of 49 characters": (make_classifier(name="x" * 49), "choose a shorter name"),
    "a name with a dot": (make_classifier(name="a.b"), "without a dot"),
    "one class alone": (make_classifier(classes=[make_class()]), "add a second class, or negativeExamples"),
    "a class twice": (make_classifier(classes=[make_class("a"), make_class("a")]), "Duplicate value"),
    "a blank class name": (make_classifier(classes=[make_class(" "), make_class("b")]), "is blank; enter a name"),
    "a control character": (make_classifier(classes=[make_class("a\tb"), make_class("b")]), "control character; remove it"),
    "a long class name": (make_classifier(classes=[make_class("a" * 129), make_class("b")]), "may not be more than 128"),
    "url and upload": (
        make_classifier(classes=[make_class("a", url="https://data.test/a", upload=DIGEST), make_class("b")]),
        "exactly one of url and upload",
    ),
    "neither url nor upload": (
        make_classifier(classes=[make_class("a", round=2), make_class("b")]),
        "exactly one of url and upload",
    ),
    "a pinned upload": (
        make_classifier(classes=[make_class("a", upload=DIGEST, sha256=DIGEST), make_class("b")]),
        "remove sha256",
    ),
    "another scheme": (
        make_classifier(classes=[make_class("a", url="ftp://data.test/a.zip"), make_class("b")]),
        "must start with https://, http://, s3://, gs://, az:// or file:///",
    ),
    "a short digest": (
        make_classifier(classes=[make_class("a", url="https://data.test/a", sha256="ab"), make_class("b")]),
        "[0-9a-f]{64}",
    ),
    "2,005 sources": (
        make_classifier(
            classes=[
                {"name": str(number), "examples": [{"url": f"https://data.test/{part}.zip"} for part in range(5)]}
                for number in range(401)
            ]
        ),
        "more than 2,000 sources",
    ),
    "neither classes nor pretrained": (
        {**make_classifier(), "spec": {"displayName": "dogs"}},
        "exactly one of classes",
    ),
    "classes and pretrained": (
        make_classifier(pretrained={"weights": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"}}),
        "exactly one of classes",
    ),
    "no weights": (make_pretrained(LABELS), "set packaged (weights that come with Ocelli), torchvision"),
    "neither weights nor labels": (
        make_pretrained(),
        "set packaged (weights that come with Ocelli), torchvision",
    ),
    "packaged weights and an address": (
        make_pretrained(packaged="OpenNSFW", url="https://data.test/a.onnx"),
        "remove packaged to use other weights",
    ),
    "packaged weights and published ones": (
        make_pretrained(packaged="EfficientNetLite0", torchvision="ResNet50_Weights.IMAGENET1K_V2"),
        "remove packaged to use other weights",
    ),
    "packaged weights with a digest": (
        make_pretrained(packaged="OpenNSFW", sha256=DIGEST),
        "remove torchvision, url, sha256 and architecture",
    ),
    "unknown packaged weights": (make_pretrained(packaged="ResNet50"), "Unsupported value"),
    "packaged weights with images of one's own": (
        make_pretrained(images={"height": 300}, packaged="EfficientNetLite0"),
        "remove images",
    ),
    "labels without a value": (
        make_pretrained({}, packaged="EfficientNetLite0"),
        "exactly one of url (of a text file)",
    ),
    "labels of both kinds": (
        make_pretrained({**LABELS, "packaged": "ImageNet"}, packaged="EfficientNetLite0"),
        "exactly one of url (of a text file)",
    ),
    "packaged labels with a digest": (
        make_pretrained({"packaged": "ImageNet", "sha256": DIGEST}, packaged="EfficientNetLite0"),
        "sha256 pins the file at url",
    ),
    "weights without labels": (make_pretrained(url="https://data.test/a.onnx"), "labels is missing"),
    "weights without architecture": (make_pretrained(LABELS, url="https://data.test/a.pth"), "architecture is missing"),
    "a folder elsewhere": (make_pretrained(url="https://data.test/food/"), "only a file URL can name a folder"),
    "replicas and an autoscaler": (
        make_classifier(serving={"replicas": 2, "autoscaling": {}}),
        "remove one of them",
    ),
    "reversed bounds": (
        make_classifier(serving={"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}),
        "lower it or raise maxReplicas",
    ),
    "an unknown strategy": (make_classifier(model={"strategy": "Distil"}), "Unsupported value"),
    "a recipe of another strategy": (make_classifier(model={"epochs": 3}), "set strategy to FineTune"),
    "no epochs": (make_classifier(model={"strategy": "FineTune", "epochs": 0}), "greater than or equal to 1"),
    "a learning rate of 0": (
        make_classifier(model={"strategy": "FineTune", "learningRate": 0}),
        "set it to 0.000001 or more",
    ),
    "workers of a strategy that has none": (
        make_classifier(training={"workers": 2}),
        "training.workers greater than 1 is for model.strategy FineTune",
    ),
    "workers of pretrained weights": (
        with_spec(make_pretrained(packaged="OpenNSFW"), training={"workers": 2}, model={"strategy": "FineTune"}),
        "training.workers greater than 1 is for model.strategy FineTune",
    ),
    "no workers": (make_classifier(training={"workers": 0}), "greater than or equal to 1"),
    "too large a batch": (make_classifier(model={"strategy": "FineTune", "batchSize": 1024}), "less than or equal to 512"),
    "an unknown accelerator": (make_classifier(training={"accelerator": "TPU"}), "Unsupported value"),
    "an accelerator in lower case": (make_classifier(serving={"accelerator": "gpu"}), "Unsupported value"),
    "a RuntimeClass without a name": (make_classifier(serving={"runtimeClassName": ""}), "at least 1 chars long"),
    "a RuntimeClass with too long a name": (
        make_classifier(training={"runtimeClassName": "x" * 254}),
        "may not be more than 253",
    ),
    "a queue name with capitals": (make_classifier(training={"queueName": "GPUs"}), "spec.training.queueName"),
    "a queue name that ends in a dot": (make_classifier(training={"queueName": "gpus."}), "spec.training.queueName"),
    "a queue name longer than a label's value": (make_classifier(training={"queueName": "q" * 64}), "spec.training.queueName"),
    "an unknown field": (make_classifier(training={"nodes": 2}), "unknown field"),
    "an invalid quantity": (
        make_classifier(serving={"resources": {"limits": {"memory": "4 gigs"}}}),
        "should match",
    ),
    "a pin that is not a revision": (make_classifier(pinnedRevision="latest"), "should match"),
    "an approval that is not a revision": (make_classifier(approvedRevision="latest"), "should match"),
    "a number as a decimal": (make_classifier(promotion={"minAccuracy": 0.7}), "must be of type string"),
    "a minimum above 1": (make_classifier(promotion={"minAccuracy": "1.01"}), "should match"),
    "a negative drop": (make_classifier(promotion={"maxAccuracyDrop": "-0.1"}), "should match"),
    "an unknown approval": (make_classifier(promotion={"approval": "Never"}), "Unsupported value"),
    "a minimum for pretrained weights": (
        with_spec(make_pretrained(packaged="OpenNSFW"), promotion={"minAccuracy": "0.7"}),
        "a pretrained classifier has no measured accuracy",
    ),
    "a test set for pretrained weights": (
        with_spec(make_pretrained(packaged="OpenNSFW"), evaluation={"classes": [make_class()]}),
        "a pretrained classifier is not evaluated",
    ),
    "a test set of an unknown class": (
        make_classifier(evaluation={"classes": [make_class("cow")]}),
        "evaluation.classes names a class that is not in classes",
    ),
    "a test set with a class twice": (
        make_classifier(evaluation={"classes": [make_class("cat"), make_class("cat")]}),
        "Duplicate value",
    ),
    "a Secret of a file": (
        make_classifier(classes=[make_class("a", url="file:///a.zip", secretRef={"name": "own"}), make_class("b")]),
        "secretRef belongs to a url that is not a file URL",
    ),
    "a Secret of an upload": (
        make_classifier(classes=[make_class("a", upload=DIGEST, secretRef={"name": "own"}), make_class("b")]),
        "secretRef belongs to a url that is not a file URL",
    ),
    "a Secret of another namespace": (
        make_classifier(classes=[make_class("a", url="s3://a/b", secretRef={"name": "team-b/own"}), make_class("b")]),
        "should match",
    ),
    "polls each minute": (make_classifier(pollInterval="1m"), "should match"),
    "polls by a number": (make_classifier(pollInterval=3600), "must be of type string"),
    "polls of a class that needs a Secret": (
        make_classifier(
            pollInterval="1h", classes=[make_class("a", url="https://a.test/a", secretRef={"name": "own"}), make_class("b")]
        ),
        UNPOLLED,
    ),
    "polls of a bucket": (
        make_classifier(pollInterval="1h", classes=[make_class("a"), make_class("b", url="s3://a/b.zip")]),
        UNPOLLED,
    ),
    "polls of negative examples that need a Secret": (
        make_classifier(pollInterval="1h", negativeExamples=[{"url": "https://data.test/n.zip", "secretRef": {"name": "own"}}]),
        UNPOLLED,
    ),
    "polls of a test set in a file": (
        make_classifier(pollInterval="1h", evaluation={"classes": [make_class("dog", url="file:///dog.zip")]}),
        UNPOLLED,
    ),
    "polls of pretrained weights": (
        with_spec(make_pretrained(packaged="OpenNSFW"), pollInterval="1h"),
        "a pretrained classifier is not polled",
    ),
    "corrections of pretrained weights": (
        with_spec(make_pretrained(packaged="OpenNSFW"), corrections=[{"image": DIGEST, "class": ""}]),
        "a pretrained classifier learns nothing, so it takes no corrections",
    ),
    "a correction to an unknown class": (
        make_classifier(corrections=[{"image": DIGEST, "class": "cow"}]),
        "corrections names a class that is not in classes",
    ),
    "a correction with a low digest to an unknown class": (
        make_classifier(corrections=[{"image": "7" * 64, "class": "cow"}]),
        "corrections names a class that is not in classes",
    ),
    "two corrections of one image": (
        make_classifier(corrections=[{"image": DIGEST, "class": "cat"}, {"image": DIGEST, "class": "dog"}]),
        "Duplicate value",
    ),
    "an empty test set": (make_classifier(evaluation={"classes": []}), "should have at least 1 items"),
    "2,020 sources of a test set": (
        make_classifier(
            classes=[make_class(str(number)) for number in range(202)],
            evaluation={
                "classes": [
                    {"name": str(number), "examples": [{"url": f"https://data.test/{part}.zip"} for part in range(10)]}
                    for number in range(202)
                ]
            },
        ),
        "evaluation.classes has more than 2,000 sources",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_invalid_object_is_refused_with_a_remedy(api_server: SyncClusterAccess, what: str) -> None:
    manifest, words = REFUSED[what]
    assert words in create(api_server, manifest)


@pytest.mark.parametrize("character", FORBIDDEN_CLASS_CHARACTERS)
def test_a_forbidden_character_is_refused(api_server: SyncClusterAccess, character: str) -> None:
    manifest = make_classifier(classes=[make_class(f"a{character}"), make_class("b")])
    assert "remove that character" in create(api_server, manifest)


ENTRY = {"revision": "0123456789", "trainedAt": "2026-05-04T11:50:00Z"}
COMPARISON = {
    "baseline": "0123456789",
    "accuracyDrop": {"drop": "-0.012", "lower": "-0.100", "upper": "0.021"},
    "images": 100,
}
FIGURES = {"accuracy": "0.934", "accuracyInterval": {"lower": "0.871", "upper": "1.000"}, "judgedImages": 100}


def write_status(api_server: SyncClusterAccess, namespace: str, **status: Any) -> str:
    """Write a status as the operator does, and return the API server's error, empty if it accepts the status."""
    head = {key: value for key, value in make_classifier().items() if key != "spec"}
    manifest = {**head, "metadata": {"name": "dogs"}, "status": status}
    done = api_server.kubectl(
        *("-n", namespace, "apply", "--server-side", "--subresource=status", "--field-manager=ocelli-operator", "-f", "-"),
        input_text=json.dumps(manifest),
        check=False,
    )
    return done.stderr if done.returncode else ""


def test_figures_of_a_revision_can_be_added_and_removed(api_server: SyncClusterAccess, namespace: str) -> None:
    api_server.apply({**make_classifier(), "metadata": {"name": "dogs"}}, namespace=namespace)
    written: list[Any] = [
        {"observedGeneration": 1, "history": [{**ENTRY, **FIGURES}], **FIGURES},
        {"observedGeneration": 1, "history": [{**ENTRY, **FIGURES}], "accuracy": "0.9"},
        {"observedGeneration": 1, "history": [{**ENTRY, "comparison": COMPARISON, "promotedAt": "2026-05-04T11:50:00Z"}]},
        {"observedGeneration": 1, "history": [{**ENTRY, "comparison": {"baseline": "0123456789", "fault": "no images"}}]},
    ]
    for status in written:
        assert write_status(api_server, namespace, **status) == ""
        found = api_server.get("ocelli.dev/v1alpha1", "Classifier", "dogs", namespace=namespace)
        assert found is not None
        assert found["status"] == status


@pytest.mark.parametrize("interval", [{"lower": "0.871"}, {"lower": "0.871", "upper": "1.001"}, {"lower": "-1", "upper": "1"}])
def test_an_invalid_interval_is_refused(api_server: SyncClusterAccess, namespace: str, interval: dict[str, str]) -> None:
    api_server.apply({**make_classifier(), "metadata": {"name": "dogs"}}, namespace=namespace)
    assert "accuracyInterval" in write_status(api_server, namespace, accuracyInterval=interval)


def test_an_object_that_no_operator_has_seen_is_not_settled(api_server: SyncClusterAccess, namespace: str) -> None:
    (created,) = api_server.apply({**make_classifier(), "metadata": {"name": "dogs"}}, namespace=namespace)
    assert created["status"] == {"observedGeneration": -1}
    assert created["metadata"]["generation"] == 1


def write_texts(kubeconfig: Path, text: str) -> tuple[str, str]:
    """A text as the API server has stored it in a status and in an Event."""

    async def write() -> tuple[str, str]:
        condition = {"type": "Ready", "status": "False", "reason": "Test", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {"status": {"conditions": [{**condition, "message": text}]}}
        event = {
            "metadata": {"generateName": "texts-"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "test",
            "reportingInstance": "test",
            "action": "Test",
            "reason": "Test",
            "type": "Normal",
            "regarding": {"kind": "Classifier", "namespace": "default", "name": "texts"},
            "note": text[:500],
        }
        async with await ClusterClient.connect({"KUBECONFIG": str(kubeconfig)}) as client:
            manifest = make_classifier(name="texts")
            await client.apply(CLASSIFIERS, "default", "texts", manifest, field_manager="test")
            stored = await client.apply(CLASSIFIERS, "default", "texts", status, field_manager="test", subresource="status")
            stored_event = await client.create(EVENTS, "default", {**of_kind(EVENTS), **event})
        return stored["status"]["conditions"][0]["message"], stored_event["note"]

    return asyncio.run(write())


def of_kind(resource: Resource) -> dict[str, Any]:
    return {"apiVersion": resource.api_version, "kind": resource.kind}


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_can_be_stored_in_a_status_and_an_event(api_server: SyncClusterAccess, name: str) -> None:
    text = TEXTS[name]
    assert write_texts(api_server.kubeconfig, text) == (text, text[:500])


def test_half_of_a_surrogate_pair_is_stored_as_the_replacement_character(api_server: SyncClusterAccess) -> None:
    assert write_texts(api_server.kubeconfig, "a\ud83d.jpg \udcff") == ("a\ufffd.jpg \ufffd", "a\ufffd.jpg \ufffd")
