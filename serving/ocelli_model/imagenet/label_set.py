"""The names of ImageNet-1k's classes, their hierarchy, and their translations.

This module only reads the files of this folder, and must not know networks. The order of the outputs is the usual one, as in
torchvision's networks and EfficientNet-Lite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

LABELS_FILE = "labels.txt"
HIERARCHY_FILE = "hierarchy.txt"
SYNSETS_FILE = "synsets.txt"
TRANSLATIONS_FILE = "translations.json"
FOOD_FILE = "food.txt"
"""Synset and path of each output that is a food."""
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
"""The names of the two classes for food and not food: no source of `translations.json` has both."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """A tree of names whose leaves are classes. Every name occurs at one place."""

    class_names: Sequence[str]
    """By index of the network's output. Outputs with the same name are one class."""
    paths: Sequence[Sequence[str]]
    """For each output that is in the tree: the names from the root to its class, inclusive."""
    synsets: Sequence[str]
    """WordNet 3.0 synset of each output, as in ImageNet: "n01440764"."""
    translations: Mapping[str, Mapping[str, str]]
    """Language to name, of class or ancestor, to its translation."""

    def translate(self, name: str, language: str) -> str:
        """The translation of a name; the English name if there is none."""
        return self.translations.get(language, {}).get(name, name)


def path_text(path: Sequence[str]) -> str:
    """The path as users see it: "/animal/bird/owl/great grey owl"."""
    return "".join(f"/{name}" for name in path)


def load_imagenet() -> LabelSet:
    """Reads a quarter of a megabyte; keep the result."""
    return LabelSet(
        class_names=tuple(_lines(LABELS_FILE)),
        paths=tuple(tuple(line.split("/")[1:]) for line in _lines(HIERARCHY_FILE)),
        synsets=tuple(_lines(SYNSETS_FILE)),
        translations=json.loads(_text(TRANSLATIONS_FILE)),
    )


def load_imagenet_food() -> LabelSet:
    """ImageNet's foods below `food`; all other outputs are one class, which is not in the tree.

    The foods were selected by reading the 1,000 names: everything below food or fruit that can be eaten or drunk. Menus,
    plates, cups and hay are left out, as are wild plants and mushrooms that could be mistaken for food, such as acorns, rose
    hips and fly agarics, and animals, shops and bottles.
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
