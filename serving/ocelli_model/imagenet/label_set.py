"""The names of ImageNet-1k's classes, where they stand among each other, and what other languages call them.

Only reads this folder's files. It knows no network: the order is that of every torchvision network's outputs.
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


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """A tree of names whose leaves are classes; every name is one place in it."""

    class_names: Sequence[str]
    """By index of the network's output."""
    paths: Sequence[Sequence[str]]
    """Of each class: the names from the root to itself, itself included."""
    synsets: Sequence[str]
    """What each class means, as WordNet 3.0 and ImageNet name it: "n01440764"."""
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


def _lines(name: str) -> list[str]:
    return _text(name).splitlines()


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
