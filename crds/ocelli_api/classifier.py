"""The Classifier resource as typed values: parsing what the API server holds into frozen dataclasses.

Owns the field names, defaults and bounds of `crds/classifier.yaml` (a contract test holds the two together). It must not know
who reads or writes the resource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from ocelli_api.conditions import Condition, ConditionStatus, ConditionType

GROUP = "ocelli.dev"
VERSION = "v1alpha1"
KIND = "Classifier"
PLURAL = "classifiers"
API_VERSION = f"{GROUP}/{VERSION}"

CLASSIFIER_ID_LABEL = f"{GROUP}/classifier-id"
"""Label of a Classifier (and of everything made for it): its v3 `classifier_id`."""
CREATED_BY_LABEL = f"{GROUP}/created-by"
"""Label of a Classifier: `gateway` where REST made it."""
CREATED_BY_GATEWAY = "gateway"
CREATED_AT_ANNOTATION = f"{GROUP}/created-at"
"""Annotation of a Classifier that REST made: the time of that, because `creationTimestamp` has no parts of a second."""
REST_WRITES_ANNOTATION = f"{GROUP}/rest-writes"
"""Annotation by which the author of a manifest allows REST to retrain and delete the object."""
REST_WRITES_ALLOWED = "Allowed"
CUSTOMER_LABEL = f"{GROUP}/customer"
"""Label of a Classifier that REST made for a customer: the key of the customer's id, see `names.customer_key`."""

NAME_LIMIT = 48
CLASS_NAME_LIMIT = 128
DISPLAY_NAME_LIMIT = 128
CLASSES_LIMIT = 500
SOURCES_LIMIT = 2000
CLASS_SOURCES_LIMIT = 1000
"""Of one class, or of the negatives: more would exceed the API server's cost budget for the rules on each source."""
SPEC_BYTES_LIMIT = 256 * 1024
HISTORY_LIMIT = 10

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where examples come from: exactly one of `url` and `upload`."""

    url: str | None = None
    """An `http`, `https` or `file` address of a zip, or of a folder (`file` only, ending in `/`)."""
    upload: str | None = None
    """SHA-256 (hex) of a zip that came by REST and lies among the uploads of this classifier."""
    sha256: str | None = None
    """The digest that the bytes at `url` must have: a pin, verified before anything is read from them."""
    round: int = 1
    """An image in two classes belongs to the later round, then to the later class."""
    customer: str | None = None
    """Key of the customer that the images were sent for, see `names.customer_key`; not part of what is learned."""
    erased: bool = False
    """The bytes are gone for good and the next training passes the source over; not part of what is learned."""

    @property
    def pinned_digest(self) -> str | None:
        """The digest of the bytes where it is known before reading them, else None."""
        return self.upload or self.sha256


@dataclass(frozen=True, kw_only=True)
class ExampleClass:
    """One class to learn, with the sources of its examples."""

    name: str
    examples: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """What is learned."""

    backbone: str = "Auto"
    strategy: str = "LinearProbe"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the result is judged."""

    holdout_fraction: float = 0.2


class DataRetention(StrEnum):
    """What becomes of examples that came by REST once they were learned from."""

    KEEP = "Keep"
    """They are kept for the next retraining."""
    DROP_AFTER_TRAINING = "DropAfterTraining"
    """They go when their training has ended, well or not. There is no retraining."""


class Activation(StrEnum):
    """What turns the outputs of a pretrained network into scores from 0 to 1."""

    SOFTMAX = "Softmax"
    """One class an image: the scores add up to 1."""
    SIGMOID = "Sigmoid"
    """Each class for itself."""
    IDENTITY = "Identity"
    """The network's outputs are scores already."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file that a pretrained classifier is made from."""

    url: str
    """An `http`, `https` or `file` address."""
    sha256: str | None = None
    """The digest that its bytes must have."""


class PackagedWeightsName(StrEnum):
    """Weights that come with Ocelli, in packages of their own."""

    EFFICIENTNET_LITE0 = "EfficientNetLite0"
    """Tells the 1,000 classes of ImageNet-1k apart."""
    OPEN_NSFW = "OpenNSFW"
    """Tells `explicit` from `not explicit`."""


