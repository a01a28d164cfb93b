"""The Classifier resource as frozen dataclasses, with its spec; `classifier_status` has the types of its status.

It owns the field names, defaults and bounds of `crds/classifier.yaml`; a contract test compares the two. It must not know who
reads or writes the resource.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from ocelli_api.classifier_status import ClassifierStatus, parse_status
from ocelli_api.documents import DocumentError, named, parse_fields

GROUP = "ocelli.dev"
VERSION = "v1alpha1"
KIND = "Classifier"
PLURAL = "classifiers"
API_VERSION = f"{GROUP}/{VERSION}"

CLASSIFIER_ID_LABEL = f"{GROUP}/classifier-id"
"""Label of a Classifier and of its children: its v3 `classifier_id`."""
CREATED_BY_LABEL = f"{GROUP}/created-by"
"""Label of a Classifier: `gateway` if the REST API created it."""
CREATED_BY_GATEWAY = "gateway"
CREATED_AT_ANNOTATION = f"{GROUP}/created-at"
"""Annotation of a Classifier that the REST API created: its creation time, because `creationTimestamp` has whole seconds
only."""
REST_WRITES_ANNOTATION = f"{GROUP}/rest-writes"
"""Annotation with which the author of a manifest allows the REST API to retrain and delete the Classifier."""
REST_WRITES_ALLOWED = "Allowed"
CUSTOMER_LABEL = f"{GROUP}/customer"
"""Label of a Classifier that the REST API created for a customer: the key of the customer's id, see `names.customer_key`."""

NAME_LIMIT = 48
CLASS_NAME_LIMIT = 128
DISPLAY_NAME_LIMIT = 128
CLASSES_LIMIT = 500
SOURCES_LIMIT = 2000
CLASS_SOURCES_LIMIT = 1000
"""Of one class, or of the negative examples: more would exceed the API server's cost budget for the rules on each source."""
CORRECTIONS_LIMIT = 2000
SPEC_BYTES_LIMIT = 256 * 1024
FIRST_ROUND = 1

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretReference:
    """A Secret in the namespace of the Classifier."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A source of examples: exactly one of `url` and `upload`."""

    url: str | None = None
    """URL of a zip, a tar or a list of addresses; or, ending in `/`, of a folder (`file`) or of a prefix (`s3`, `gs`, `az`)."""
    secret_ref: SecretReference | None = None
    """The Secret with the credentials for `url`. Not part of the revision."""
    upload: str | None = None
    """SHA-256 (hex) of a zip that was uploaded through the REST API for this Classifier."""
    sha256: str | None = None
    """A pin: the required SHA-256 of the bytes at `url`, verified before they are used."""
    round: int = FIRST_ROUND
    """If an image is in two classes, the later round wins, then the later class."""
    customer: str | None = None
    """Key of the customer whose images these are, see `names.customer_key`. Not part of the revision."""
    erased: bool = False
    """The images were erased, and the next training skips the source. Not part of the revision."""

    @property
    def pinned_digest(self) -> str | None:
        """The digest of the bytes if it is known before they are read, otherwise None."""
        return self.upload or self.sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleClass:
    """One class, with the sources of its examples."""

    name: str
    examples: tuple[Source, ...]


class Strategy(StrEnum):
    """What a training changes."""

    LINEAR_PROBE = "LinearProbe"
    """One head per class; the backbone stays as it is."""
    FINE_TUNE = "FineTune"
    """The heads and the whole network. The artifact then contains its own network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """Which class one image belongs to, whatever its sources say."""

    image: str
    """SHA-256 (hex) of the bytes of the image."""
    class_name: str = field(metadata=named("class"))
    """The name of a class; empty: the image is not used."""


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """How the classes are learned. The last three fields are for `FineTune`; None: the trainer's default."""

    backbone: str = "Auto"
    strategy: Strategy = Strategy.LINEAR_PROBE
    seed: int = 0
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the accuracy is measured."""

    holdout_fraction: float = 0.2
    classes: tuple[ExampleClass, ...] = ()
    """The Classifier's own test set: for some or all of its classes, images that are never trained on. Empty: every example is
    judged by cross-validation."""


class Approval(StrEnum):
    """Whether a revision that meets its gates is served at once."""

    AUTOMATIC = "Automatic"
    """It is."""
    MANUAL = "Manual"
    """It waits until `spec.approvedRevision` names it."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What a new revision must meet before it serves. Not part of the revision. Decimals are texts such as "0.05"."""

    min_accuracy: str | None = None
    """The least accuracy, from 0 to 1."""
    max_accuracy_drop: str | None = None
    """By how much the accuracy may be lower than that of the served revision on the same images."""
    approval: Approval = Approval.AUTOMATIC


