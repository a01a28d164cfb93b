"""Corrections of single images: those asked for, merged into a spec, and what they will cause. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ocelli_api.classifier import CORRECTIONS_LIMIT, Approval, Classifier, ClassifierSpec, Correction
from ocelli_api.polled_sources import find_seen_digest
from ocelli_api.revision import spec_revision
from ocelli_gateway.refusals import LimitExceededError, ParameterError
from ocelli_storage.archives import shown_name


@dataclass(frozen=True, kw_only=True)
class RequestedCorrection:
    """What should hold for one image."""

    image: str
    """SHA-256 (hex) of its bytes."""
    class_name: str | None
    """A class; empty: the image is not used; None: what its source says."""


@dataclass(frozen=True, kw_only=True)
class CorrectedSpec:
    """A spec with corrections merged into it, and what differs."""

    spec: ClassifierSpec
    moved: int
    """Images that get another class than before."""
    dropped: int
    restored: int
    """Images whose correction was removed."""

    @property
    def changed(self) -> int:
        return self.moved + self.dropped + self.restored


def merge_corrections(spec: ClassifierSpec, requested: Iterable[RequestedCorrection]) -> CorrectedSpec:
    """Of several for the same image, the last one counts.

    Raises:
        ParameterError: a class does not exist, or nothing can be corrected.
        LimitExceededError: there would be too many.
    """
    if spec.pretrained is not None:
        raise ParameterError("A classifier from published weights learns from no images, so none of them can be corrected.")
    class_names = {item.name for item in spec.classes}
    before = {item.image: item.class_name for item in spec.corrections}
    after = dict(before)
    for item in requested:
        if item.class_name and item.class_name not in class_names:
            raise ParameterError(
                f'The correction of the image {item.image} names the class "{shown_name(item.class_name)}", which does not '
                "exist; name one of the classes, or give an empty text to drop the image."
            )
        if item.class_name is None:
            after.pop(item.image, None)
        else:
            after[item.image] = item.class_name
    if len(after) > CORRECTIONS_LIMIT:
        raise LimitExceededError(
            f"The classifier would have {len(after)} corrections; at most {CORRECTIONS_LIMIT} are allowed. Remove the images "
            "from their zips instead, and upload those again."
        )
    changed = [image for image in before.keys() | after.keys() if before.get(image) != after.get(image)]
    restored, dropped = sum(image not in after for image in changed), sum(after.get(image) == "" for image in changed)
    corrections = tuple(Correction(image=image, class_name=name) for image, name in after.items())
    return CorrectedSpec(
        # The order has no meaning: without a change nothing is written.
        spec=replace(spec, corrections=corrections) if changed else spec,
        moved=len(changed) - restored - dropped,
        dropped=dropped,
        restored=restored,
    )


def find_made_revision(classifier: Classifier, spec: ClassifierSpec) -> str:
    """The revision that a Classifier gets by this spec, regardless of a pin."""
    return spec_revision(spec, find_seen_digest(classifier))


def describe_effect(classifier: Classifier, corrected: CorrectedSpec) -> str:
    """What the corrections will cause, in one sentence."""
    if not corrected.changed:
        return "Nothing changes: these corrections hold already."
    effects = [
        (corrected.moved, "gets another class", "get another class"),
        (corrected.dropped, "is not used any more", "are not used any more"),
        (corrected.restored, "goes back to the class of its source", "go back to the classes of their sources"),
    ]
    described = [f"{_count(number)} {one if number == 1 else several}" for number, one, several in effects if number]
    return f"{' and '.join(described)}; {_describe_training(classifier, corrected.spec)}."


def _describe_training(classifier: Classifier, spec: ClassifierSpec) -> str:
    revision, status = find_made_revision(classifier, spec), classifier.status
    if spec.pinned_revision is not None:
        return f"nothing is trained while the revision {spec.pinned_revision} is pinned"
    if any(entry.revision == revision for entry in status.history):
        return f"the revision {revision}, which was trained before, answers again without a training"
    if spec.suspend:
        return f"the data of the new revision {revision} is checked, and it is trained once the classifier is resumed"
    approval = " and waits for approval" if spec.promotion.approval is Approval.MANUAL else ""
    meanwhile = "" if status.served_revision is None else f", while the revision {status.served_revision} answers"
    return f"the new revision {revision} is trained{approval}{meanwhile}"


def _count(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"