PACKAGED_WEIGHTS_SHA256: Mapping[PackagedWeightsName, str] = {
    PackagedWeightsName.EFFICIENTNET_LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    PackagedWeightsName.OPEN_NSFW: "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
}
"""SHA-256 (hex) of each file of weights; part of the revision, so that other weights under the same name are another one."""


class PackagedLabels(StrEnum):
    """Names of outputs that come with Ocelli, each with a hierarchy and translations."""

    IMAGENET = "ImageNet"
    """The 1,000 classes of ImageNet-1k, in the usual order."""
    IMAGENET_FOOD = "ImageNetFood"
    """The foods among them; all other outputs together are the class `non-food`."""


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Which network, with which weights: `packaged` alone, or `torchvision`, `url` or both."""

    packaged: PackagedWeightsName | None = None
    """Weights that come with Ocelli: network, images and labels follow from the name, and nothing is fetched."""
    torchvision: str | None = None
    """Torchvision's name of published weights, such as `ResNet50_Weights.IMAGENET1K_V2`: network and labels follow from it."""
    url: str | None = None
    """Of a file (`.safetensors`, `.pth`, `.pt`, `.onnx`), or of a folder (`file` only, ending in `/`) with one such file."""
    sha256: str | None = None
    """The digest that the file at `url` must have."""
    architecture: str | None = None
    """Torchvision's name of the network that a file of weights belongs to; not needed beside `torchvision` or for `.onnx`."""


