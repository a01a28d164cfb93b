"""The head of a pretrained classifier: from a network's outputs to one score per class. It must not know networks or images.

A class stands for one or several outputs; an ancestor in a hierarchy stands for all outputs below it. The last class may stand
for no output: it is returned if no other class is. The head also has the names of the classes in every language.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ocelli_api.classifier import Activation
from ocelli_api.prediction import DECISION_THRESHOLD, SCORE_DECIMALS


@dataclass(frozen=True, kw_only=True)
class OutputClass:
    """One class."""

    name: str
    outputs: tuple[int, ...]
    """Indices of the outputs that it stands for; empty for the class that is returned if no other is."""
    ancestors: tuple[str, ...] | None = None
    """Names from the root of the hierarchy down to the class, without the class; None if it is not a leaf of a hierarchy."""
    translations: Mapping[str, str] = field(default_factory=dict)
    """Its name by language."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The names of the classes in one language, in the order of the head."""

    class_names: tuple[str, ...]
    """They are unique."""
    type_hierarchies: tuple[str | None, ...]
    """Paths such as `/animal/bird/owl` for the leaves of the hierarchy; None for all other classes."""


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """Activation, then for each class the sum (`Softmax`, `Identity`) or the highest (`Sigmoid`) of its outputs' scores."""

    activation: Activation
    output_count: int
    classes: tuple[OutputClass, ...]
    temperature: float = 1.0
    """Outputs are divided by it before `Softmax`. A value below 1 raises scores that are too low."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"head: the temperature is {self.temperature}; it must be above 0 and finite")
        if self.temperature != 1 and self.activation is not Activation.SOFTMAX:
            raise ValueError(f"head: a temperature requires the activation {Activation.SOFTMAX}")
        repeated = [name for name, count in Counter(item.name for item in self.classes).items() if count > 1]
        if repeated:
            raise ValueError(f'head: class "{repeated[0]}" occurs twice')
        scored = self._scored
        if not scored or any(not item.outputs for item in scored):
            raise ValueError("head: only the last class may stand for no output, and it must not be the only class")
        if any(not 0 <= output < self.output_count for item in scored for output in item.outputs):
            raise ValueError(f"head: a class stands for an output that is not one of the {self.output_count}")

    @property
    def class_count(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.classes)

    def scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores from 0 to 1: float32[N, outputs] to float32[N, C]. The score of an ancestor is never below that of its leaves.

        A row is bit-identical for the same outputs.

        Raises:
            ValueError: the number of outputs is wrong, or some are not finite.
        """
        if outputs.ndim != 2 or outputs.shape[1] != self.output_count:
            raise ValueError(f"head: the outputs have shape {outputs.shape}, but the head is for {self.output_count}")
        if not np.isfinite(outputs).all():
            raise ValueError("head: the outputs of the network are not all finite")
        scores = np.zeros((len(outputs), self.class_count), dtype=np.float32)
        combine = np.maximum if self.activation is Activation.SIGMOID else np.add
        for row, image_outputs in enumerate(outputs.astype(np.float64) / self.temperature):
            # Adding a number that is not negative never reduces a sum, also in floating point: ancestors stay above their
            # leaves.
            combined = combine.reduceat(activate(self.activation, image_outputs)[self._members], self._starts)
            scores[row, : len(combined)] = np.minimum(combined, 1.0)
            if len(combined) < self.class_count:
                best = scores[row, self._specific].max()
                scores[row, -1] = _score_of_none(float(best))
                if scores[row, -1]:
                    # A class for all outputs also contains this one: it stays above its leaves, and is not evidence for any of
                    # them.
                    scores[row, self._universal] = best
        return scores

    @cached_property
    def wording(self) -> Wording:
        """The names in the definition."""
        return self._build_wording({})

    @cached_property
    def wordings(self) -> Mapping[str, Wording]:
        """By language. Classes without a translation keep their names."""
        languages = sorted({language for item in self.classes for language in item.translations})
        return {language: self._build_wording(self._choose_names(language)) for language in languages}

    @property
    def _scored(self) -> tuple[OutputClass, ...]:
        """The classes that stand for outputs."""
        return self.classes if not self.classes or self.classes[-1].outputs else self.classes[:-1]

    @cached_property
    def _members(self) -> NDArray[np.intp]:
        return np.array([output for item in self._scored for output in item.outputs], dtype=np.intp)

    @cached_property
    def _universal(self) -> NDArray[np.intp]:
        """Indices of the classes that stand for every output, such as the root of a hierarchy: their sum is always 1."""
        every = [index for index, item in enumerate(self._scored) if len(item.outputs) == self.output_count]
        return np.array(every if len(every) < len(self._scored) else [], dtype=np.intp)

    @cached_property
    def _specific(self) -> NDArray[np.intp]:
        """Indices of the other classes that stand for outputs."""
        return np.setdiff1d(np.arange(len(self._scored)), self._universal)

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        lengths = [len(item.outputs) for item in self._scored]
        return np.cumsum([0, *lengths[:-1]], dtype=np.intp)

    def _choose_names(self, language: str) -> dict[str, str]:
        """Translated names by name. If two classes would get the same name, only the first of them is translated."""
        translated = {item.name: item.translations[language] for item in self.classes if language in item.translations}
        while True:
            shown: dict[str, str] = {}
            clashing = set()
            for name in sorted(self.class_names, key=lambda name: name in translated):
                text = translated.get(name, name)
                if shown.setdefault(text, name) != name:
                    clashing.add(name)
            if not clashing:
                return translated
            # Untranslated names come first, and are unique. Each round removes translations, so the loop ends.
            translated = {name: text for name, text in translated.items() if name not in clashing}

    def _build_wording(self, names: Mapping[str, str]) -> Wording:
        def path(item: OutputClass) -> str | None:
            if item.ancestors is None:
                return None
            return "".join(f"/{names.get(name, name)}" for name in (*item.ancestors, item.name))

        return Wording(
            class_names=tuple(names.get(name, name) for name in self.class_names),
            type_hierarchies=tuple(path(item) for item in self.classes),
        )


def activate(activation: Activation, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the outputs for one image to scores from 0 to 1."""
    match activation:
        case Activation.SOFTMAX:
            exponentials = np.exp(outputs - outputs.max())
            return np.asarray(exponentials / exponentials.sum())
        case Activation.SIGMOID:
            # Beyond 80 a float32 score is 0 or 1, and the exponential would overflow.
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(outputs, -80.0, 80.0))))
        case Activation.IDENTITY:
            return np.asarray(np.clip(outputs, 0.0, 1.0))


def _score_of_none(best: float) -> float:
    """The score of the class for no output, from the best score of the others, rounded as callers see it."""
    best = round(best, SCORE_DECIMALS)
    return 1.0 - best if best < DECISION_THRESHOLD else 0.0
