"""Which changes of a Classifier the REST API makes. It must not know how they are made."""

from __future__ import annotations

from ocelli_api.classifier import REST_WRITES_ALLOWED, REST_WRITES_ANNOTATION, Classifier, DataRetention
from ocelli_api.lifecycle import Lifecycle, find_awaited_approval, lifecycle
from ocelli_gateway.refusals import ClassifierNotReadyError, ConflictError, ParameterError


def check_writable(classifier: Classifier) -> None:
    """Raises ConflictError where REST may not change or delete it."""
    if not classifier.rest_may_write:
        raise ConflictError(
            f"{classifier} was created from a manifest and does not allow changes by REST; change the manifest, or allow them: "
            f"kubectl -n {classifier.namespace} annotate clf {classifier.name} {REST_WRITES_ANNOTATION}={REST_WRITES_ALLOWED}"
        )


def check_retrainable(classifier: Classifier) -> None:
    """Refuse a retraining that cannot succeed.

    Raises:
        ConflictError, ParameterError: REST may not change it, or it cannot be retrained.
        ClassifierNotReadyError: it is in its first training.
    """
    check_writable(classifier)
    check_learns(classifier)
    check_first_training_ended(classifier)


def check_learns(classifier: Classifier) -> None:
    """Raises ParameterError where there are no images that it could be trained with again."""
    if classifier.spec.pretrained is not None:
        raise ParameterError(
            f"The classifier {classifier.classifier_id} comes from published weights and cannot be retrained; create another."
        )
    if classifier.spec.data_retention is DataRetention.DROP_AFTER_TRAINING:
        raise ParameterError(
            f"The classifier {classifier.classifier_id} was created with the learning opt-out: its images are not kept, and it "
            "cannot be retrained. Create another."
        )


def waits_for_people(classifier: Classifier) -> bool:
    """Whether its training is suspended or awaits approval. Nothing is trained then, so more images can come."""
    return classifier.spec.suspend or find_awaited_approval(classifier) is not None


def check_first_training_ended(classifier: Classifier) -> None:
    """Raises ClassifierNotReadyError while it has not."""
    if lifecycle(classifier) is Lifecycle.TRAINING and not waits_for_people(classifier):
        raise ClassifierNotReadyError(
            f"The classifier {classifier.classifier_id} is in its first training; retrain it when the training has ended."
        )