@dataclass(frozen=True, kw_only=True)
class PretrainedLabels:
    """What the outputs are called: exactly one of `packaged` and `url`."""

    packaged: PackagedLabels | None = None
    """Labels that come with Ocelli, with their hierarchy and translations."""
    url: str | None = None
    """Of a text file, line i names output i; outputs of one name are one class."""
    sha256: str | None = None
    """The digest that the file at `url` must have."""

    @property
    def file(self) -> DataFile | None:
        """The file at `url`; None for packaged labels."""
        return None if self.url is None else DataFile(url=self.url, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class PretrainedImages:
    """How images become the input of a pretrained network; what is left out is as torchvision's published weights want it."""

    height: int | None = None
    width: int | None = None
    short_side: int | None = None
    """Scale the shorter side to so many pixels and cut out the centre; left out beside `height`: height and width are scaled
    each on its own."""
    mean: tuple[float, ...] | None = None
    """Of red, green and blue, on a scale of 0 to 1."""
    standard_deviation: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A classifier that is not learned here: weights somebody published, with the names of their outputs."""

    weights: PretrainedWeights
    labels: PretrainedLabels | None = None
    """None: those of the packaged weights, torchvision's, or `labels.txt` of the folder."""
    hierarchy: DataFile | None = None
    """Text, paths such as `/animal/bird/owl/barn owl`, each ending in a label."""
    translations: DataFile | None = None
    """JSON, `{"de": {"barn owl": "Schleiereule"}}`."""
    activation: Activation = Activation.SOFTMAX
    otherwise: str | None = None
    """Name of a class that is answered where no other reaches 0.5."""
    images: PretrainedImages = PretrainedImages()


class Accelerator(StrEnum):
    """What computes, beside the processor."""

    AUTO = "Auto"
    """A GPU where some node offers one, else none."""
    GPU = "GPU"
    """One GPU; without one it waits."""
    CPU = "CPU"
    """None."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where and with what it is learned: changes here never retrain, but do try a failed training again."""

    accelerator: Accelerator = Accelerator.AUTO
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    backoff_limit: int = 2
    active_deadline_seconds: int = 3600


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """The autoscaler of a classifier's Deployment."""

    min_replicas: int = 1
    max_replicas: int = 3
    target_cpu_utilization: int = 80


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How it is served: changes here never retrain."""

    replicas: int = 1
    autoscaling: Autoscaling | None = None
    accelerator: Accelerator = Accelerator.CPU
    """Not `Auto`: a server keeps its GPU for as long as it lives, and trainings would find none left."""
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """What the user asks for."""

    classes: tuple[ExampleClass, ...] = ()
    """Empty for a pretrained classifier only."""
    pretrained: Pretrained | None = None
    display_name: str | None = None
    negative_examples: tuple[Source, ...] = ()
    model: ModelRecipe = ModelRecipe()
    evaluation: Evaluation = Evaluation()
    training: Training = Training()
    serving: Serving = Serving()
    data_retention: DataRetention = DataRetention.KEEP
    retrain_nonce: int = 0
    pinned_revision: str | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source, classes first in their order, then the negatives."""
        positive = tuple(source for example_class in self.classes for source in example_class.examples)
        return positive + self.negative_examples


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is."""

    percent: int
    stage: str
    estimated_completion: str | None = None


@dataclass(frozen=True, kw_only=True)
class AccuracyInterval:
    """The 95 % confidence interval of an accuracy. Both ends are decimals between 0 and 1 such as "0.871"."""

    lower: str
    upper: str

    @classmethod
    def parse(cls, item: Mapping[str, Any] | None) -> AccuracyInterval | None:
        """Type it as the API server returns it; None where there is none."""
        return None if item is None else cls(lower=item["lower"], upper=item["upper"])

    def to_json(self) -> dict[str, Any]:
        """The object as `status` holds it."""
        return {"lower": self.lower, "upper": self.upper}


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """A revision that was learned. Its figures are explained in `ClassifierStatus`."""

    revision: str
    trained_at: str
    accuracy: str | None = None
    accuracy_interval: AccuracyInterval | None = None
    judged_images: int | None = None
    artifact_digest: str | None = None
    backbone: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierStatus:
    """What the operator saw and did. The empty one (`observed_generation` -1) belongs to an object no operator has seen."""

    observed_generation: int = -1
    classifier_id: str | None = None
    conditions: tuple[Condition, ...] = ()
    served_revision: str | None = None
    """The revision that answers predictions. One write of this field is the switch from one revision to the next."""
    settled_revision: str | None = None
    """The last current revision that became fully Ready."""
    training_revision: str | None = None
    """The revision being learned; absent when nothing is."""
    attempt: int = 0
    """Counts the training Jobs of this Classifier, so that each has a name of its own."""
    observed_retrain_nonce: int = 0
    """The `spec.retrainNonce` whose work has ended, well (settled) or not (stalled)."""
    failed_revision: str | None = None
    """The current revision when `Stalled` was set: the failure is about it and no other."""
    failed_training_hash: str | None = None
    """Hash of `spec.training` under which `failedRevision` failed: another one is a reason to try again."""
    failed_rollout_hash: str | None = None
    """Hash of the Deployment whose rollout failed: another one (`spec.serving`, another image) is a reason to try again."""
    history: tuple[HistoryEntry, ...] = ()
    endpoint: str | None = None
    accuracy: str | None = None
    """Accuracy of the served revision, a decimal between 0 and 1 such as "0.934"; balanced over the classes where there is an
    interval, else (learned by an earlier release) the share of all judged images that were recognised."""
    accuracy_interval: AccuracyInterval | None = None
    judged_images: int | None = None
    """How many images the accuracy was measured on, negatives included."""
    backbone: str | None = None
    """The backbone as resolved, with the reason where `Auto` was asked for."""
    progress: Progress | None = None
    trained_at: str | None = None
    retrained_at: str | None = None

    def condition(self, condition_type: ConditionType) -> Condition | None:
        """The condition of that type, or None where it is absent."""
        return next((condition for condition in self.conditions if condition.type == condition_type), None)

    def is_true(self, condition_type: ConditionType) -> bool:
        """Whether the condition is present with status True."""
        condition = self.condition(condition_type)
        return condition is not None and condition.status is ConditionStatus.TRUE


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
    """A deletion is under way (`metadata.deletionTimestamp` is set)."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: ClassifierSpec
    status: ClassifierStatus

    @property
    def classifier_id(self) -> str | None:
        """The v3 id: what status says, else the label; None until one was drawn."""
        return self.status.classifier_id or self.labels.get(CLASSIFIER_ID_LABEL)

    @property
    def display_name(self) -> str:
        """The name that v3 shows."""
        return self.spec.display_name or self.name

    @property
    def age_order(self) -> str:
        """What is smaller is older."""
        return self.created_at + self.annotations.get(CREATED_AT_ANNOTATION, "")

    @property
    def rest_may_write(self) -> bool:
        """Whether REST may retrain or delete it: the gateway made it, or its author allows that."""
        return (
            self.labels.get(CREATED_BY_LABEL) == CREATED_BY_GATEWAY
            or self.annotations.get(REST_WRITES_ANNOTATION) == REST_WRITES_ALLOWED
        )

    def __str__(self) -> str:
        return f"Classifier {self.namespace}/{self.name}"


def parse_classifier(manifest: Mapping[str, Any]) -> Classifier:
    """Type an object as the API server returns it (validated by the CRD).

    Raises:
        KeyError, TypeError, ValueError: the object does not fit the CRD.
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
    )


def parse_spec(spec: Mapping[str, Any]) -> ClassifierSpec:
    """Type `spec`; a field that is left out gets its default.

    Raises:
        KeyError, TypeError, ValueError: it does not fit the CRD.
    """
    if "classes" not in spec and "pretrained" not in spec:
        raise KeyError("classes")
    model = spec.get("model") or {}
    evaluation = spec.get("evaluation") or {}
    return ClassifierSpec(
        display_name=spec.get("displayName"),
        classes=tuple(
            ExampleClass(name=item["name"], examples=_parse_sources(item.get("examples"))) for item in spec.get("classes") or ()
        ),
        pretrained=_parse_pretrained(spec.get("pretrained")),
        negative_examples=_parse_sources(spec.get("negativeExamples")),
        model=ModelRecipe(
            backbone=model.get("backbone", ModelRecipe.backbone),
            strategy=model.get("strategy", ModelRecipe.strategy),
            seed=model.get("seed", ModelRecipe.seed),
        ),
        evaluation=Evaluation(
            holdout_fraction=float(evaluation.get("holdoutFraction", Evaluation.holdout_fraction)),
        ),
        training=_parse_training(spec.get("training") or {}),
        serving=_parse_serving(spec.get("serving") or {}),
        data_retention=DataRetention(spec.get("dataRetention", ClassifierSpec.data_retention)),
        retrain_nonce=spec.get("retrainNonce", 0),
        pinned_revision=spec.get("pinnedRevision"),
    )


def parse_status(status: Mapping[str, Any]) -> ClassifierStatus:
    """Type `status`; an empty one is that of an object no operator has seen."""
    progress = status.get("progress")
    return ClassifierStatus(
        observed_generation=status.get("observedGeneration", -1),
        classifier_id=status.get("classifierID"),
        conditions=tuple(Condition.parse(item) for item in status.get("conditions") or ()),
        served_revision=status.get("servedRevision"),
        settled_revision=status.get("settledRevision"),
        training_revision=status.get("trainingRevision"),
        attempt=status.get("attempt", 0),
        observed_retrain_nonce=status.get("observedRetrainNonce", 0),
        failed_revision=status.get("failedRevision"),
        failed_training_hash=status.get("failedTrainingHash"),
        failed_rollout_hash=status.get("failedRolloutHash"),
        history=tuple(
            HistoryEntry(
                revision=item["revision"],
                trained_at=item["trainedAt"],
                accuracy=item.get("accuracy"),
                accuracy_interval=AccuracyInterval.parse(item.get("accuracyInterval")),
                judged_images=item.get("judgedImages"),
                artifact_digest=item.get("artifactDigest"),
                backbone=item.get("backbone"),
            )
            for item in status.get("history") or ()
        ),
        endpoint=status.get("endpoint"),
        accuracy=status.get("accuracy"),
        accuracy_interval=AccuracyInterval.parse(status.get("accuracyInterval")),
        judged_images=status.get("judgedImages"),
        backbone=status.get("backbone"),
        progress=None
        if progress is None
        else Progress(
            percent=progress["percent"],
            stage=progress["stage"],
            estimated_completion=progress.get("estimatedCompletion"),
        ),
        trained_at=status.get("trainedAt"),
        retrained_at=status.get("retrainedAt"),
    )


def _parse_sources(items: Sequence[Mapping[str, Any]] | None) -> tuple[Source, ...]:
    return tuple(
        Source(
            url=item.get("url"),
            upload=item.get("upload"),
            sha256=item.get("sha256"),
            round=item.get("round", Source.round),
            customer=item.get("customer"),
            erased=item.get("erased", Source.erased),
        )
        for item in items or ()
    )


def _parse_pretrained(pretrained: Mapping[str, Any] | None) -> Pretrained | None:
    if pretrained is None:
        return None
    weights, images = pretrained["weights"], pretrained.get("images") or {}
    mean, deviation = images.get("mean"), images.get("standardDeviation")
    return Pretrained(
        weights=PretrainedWeights(
            packaged=None if weights.get("packaged") is None else PackagedWeightsName(weights["packaged"]),
            torchvision=weights.get("torchvision"),
            url=weights.get("url"),
            sha256=weights.get("sha256"),
            architecture=weights.get("architecture"),
        ),
        labels=_parse_labels(pretrained.get("labels")),
        hierarchy=_parse_data_file(pretrained.get("hierarchy")),
        translations=_parse_data_file(pretrained.get("translations")),
        activation=Activation(pretrained.get("activation", Pretrained.activation)),
        otherwise=pretrained.get("otherwise"),
        images=PretrainedImages(
            height=images.get("height"),
            width=images.get("width"),
            short_side=images.get("shortSide"),
            mean=None if mean is None else tuple(float(value) for value in mean),
            standard_deviation=None if deviation is None else tuple(float(value) for value in deviation),
        ),
    )


def _parse_labels(item: Mapping[str, Any] | None) -> PretrainedLabels | None:
    if item is None:
        return None
    packaged = item.get("packaged")
    return PretrainedLabels(
        packaged=None if packaged is None else PackagedLabels(packaged), url=item.get("url"), sha256=item.get("sha256")
    )


def _parse_data_file(item: Mapping[str, Any] | None) -> DataFile | None:
    return None if item is None else DataFile(url=item["url"], sha256=item.get("sha256"))


def _parse_training(training: Mapping[str, Any]) -> Training:
    return Training(
        accelerator=Accelerator(training.get("accelerator", Training.accelerator)),
        resources=training.get("resources") or {},
        node_selector=training.get("nodeSelector") or {},
        tolerations=tuple(training.get("tolerations") or ()),
        runtime_class_name=training.get("runtimeClassName"),
        priority_class_name=training.get("priorityClassName"),
        backoff_limit=training.get("backoffLimit", Training.backoff_limit),
        active_deadline_seconds=training.get("activeDeadlineSeconds", Training.active_deadline_seconds),
    )


def _parse_serving(serving: Mapping[str, Any]) -> Serving:
    autoscaling = serving.get("autoscaling")
    return Serving(
        replicas=serving.get("replicas", Serving.replicas),
        autoscaling=None
        if autoscaling is None
        else Autoscaling(
            min_replicas=autoscaling.get("minReplicas", Autoscaling.min_replicas),
            max_replicas=autoscaling.get("maxReplicas", Autoscaling.max_replicas),
            target_cpu_utilization=autoscaling.get("targetCPUUtilization", Autoscaling.target_cpu_utilization),
        ),
        accelerator=Accelerator(serving.get("accelerator", Serving.accelerator)),
        resources=serving.get("resources") or {},
        node_selector=serving.get("nodeSelector") or {},
        tolerations=tuple(serving.get("tolerations") or ()),
        runtime_class_name=serving.get("runtimeClassName"),
    )
