"""What create and retrain write into a Classifier: its definition with the example sets added, as an object or a patch.

Pure functions: it must not know cluster or store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ocelli_api.classifier import (
    API_VERSION,
    CLASS_SOURCES_LIMIT,
    CLASSES_LIMIT,
    CLASSIFIER_ID_LABEL,
    CREATED_AT_ANNOTATION,
    CREATED_BY_GATEWAY,
    CREATED_BY_LABEL,
    CUSTOMER_LABEL,
    KIND,
    SOURCES_LIMIT,
    SPEC_BYTES_LIMIT,
    Classifier,
    ClassifierSpec,
    DataRetention,
    ExampleClass,
    Manifest,
    Source,
)
from ocelli_api.names import build_object_name, customer_key
from ocelli_api.revision import definition
from ocelli_gateway.example_sets import ExampleSet, NamedUpload
from ocelli_gateway.refusals import LimitExceededError, ParameterError
from ocelli_storage.archives import shown_name

_SHOWN_PARTS = 5


@dataclass(frozen=True, kw_only=True)
class ExampleTerms:
    """The terms under which examples were sent."""

    opt_out: bool = False
    """They are used for one training and then deleted."""
    customer_id: str | None = None
    """The customer whose data they are."""
    suspend: bool | None = None
    """They are only checked. None: a new classifier is trained, and another one stays as it is."""

    @property
    def customer(self) -> str | None:
        """The key of the customer."""
        return None if self.customer_id is None else customer_key(self.customer_id)

    @property
    def retention(self) -> DataRetention:
        """What becomes of them after the training."""
        return DataRetention.DROP_AFTER_TRAINING if self.opt_out else DataRetention.KEEP


def check_create(sets: Sequence[ExampleSet], ignored: Sequence[str] = ()) -> None:
    """Refuse too few example sets for a first training; `ignored` are names of unknown parts.

    Raises:
        ParameterError: fewer than two example sets, or none of them positive.
    """
    positive = sum(item.class_name is not None for item in sets)
    if positive == 0 or len(sets) < 2:
        raise ParameterError(
            "A classifier needs at least two example sets: two parts CLASS_positive_examples, "
            f"or one and the part negative_examples; this request has {_list_names([item.file.part_name for item in sets])}."
            + (f" Unknown parts: {_list_names(ignored)}; names of example sets end in _examples, as above." if ignored else "")
        )


def _list_names(part_names: Sequence[str]) -> str:
    shown = [shown_name(name) for name in part_names[:_SHOWN_PARTS]]
    more = len(part_names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")


def build_classifier(namespace: str, classifier_id: str, spec: ClassifierSpec, *, customer: str | None = None) -> Manifest:
    """The object of a new classifier; `customer` is the key of its customer."""
    labels = {CLASSIFIER_ID_LABEL: classifier_id, CREATED_BY_LABEL: CREATED_BY_GATEWAY}
    if customer is not None:
        labels[CUSTOMER_LABEL] = customer
    retention = {} if spec.data_retention is DataRetention.KEEP else {"dataRetention": str(spec.data_retention)}
    suspend = {"suspend": True} if spec.suspend else {}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "namespace": namespace,
            "name": build_object_name(classifier_id),
            "labels": labels,
            "annotations": {CREATED_AT_ANNOTATION: datetime.now(UTC).isoformat(timespec="microseconds")},
        },
        "spec": {"displayName": spec.display_name, **definition(spec), **retention, **suspend},
    }


def build_retrain_patch(classifier: Classifier, spec: ClassifierSpec, terms: ExampleTerms) -> Manifest:
    """The merge patch that retrains a classifier with the definition in `spec`."""
    learned = definition(spec)
    retention = {"dataRetention": str(DataRetention.DROP_AFTER_TRAINING)} if terms.opt_out else {}
    return {
        "spec": {
            "classes": learned["classes"],
            "negativeExamples": learned.get("negativeExamples"),
            "corrections": learned.get("corrections"),
            "model": {
                "backbone": spec.model.backbone,
                "strategy": str(spec.model.strategy),
                "seed": spec.model.seed,
                # A merge patch removes what is None.
                "epochs": spec.model.epochs,
                "learningRate": spec.model.learning_rate,
                "batchSize": spec.model.batch_size,
            },
            "evaluation": {
                "holdoutFraction": spec.evaluation.holdout_fraction,
                "classes": learned.get("evaluation", {}).get("classes"),
            },
            "retrainNonce": classifier.spec.retrain_nonce + 1,
            # The definition extends the served one; a pin would keep the new revision from being served.
            "pinnedRevision": None,
            **retention,
            **({} if terms.suspend is None else {"suspend": terms.suspend}),
        }
    }


def build_suspension_patch(*, suspend: bool) -> Manifest:
    """The merge patch that suspends the trainings of a classifier, or resumes them."""
    return {"spec": {"suspend": suspend}}


def count_bytes(sets: Sequence[ExampleSet]) -> int:
    """The bytes to store: the same zip twice is stored once."""
    return sum({item.file.sha256: item.file.size_bytes for item in sets}.values())


def begin_definition(name: str, uploads: Iterable[NamedUpload], terms: ExampleTerms) -> ClassifierSpec:
    """The definition of a new classifier with these uploads."""
    empty = ClassifierSpec(display_name=name, data_retention=terms.retention, suspend=terms.suspend is True)
    return grow_definition(empty, uploads, round_number=1, customer=terms.customer)


def grow_definition(
    base: ClassifierSpec, uploads: Iterable[NamedUpload], *, round_number: int, customer: str | None = None
) -> ClassifierSpec:
    """The definition with the uploads added: to existing classes, as new classes after them, or to the negatives."""
    examples: dict[str, tuple[Source, ...]] = {item.name: item.examples for item in base.classes}
    negatives = base.negative_examples
    for upload in uploads:
        source = Source(upload=upload.sha256, round=round_number, customer=customer)
        if upload.class_name is None:
            negatives = (*negatives, source)
        else:
            examples[upload.class_name] = (*examples.get(upload.class_name, ()), source)
    classes = tuple(ExampleClass(name=name, examples=sources) for name, sources in examples.items())
    return replace(base, classes=classes, negative_examples=negatives)


def check_size(spec: ClassifierSpec) -> None:
    if len(spec.classes) > CLASSES_LIMIT:
        raise LimitExceededError(f"The classifier would have {len(spec.classes)} classes; at most {CLASSES_LIMIT} are allowed.")
    # Without the test set, which has a limit of its own.
    learned_from = len(spec.negative_examples) + sum(len(item.examples) for item in spec.classes)
    if learned_from > SOURCES_LIMIT:
        raise LimitExceededError(
            f"The classifier would have {learned_from} example sets in all; at most {SOURCES_LIMIT} are allowed."
        )
    largest = max([len(spec.negative_examples), *(len(item.examples) for item in spec.classes)])
    if largest > CLASS_SOURCES_LIMIT:
        raise LimitExceededError(f"One class would have {largest} example sets; at most {CLASS_SOURCES_LIMIT} are allowed.")
    size_bytes = len(json.dumps(definition(spec), ensure_ascii=False).encode())
    if size_bytes > SPEC_BYTES_LIMIT:
        raise LimitExceededError(
            f"The description of the classes and example sets has {size_bytes} bytes; at most {SPEC_BYTES_LIMIT} are allowed. "
            "Use fewer classes or shorter names."
        )
