"""WordNet 3.0's nouns, as its database files have them; for the generator only.

Read are `data.noun`, `index.noun` (wndb(5WN)) and `cntlist.rev` (cntlist(5WN)). Nothing here knows ImageNet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Lexicographer files, lexnames(5WN).
TOPS = 3
"""The beginners of all hierarchies: entity, object, animal, food, ..."""
FOOD = 13

_NOUN = "n"
_HYPERNYM = "@"


class WordNetError(Exception):
    """The files are not WordNet 3.0's."""


@dataclass(frozen=True, kw_only=True)
class Synset:
    """One meaning and the words for it, the usual one first."""

    offset: int
    """Its place in `data.noun`, which is its name in WordNet 3.0."""
    lexicographer_file: int
    lemmas: tuple[str, ...]
    """Spaces where the files have underscores."""
    tag_counts: tuple[int, ...]
    """How often WordNet's tagged texts use each lemma in this meaning."""
    hypernyms: tuple[int, ...]
    definition: str

    @property
    def identifier(self) -> str:
        """As ImageNet names it: n01440764."""
        return f"n{self.offset:08d}"


@dataclass(frozen=True, kw_only=True)
class WordNet:
    """All noun synsets by offset."""

    synsets: Mapping[int, Synset]
    senses: Mapping[str, tuple[int, ...]]
    """Lower-case lemma to offsets, the most usual meaning first."""

    @cached_property
    def hyponyms(self) -> Mapping[int, tuple[int, ...]]:
        children: defaultdict[int, list[int]] = defaultdict(list)
        for synset in self.synsets.values():
            for hypernym in synset.hypernyms:
                children[hypernym].append(synset.offset)
        return {offset: tuple(found) for offset, found in children.items()}

    def descendants(self, offset: int) -> frozenset[int]:
        """All kinds of it, without itself."""
        found: set[int] = set()
        waiting = [offset]
        while waiting:
            for child in self.hyponyms.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return frozenset(found)

    def ancestors(self, offset: int) -> frozenset[int]:
        """All that it is a kind of, without itself."""
        found: set[int] = set()
        waiting = [offset]
        while waiting:
            for parent in self.synsets[waiting.pop()].hypernyms:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return frozenset(found)

    def means_first(self, lemma: str, offset: int) -> bool:
        """Whether this is what the word means in the first place."""
        return self.senses.get(lemma.casefold(), (None,))[0] == offset


def load_wordnet(folder: Path) -> WordNet:
    """Reads the folder that Debian's wordnet-base installs.

    Raises:
        OSError: a file is missing.
        WordNetError: the files are of another version.
    """
    counts = {}
    for line in (folder / "cntlist.rev").read_text("ascii").splitlines():
        key, _, count = line.split(" ")
        counts[key] = int(count)
    synsets = {}
    for line in _records(folder / "data.noun"):
        synset = _parse_synset(line, counts)
        synsets[synset.offset] = synset
    senses = {}
    for line in _records(folder / "index.noun"):
        fields = line.split()
        senses[fields[0].replace("_", " ")] = tuple(int(offset) for offset in fields[-int(fields[2]) :])
    # Offsets are the names of synsets in one version of WordNet only.
    if senses.get("entity") != (1740,) or 1440764 not in synsets or synsets[1440764].lemmas[0] != "tench":
        raise WordNetError(f"{folder}: these files are not WordNet 3.0's; take those of Debian's package wordnet-base 1:3.0")
    return WordNet(synsets=synsets, senses=senses)


def _records(path: Path) -> Iterator[str]:
    for line in path.read_text("ascii").splitlines():
        # The licence at the top is indented.
        if not line.startswith(" "):
            yield line


def _parse_synset(line: str, counts: Mapping[str, int]) -> Synset:
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    lexicographer_file = int(fields[1])
    words = int(fields[3], 16)
    pointers_at = 4 + 2 * words
    lemmas, tag_counts = [], []
    for at in range(4, pointers_at, 2):
        lemma, identifier = fields[at], int(fields[at + 1], 16)
        lemmas.append(lemma.replace("_", " "))
        tag_counts.append(counts.get(f"{lemma.lower()}%1:{lexicographer_file:02d}:{identifier:02d}::", 0))
    pointers = range(pointers_at + 1, pointers_at + 1 + 4 * int(fields[pointers_at]), 4)
    return Synset(
        offset=int(fields[0]),
        lexicographer_file=lexicographer_file,
        lemmas=tuple(lemmas),
        tag_counts=tuple(tag_counts),
        hypernyms=tuple(int(fields[at + 1]) for at in pointers if fields[at] == _HYPERNYM and fields[at + 2] == _NOUN),
        definition=gloss.split(";")[0].strip(),
    )
