"""The Classifier's own test set: images that it is judged on and never learns from. Pure: no I/O, no pixels.

An image that is also an example says nothing about new images, and neither does a near duplicate of one. Both are left out and
counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import ClassifierSpec, Correction
from ocelli_api.outcome import EvaluationProtocol
from ocelli_training.data_report import judged_images
from ocelli_training.dataset import Dataset, DatasetError, Example, ExampleSet, SourceReading, build_dataset, join_faults
from ocelli_training.evaluate import Evaluation, evaluate
from ocelli_training.fit import Fit


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The images to judge on, ordered by class and digest."""

    # Pytest would otherwise take it for tests.
    __test__ = False

    sets: tuple[ExampleSet, ...]
    examples: tuple[Example, ...]
    """Their `set_index` is the index of their class among the Classifier's classes."""
    excluded: tuple[Example, ...] = ()
    """Images that are also examples, or near duplicates of examples."""


def find_test_sets(definition: ClassifierSpec) -> tuple[ExampleSet, ...]:
    """The sets of test images of a definition, without those whose sources were all erased."""
    sets = []
    for item in definition.evaluation.classes:
        left = tuple(source for source in item.examples if not source.erased)
        if left:
            partly = len(left) < len(item.examples)
            sets.append(ExampleSet(class_name=item.name, sources=left, partly_erased=partly, is_test=True))
    return tuple(sets)


def build_test_set(
    sets: Sequence[ExampleSet],
    readings: Sequence[Sequence[SourceReading]],
    learned: Dataset,
    corrections: Sequence[Correction] = (),
) -> TestSet | None:
    """The test set without images that are also examples; None where there are no sets."""
    if not sets:
        return None
    examples = tuple(
        replace(example, set_index=learned.class_names.index(sets[example.set_index].class_name or ""))
        for example in build_dataset(sets, readings, corrections).examples
    )
    known = {example.digest for example in learned.examples}
    return _split(tuple(sets), examples, [example.digest in known for example in examples])


@dataclass(frozen=True, kw_only=True, eq=False)
class TestImages:
    """The test set as numbers: one row for each of its images."""

    __test__ = False

    test_set: TestSet
    features: NDArray[np.float32]
    """float32[M, D]: of the whole images."""
    groups: NDArray[np.intp]
    """intp[M]: equal for near duplicates."""

    @classmethod
    def build(
        cls, test_set: TestSet, features: NDArray[np.float32], groups: NDArray[np.intp], learned_count: int
    ) -> TestImages:
        """Leave out near duplicates of examples: images whose group's row is below `learned_count`."""
        is_known = groups < learned_count
        split = _split(test_set.sets, test_set.examples, is_known.tolist())
        return cls(
            test_set=replace(split, excluded=(*test_set.excluded, *split.excluded)),
            features=features[~is_known],
            groups=groups[~is_known],
        )

    def evaluate(self, fit: Fit, class_names: Sequence[str], has_negatives: bool) -> Evaluation:
        """The metrics of the served heads on the test set."""
        own = replace(
            fit,
            scores=fit.heads.scores(self.features),
            unrejected_scores=replace(fit.heads, rejection=None).scores(self.features),
        )
        membership = np.zeros((len(self.features), len(class_names)), dtype=np.bool_)
        membership[np.arange(len(self.features)), [example.set_index for example in self.test_set.examples]] = True
        images = judged_images(self.test_set.examples)
        evaluation = evaluate(
            own,
            membership,
            self.groups,
            class_names,
            images,
            learned_negatives=has_negatives,
            protocol=EvaluationProtocol.TEST_SET,
        )
        return replace(evaluation, excluded=len(self.test_set.excluded))


def check_test_set(classifier: str, test: TestSet, class_names: Sequence[str]) -> None:
    """Check that every class of the test set has an image to judge on. `classifier` is its `namespace/name`.

    Raises:
        DatasetError: a class has none.
    """
    faults = find_test_set_faults(test, class_names)
    if faults:
        raise DatasetError(f"Classifier {classifier}: {join_faults(faults)}")


def find_test_set_faults(test: TestSet, class_names: Sequence[str], unknown: Collection[ExampleSet] = ()) -> list[str]:
    """Every class of the test set that has no image to judge on. Sets with unread sources are `unknown`."""
    left = {class_names[example.set_index] for example in test.examples}
    faults = []
    for item in test.sets:
        # A request to erase one customer's images should not fail because no others are left.
        if item.class_name in left or item.partly_erased or item in unknown:
            continue
        known = sum(class_names[example.set_index] == item.class_name for example in test.excluded)
        fact = f"{item} ({known}) are all examples or near duplicates of examples" if known else f"{item} have no usable image"
        faults.append(f"{fact}; add images that are not examples")
    return faults


def _split(sets: tuple[ExampleSet, ...], examples: Sequence[Example], is_known: Sequence[bool]) -> TestSet:
    return TestSet(
        sets=sets,
        examples=tuple(example for example, known in zip(examples, is_known, strict=True) if not known),
        excluded=tuple(example for example, known in zip(examples, is_known, strict=True) if known),
    )
