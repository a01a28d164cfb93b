"""The place of each class: WordNet's hypernyms, pruned to everyday words; for the generator only.

WordNet puts a barn owl under owl, bird of prey, bird, vertebrate, chordate, animal, organism, living thing, whole, object,
physical entity and entity. An ancestor is kept if it is an everyday word, by three criteria on WordNet's own counts:

- Its kinds have its name: a barn owl is an owl, a grand piano a piano, but no carnivore is called "... carnivore".
  At least two synsets below it, in all of WordNet, have a name that ends in its name; three, if it has one class only.
- It is specific, or common: at least a tenth of all its kinds have its name; or it has several classes, is the first meaning
  of its name, and the number of kinds with its name plus the number of its uses in WordNet's tagged texts is seven or
  more, at least one of them a use.
- It is not one of WordNet's beginners (entity, object, whole, organism, ...), except the everyday ones:
  animal, food, plant, person.

A synset with several hypernyms is placed under the one that leads to the most specific kept ancestor. Two ancestors of the
same classes become one, the more specific. A root with fewer than four classes is placed under food, if WordNet has it there,
or under its lowest hypernym with four to a hundred; a class without all of these, under its own hypernym. A path has at most
five names; from longer ones the least used are removed. Each name has one place: an ancestor whose names are all taken is
removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from tools.imagenet.wordnet import FOOD, TOPS, WordNet

MOST_NAMES = 5
LEAST_KINDS_WITH_NAME = 2
LEAST_KINDS_WITH_NAME_FOR_ONE_CLASS = 3
LEAST_SHARE_WITH_NAME = 0.1
LEAST_USE = 7
LEAST_CLASSES_OF_A_ROOT = 4
MOST_CLASSES_OF_A_ROOT = 100
MISLEADING_HYPERNYMS = {
    (7871810, 7683786),  # a meat loaf is not a loaf of bread,
    (3445924, 3446832),  # a golfcart is a vehicle rather than golf equipment,
    (3314780, 3994008),  # and the powders above face powder are drugs.
}
BEGINNERS_KEPT = ("animal", "food", "plant", "person")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A class or an ancestor in the hierarchy."""

    synset: int
    name: str


@dataclass(frozen=True, kw_only=True)
class _Word:
    """A possible name of an ancestor."""

    lemma: str
    kinds_with_name: int
    uses: int

    @property
    def score(self) -> int:
        return self.kinds_with_name + self.uses


def build_paths(synsets: Sequence[int], class_names: Sequence[str], wordnet: WordNet) -> list[tuple[Place, ...]]:
    """The places from the root to each class."""
    return _Hierarchy(synsets, class_names, wordnet).paths()


