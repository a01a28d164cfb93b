"""WordNet 3.0's nouns, from its database files; for the generator only.

It reads `data.noun`, `index.noun` (wndb(5WN)) and `cntlist.rev` (cntlist(5WN)), and does not know ImageNet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Lexicographer files, lexnames(5WN).
TOPS = 3
"""The top of all hierarchies: entity, object, animal, food, ..."""
FOOD = 13

_NOUN = "n"
_HYPERNYM = "@"


class WordNetError(Exception):
    """The files are not WordNet 3.0's."""


@dataclass(frozen=True, kw_only=True)
class Synset:
    """One meaning and its words, the usual one first."""

    offset: int
    """Its offset in `data.noun`, which identifies it in WordNet 3.0."""
    lexicographer_file: int
    lemmas: tuple[str, ...]
    """Spaces where the files have underscores."""
    tag_counts: tuple[int, ...]
    """How often WordNet's tagged texts use each lemma in this meaning."""
    hypernyms: tuple[int, ...]
    definition: str

    @property
    def identifier(self) -> str:
        """In ImageNet's form: n01440764."""
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
        """All synsets below it."""
        return _reach(offset, lambda synset: self.hyponyms.get(synset, ()))

    def ancestors(self, offset: int) -> frozenset[int]:
        """All synsets above it."""
        return _reach(offset, lambda synset: self.synsets[synset].hypernyms)

    def means_first(self, lemma: str, offset: int) -> bool:
        """Whether this is the first meaning of the word."""
        return self.senses.get(lemma.casefold(), (None,))[0] == offset


def _reach(start: int, neighbours: Callable[[int], Iterable[int]]) -> frozenset[int]:
    """All synsets on paths from one synset, without itself unless a path leads back."""
    found: set[int] = set()
    waiting = [start]
    while waiting:
        new = set(neighbours(waiting.pop())) - found
        found |= new
        waiting.extend(new)
    return frozenset(found)


def load_wordnet(folder: Path) -> WordNet:
    """Read the folder of Debian's package wordnet-base.

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
    # Offsets identify synsets only within one version of WordNet.
    if senses.get("entity") != (1740,) or 1440764 not in synsets or synsets[1440764].lemmas[0] != "tench":
        raise WordNetError(f"{folder}: these files are not WordNet 3.0's; use those of Debian's package wordnet-base 1:3.0")
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