class DataRetention(StrEnum):
    """What happens to uploaded examples after the training."""

    KEEP = "Keep"
    """They are kept for the next retraining."""
    DROP_AFTER_TRAINING = "DropAfterTraining"
    """They are deleted when the training ends, successful or not. There is no retraining."""


class Activation(StrEnum):
    """How the outputs of a pretrained network become scores from 0 to 1."""

    SOFTMAX = "Softmax"
    """One class per image: the scores add up to 1."""
    SIGMOID = "Sigmoid"
    """Independent classes."""
    IDENTITY = "Identity"
    """The network's outputs are scores already."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of a pretrained classifier."""

    url: str
    """An `http`, `https` or `file` URL."""
    sha256: str | None = None
    """The required digest of its bytes."""


class PackagedWeightsName(StrEnum):
    """Weights that come with Ocelli, in separate packages."""

    EFFICIENTNET_LITE0 = "EfficientNetLite0"
    """The 1,000 classes of ImageNet-1k."""
    OPEN_NSFW = "OpenNSFW"
    """The classes `explicit` and `not explicit`."""


PACKAGED_WEIGHTS_SHA256: Mapping[PackagedWeightsName, str] = {
    PackagedWeightsName.EFFICIENTNET_LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    PackagedWeightsName.OPEN_NSFW: "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
}
"""SHA-256 (hex) of each file of weights. It is part of the revision, so that new weights of the same name make a new
revision."""


class PackagedLabels(StrEnum):
    """Labels that come with Ocelli, each with a hierarchy and translations."""

    IMAGENET = "ImageNet"
    """The 1,000 classes of ImageNet-1k, in the usual order."""
    IMAGENET_FOOD = "ImageNetFood"
    """The foods among them; all other outputs are the class `non-food`."""


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """A network and its weights: `packaged` alone, or `torchvision`, `url` or both."""

    packaged: PackagedWeightsName | None = None
    """Weights that come with Ocelli. The name determines network, preprocessing and labels; nothing is downloaded."""
    torchvision: str | None = None
    """Torchvision's name of published weights, such as `ResNet50_Weights.IMAGENET1K_V2`. It determines network and labels."""
    url: str | None = None
    """URL of a `.safetensors`, `.pth`, `.pt` or `.onnx` file, or of a folder (`file` only, ending in `/`) with one such
    file."""
    sha256: str | None = None
    """The required digest of the file at `url`."""
    architecture: str | None = None
    """Torchvision's name of the network that the weights belong to. Not needed with `torchvision` or for `.onnx`."""