class _Hierarchy:
    def __init__(self, synsets: Sequence[int], class_names: Sequence[str], wordnet: WordNet) -> None:
        self._wordnet = wordnet
        self._class_names = dict(zip(synsets, class_names, strict=True))
        self._classes_below: defaultdict[int, int] = defaultdict(int)
        for synset in synsets:
            for ancestor in wordnet.ancestors(synset):
                self._classes_below[ancestor] += 1
        self._words = cache(self._count_words)
        self._kept = {ancestor for ancestor in self._classes_below if self._is_everyday(ancestor)} - set(synsets)
        self._parent = cache(self._choose_parent)

    def paths(self) -> list[tuple[Place, ...]]:
        chains = {synset: self._chain(synset) for synset in self._class_names}
        chains = self._with_names(self._without_doubles(chains))
        chains = self._with_names(self._with_roots(chains))
        names = self._choose_names(chains)
        removed = self._removed(chains)
        return [
            (
                *(Place(synset=a, name=names[a]) for a in chain[:-1] if a not in removed),
                Place(synset=synset, name=self._class_names[synset]),
            )
            for synset, chain in chains.items()
        ]

    # Ancestors that are kept.

    def _count_words(self, synset: int) -> tuple[_Word, ...]:
        """The words for a synset, the best name first."""
        found = self._wordnet.synsets[synset]
        kinds = [
            [lemma.casefold() for lemma in self._wordnet.synsets[kind].lemmas] for kind in self._wordnet.descendants(synset)
        ]
        words = [
            _Word(
                lemma=lemma,
                kinds_with_name=sum(
                    any(name.endswith(lemma.casefold()) and len(name) > len(lemma) for name in names) for names in kinds
                ),
                uses=uses,
            )
            for lemma, uses in zip(found.lemmas, found.tag_counts, strict=True)
        ]
        first = words[0]

        def rank(word: _Word) -> tuple[bool, int]:
            # WordNet's first word, unless its head alone ("saw" for "power saw"), or another word with this first meaning, is
            # much more usual ("monument" for "memorial").
            head = first.lemma.endswith(f" {word.lemma}") and word.kinds_with_name >= LEAST_KINDS_WITH_NAME
            usual = self._wordnet.means_first(word.lemma, synset) and word.score >= max(2 * first.score, LEAST_KINDS_WITH_NAME)
            return not (head or usual) or word is first, words.index(word)

        return tuple(sorted(words, key=rank))

    def _is_everyday(self, synset: int) -> bool:
        found = self._wordnet.synsets[synset]
        if found.lexicographer_file == TOPS:
            return found.lemmas[0] in BEGINNERS_KEPT
        words = self._words(synset)
        several = self._classes_below[synset] > 1
        kinds_with_name = max(word.kinds_with_name for word in words)
        if kinds_with_name < (LEAST_KINDS_WITH_NAME if several else LEAST_KINDS_WITH_NAME_FOR_ONE_CLASS):
            return False
        if kinds_with_name >= LEAST_SHARE_WITH_NAME * len(self._wordnet.descendants(synset)):
            return True
        uses = sum(word.uses for word in words)
        means_first = any(self._wordnet.means_first(word.lemma, synset) for word in words)
        return several and means_first and uses > 0 and kinds_with_name + uses >= LEAST_USE

    # The choice of a hypernym.

    def _choose_parent(self, synset: int) -> int | None:
        def rank(hypernym: int) -> tuple[bool, bool, bool, int]:
            kept = self._nearest_kept(hypernym)
            if kept is None:
                return True, True, True, 0
            # An apple is food rather than a part of a plant, if both have a kept ancestor.
            files = {self._wordnet.synsets[at].lexicographer_file for at in (synset, kept)}
            other_file = len(files - {TOPS}) > 1
            return False, other_file, self._classes_below[kept] == 1, len(self._wordnet.descendants(kept))

        hypernyms = [h for h in self._wordnet.synsets[synset].hypernyms if (synset, h) not in MISLEADING_HYPERNYMS]
        return min(hypernyms, key=rank, default=None)

    def _nearest_kept(self, synset: int | None) -> int | None:
        while synset is not None and synset not in self._kept:
            synset = self._parent(synset)
        return synset

    def _chain(self, synset: int) -> list[int]:
        """The kept ancestors, the root first, and the class."""
        chain = [synset]
        ancestor = self._nearest_kept(self._parent(synset))
        while ancestor is not None:
            chain.append(ancestor)
            ancestor = self._nearest_kept(self._parent(ancestor))
        return chain[::-1]

    # Corrections of the whole tree.

    @staticmethod
    def _classes_by_ancestor(chains: Mapping[int, Sequence[int]]) -> Mapping[int, frozenset[int]]:
        classes: defaultdict[int, set[int]] = defaultdict(set)
        for synset, chain in chains.items():
            for ancestor in chain[:-1]:
                classes[ancestor].add(synset)
        return {ancestor: frozenset(found) for ancestor, found in classes.items()}

    def _without_doubles(self, chains: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
        classes = self._classes_by_ancestor(chains)
        doubles = {
            upper
            for chain in chains.values()
            for upper, lower in pairwise(chain[:-1])
            if classes[upper] == classes[lower] and not self._is_beginner(upper)
        }
        return {synset: [at for at in chain if at not in doubles] for synset, chain in chains.items()}

    def _with_roots(self, chains: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
        classes = self._classes_by_ancestor(chains)
        return {synset: [*self._root_of(chain[0], len(classes.get(chain[0], ()))), *chain] for synset, chain in chains.items()}

    def _root_of(self, top: int, classes: int) -> list[int]:
        file = self._wordnet.synsets[top].lexicographer_file
        if file == FOOD:
            return [self._wordnet.senses["food"][0]]
        if self._is_beginner(top) or classes >= LEAST_CLASSES_OF_A_ROOT:
            return []
        parent = ancestor = self._parent(top)
        while ancestor is not None and self._wordnet.synsets[ancestor].lexicographer_file == file:
            if LEAST_CLASSES_OF_A_ROOT <= self._classes_below[ancestor] <= MOST_CLASSES_OF_A_ROOT:
                return [ancestor]
            ancestor = self._parent(ancestor)
        if classes or parent is None or self._is_beginner(parent):
            return []
        name = self._words(parent)[0].lemma
        return [parent] if self._wordnet.means_first(name, parent) or self._class_names[top].endswith(f" {name}") else []

    def _is_beginner(self, synset: int) -> bool:
        return self._wordnet.synsets[synset].lexicographer_file == TOPS

    def _with_names(self, chains: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
        names = self._choose_names(chains)
        return {
            synset: [*(ancestor for ancestor in chain[:-1] if ancestor in names), synset] for synset, chain in chains.items()
        }

    def _choose_names(self, chains: Mapping[int, Sequence[int]]) -> dict[int, str]:
        """The most used ancestors first. An ancestor of one class may only have its first word."""
        classes = self._classes_by_ancestor(chains)
        taken = {name.casefold() for name in self._class_names.values()}
        names = {}
        for ancestor in sorted(classes, key=lambda a: (-max(word.score for word in self._words(a)), a)):
            words = self._words(ancestor)
            for word in words if len(classes[ancestor]) > 1 else words[:1]:
                if word.lemma.casefold() not in taken:
                    names[ancestor] = word.lemma
                    taken.add(word.lemma.casefold())
                    break
        return names

    def _removed(self, chains: Mapping[int, Sequence[int]]) -> frozenset[int]:
        """Ancestors to remove from long paths: those of one class first, then the least used; never a root."""
        classes = self._classes_by_ancestor(chains)
        removed: set[int] = set()
        for chain in chains.values():
            ancestors = [ancestor for ancestor in chain[1:-1] if ancestor not in removed]
            ancestors.sort(key=lambda a: (len(classes[a]) > 1, max(word.score for word in self._words(a))))
            removed.update(ancestors[: max(0, len(ancestors) + 2 - MOST_NAMES)])
        return frozenset(removed)
