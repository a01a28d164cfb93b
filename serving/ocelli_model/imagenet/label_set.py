"""The names of ImageNet-1k's classes, where they stand among each other, and what other languages call them.

Only reads this folder's files. It knows no network: the order of the outputs is the usual one, which torchvision's networks and
EfficientNet-Lite have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

LABELS_FILE = "labels.txt"
HIERARCHY_FILE = "hierarchy.txt"
SYNSETS_FILE = "synsets.txt"
TRANSLATIONS_FILE = "translations.json"
FOOD_FILE = "food.txt"
"""Of each output that is a food: its synset and its path."""
NON_FOOD = "non-food"

FOOD_TRANSLATIONS: Mapping[str, Mapping[str, str]] = {
    "ar": {"food": "طعام", NON_FOOD: "ليس طعامًا"},
    "de": {"food": "Essen", NON_FOOD: "kein Essen"},
    "es": {"food": "comida", NON_FOOD: "no es comida"},
    "fr": {"food": "nourriture", NON_FOOD: "pas de nourriture"},
    "it": {"food": "cibo", NON_FOOD: "non è cibo"},
    "ja": {"food": "食べ物", NON_FOOD: "食べ物ではない"},
    "ko": {"food": "음식", NON_FOOD: "음식 아님"},
    "pt-br": {"food": "comida", NON_FOOD: "não é comida"},
    "zh-cn": {"food": "食物", NON_FOOD: "非食物"},
    "zh-tw": {"food": "食物", NON_FOOD: "非食物"},
}
"""The two names that say whether there is food at all: no source of `translations.json` has both."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """A tree of names whose leaves are classes; every name is one place in it."""

    class_names: Sequence[str]
    """By index of the network's output; outputs of one name are one class."""
    paths: Sequence[Sequence[str]]
    """Of each output that has a place in the tree: the names from the root to its class, which is included."""
    synsets: Sequence[str]
    """What each output means, as WordNet 3.0 and ImageNet name it: "n01440764"."""
    translations: Mapping[str, Mapping[str, str]]
    """Language to name, of class or ancestor, to what the language calls it."""

    @cached_property
    def path_by_name(self) -> Mapping[str, Sequence[str]]:
        """Every name, of class or ancestor, to the names from the root to itself."""
        return {name: path[: depth + 1] for path in self.paths for depth, name in enumerate(path)}

    def translate(self, name: str, language: str) -> str:
        """What the language calls it; the English name where that is not known."""
        return self.translations.get(language, {}).get(name, name)


def path_text(path: Sequence[str]) -> str:
    """As users see it: "/animal/bird/owl/great grey owl"."""
    return "".join(f"/{name}" for name in path)


def load_imagenet() -> LabelSet:
    """Reads a quarter of a megabyte; keep what it returns."""
    return LabelSet(
        class_names=tuple(_lines(LABELS_FILE)),
        paths=tuple(tuple(line.split("/")[1:]) for line in _lines(HIERARCHY_FILE)),
        synsets=tuple(_lines(SYNSETS_FILE)),
        translations=json.loads(_text(TRANSLATIONS_FILE)),
    )


def load_imagenet_food() -> LabelSet:
    """ImageNet's foods under `food`; every other output is one class, which stands in no tree.

    What is food was decided by reading the 1,000 names: whatever lies under food or fruit and can be eaten or drunk, without
    menus, plates, cups and hay; without wild plants and mushrooms that could be mistaken for food, such as acorns, rose hips
    and fly agarics; without animals, shops and bottles.
    """
    imagenet = load_imagenet()
    path_by_synset = {synset: tuple(path.split("/")[1:]) for synset, path in (line.split(" ", 1) for line in _lines(FOOD_FILE))}
    paths = [path_by_synset.get(synset) for synset in imagenet.synsets]
    names = {name for path in path_by_synset.values() for name in path}
    return LabelSet(
        class_names=tuple(NON_FOOD if path is None else path[-1] for path in paths),
        paths=tuple(path for path in paths if path is not None),
        synsets=imagenet.synsets,
        translations={
            language: {name: text for name, text in imagenet.translations[language].items() if name in names} | dict(own)
            for language, own in FOOD_TRANSLATIONS.items()
        },
    )


def _lines(name: str) -> list[str]:
    return _text(name).splitlines()


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