@dataclass(frozen=True, kw_only=True)
class PretrainedLabels:
    """Names of the outputs: exactly one of `packaged` and `url`."""

    packaged: PackagedLabels | None = None
    """Labels that come with Ocelli, with hierarchy and translations."""
    url: str | None = None
    """URL of a text file whose line i names output i. Outputs with the same name are one class."""
    sha256: str | None = None
    """The required digest of the file at `url`."""

    @property
    def file(self) -> DataFile | None:
        """The file at `url`; None for packaged labels."""
        return None if self.url is None else DataFile(url=self.url, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class PretrainedImages:
    """Preprocessing of a pretrained network. Fields that are None follow torchvision's published weights."""

    height: int | None = None
    width: int | None = None
    short_side: int | None = None
    """Scale the shorter side to this number of pixels and crop the center. None with `height`: scale the whole image without
    keeping its aspect ratio."""
    mean: tuple[float, ...] | None = None
    """Of red, green and blue, from 0 to 1."""
    standard_deviation: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A classifier that is not trained here: an already trained network with the names of its outputs."""

    weights: PretrainedWeights
    labels: PretrainedLabels | None = None
    """None: the labels of the packaged weights, torchvision's, or `labels.txt` of the folder."""
    hierarchy: DataFile | None = None
    """Text file with paths such as `/animal/bird/owl/barn owl`, each ending in a label."""
    translations: DataFile | None = None
    """JSON file such as `{"de": {"barn owl": "Schleiereule"}}`."""
    activation: Activation = Activation.SOFTMAX
    otherwise: str | None = None
    """Name of a class to return if no other class reaches 0.5."""
    images: PretrainedImages = PretrainedImages()


class Accelerator(StrEnum):
    """Whether a GPU computes."""

    AUTO = "Auto"
    """A GPU if a node offers one, otherwise none."""
    GPU = "GPU"
    """One GPU; wait until one is free."""
    CPU = "CPU"
    """No GPU."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where and with which resources to train. A change never retrains, but it retries a failed training."""

    accelerator: Accelerator = Accelerator.AUTO
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    queue_name: str | None = None
    """LocalQueue of Kueue that the training Job waits in; None: it starts without Kueue."""
    workers: int = 1
    """How many Pods train together; more than one only for the strategy `FineTune`."""
    backoff_limit: int = 2
    active_deadline_seconds: int = 3600


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """The HorizontalPodAutoscaler of a Classifier."""

    min_replicas: int = 1
    max_replicas: int = 3
    target_cpu_utilization: int = 80


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How to serve. A change never retrains."""

    replicas: int = 1
    autoscaling: Autoscaling | None = None
    accelerator: Accelerator = Accelerator.CPU
    """Not `Auto`: a server keeps its GPU until it ends, so that none would be left for trainings."""
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """The desired state."""

    classes: tuple[ExampleClass, ...] = ()
    """Empty only for a pretrained classifier."""
    pretrained: Pretrained | None = None
    display_name: str | None = None
    negative_examples: tuple[Source, ...] = ()
    corrections: tuple[Correction, ...] = ()
    """For single images of any source, test images included. At most one for each image."""
    model: ModelRecipe = ModelRecipe()
    evaluation: Evaluation = Evaluation()
    training: Training = Training()
    serving: Serving = Serving()
    promotion: Promotion = Promotion()
    data_retention: DataRetention = DataRetention.KEEP
    retrain_nonce: int = 0
    poll_interval: str | None = None
    """How often to look whether the bytes behind unpinned addresses have changed, such as `15m`. None: never."""
    pinned_revision: str | None = None
    approved_revision: str | None = None
    """A revision that serves although it does not meet its gates, or waits for approval."""
    suspend: bool = False
    """Check the data of a revision without an artifact, and do not train it. What is trained serves on."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources: those of the classes in their order, the negative examples, then the test set."""
        positive = tuple(source for example_class in self.classes for source in example_class.examples)
        test = tuple(source for example_class in self.evaluation.classes for source in example_class.examples)
        return positive + self.negative_examples + test


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """One Classifier object."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created_at: str
    deleted: bool
    """It is being deleted (`metadata.deletionTimestamp` is set)."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: ClassifierSpec
    status: ClassifierStatus
    field_managers: tuple[str, ...] = ()
    """The programs that wrote its fields, from `metadata.managedFields`."""

    @property
    def classifier_id(self) -> str | None:
        """The v3 id from status or the label. None until the operator has generated one."""
        return self.status.classifier_id or self.labels.get(CLASSIFIER_ID_LABEL)

    @property
    def display_name(self) -> str:
        """The name that v3 shows."""
        return self.spec.display_name or self.name

    @property
    def age_order(self) -> str:
        """Sorts Classifiers by age, the oldest first."""
        return self.created_at + self.annotations.get(CREATED_AT_ANNOTATION, "")

    @property
    def rest_may_write(self) -> bool:
        """Whether the REST API may retrain or delete it: the gateway created it, or its author allows it."""
        return (
            self.labels.get(CREATED_BY_LABEL) == CREATED_BY_GATEWAY
            or self.annotations.get(REST_WRITES_ANNOTATION) == REST_WRITES_ALLOWED
        )

    def __str__(self) -> str:
        return f"Classifier {self.namespace}/{self.name}"


def parse_classifier(manifest: Mapping[str, Any]) -> Classifier:
    """Type an object as the API server returns it (validated by the CRD).

    Raises:
        DocumentError: spec or status does not match the CRD.
    """
    metadata = manifest["metadata"]
    return Classifier(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        created_at=metadata.get("creationTimestamp") or "",
        deleted=bool(metadata.get("deletionTimestamp")),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        spec=parse_spec(manifest["spec"]),
        status=parse_status(manifest.get("status") or {}),
        # Few programs write many Classifiers.
        field_managers=tuple(sys.intern(str(entry.get("manager"))) for entry in metadata.get("managedFields") or ()),
    )


def parse_spec(spec: Mapping[str, Any]) -> ClassifierSpec:
    """Type `spec`; fields that are left out get their defaults.

    Raises:
        DocumentError: it does not match the CRD.
    """
    if "classes" not in spec and "pretrained" not in spec:
        raise DocumentError("classes", "is missing, and so is pretrained")
    return parse_fields(ClassifierSpec, spec)
