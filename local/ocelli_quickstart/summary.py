"""The lines that `make run` prints about Classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from ocelli_api.classifier import Classifier
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_api.conditions import ConditionType, StalledReason
from ocelli_quickstart.installation import SYSTEM_NAMESPACE, known_built_ins


def summarise(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """A line about each Classifier, by its name. Built-in ones that wait for weights from another place, as in earlier
    releases, share one line, after all of them were tried.
    """
    summaries = {f"{item.namespace}/{item.name}": _summary(item) for item in classifiers}
    built_ins = [item for item in classifiers if item.namespace == SYSTEM_NAMESPACE and item.name in known_built_ins()]
    waiting = [item for item in built_ins if _waits_for_weights(item)]
    starting = any(not item.status.is_true(ConditionType.STALLED) and item.status.served_revision is None for item in built_ins)
    for item in waiting:
        summaries[f"{item.namespace}/{item.name}"] = ""
    if waiting and not starting:
        names = sorted(item.name for item in waiting)
        wait = "wait for their weights" if len(waiting) > 1 else "waits for its weights"
        summaries["built-in classifiers"] = (
            f"{', '.join(names)} {wait}, see docs/pretrained.md; to use the weights that come with Ocelli, "
            f"kubectl -n {SYSTEM_NAMESPACE} delete clf {' '.join(names)}, then start again"
        )
    return summaries


def _waits_for_weights(classifier: Classifier) -> bool:
    stalled = classifier.status.condition(ConditionType.STALLED)
    if stalled is None or stalled.status != "True" or classifier.status.served_revision is not None:
        return False
    pretrained = classifier.spec.pretrained
    if pretrained is None or pretrained.weights.packaged is not None:
        return False
    # PyTorch, which reads the weights, or the weights themselves are missing.
    return stalled.reason in (StalledReason.TRAINING_FAILED, StalledReason.SOURCE_UNREADABLE)


def _summary(classifier: Classifier) -> str:
    ready = classifier.status.condition(ConditionType.READY)
    if ready is None:
        return "created"
    progress = classifier.status.progress
    text = str(ready.reason)
    if progress is not None:
        text += f", {progress.stage} {progress.percent} %"
    if classifier.status.is_true(ConditionType.STALLED):
        text += f": {ready.message}"
    elif ready.status == "True" and classifier.status.accuracy:
        text += f", revision {classifier.status.served_revision}, accuracy {_format_accuracy(classifier.status)}"
    return text


def _format_accuracy(status: ClassifierStatus) -> str:
    interval = status.accuracy_interval
    if interval is None:
        return f"{status.accuracy}"
    images = "" if status.judged_images is None else f", {status.judged_images} images"
    accuracy, lower, upper = (f"{float(share):.2f}" for share in (status.accuracy or "", interval.lower, interval.upper))
    return f"{accuracy} ({lower} to {upper}{images})"
