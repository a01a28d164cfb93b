"""The WordNet synset of each output of torchvision's ImageNet-1k networks, and its class name; for the generator only.

Torchvision publishes a word for each output, without synsets. ImageNet-1k's classes are in the order of their WordNet 3.0
offsets, which resolves nearly all words with several meanings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tools.imagenet.wordnet import WordNet

SENSES_THAT_ORDER_LEAVES_OPEN: Mapping[str, int] = {
    # Words with two neighbouring meanings. The lower offset is meant unless it is listed here: each of these is a class of
    # ILSVRC 2012 and the lower one is not.
    "kit fox": 2119789,  # small grey fox of southwestern United States
    "tabby": 2123045,  # a cat with a grey or tawny coat mottled with black
    "ox": 2403003,  # an adult castrated bull of the genus Bos
    "amphibian": 2704792,  # a flat-bottomed motor vehicle that can travel on land or water
    "beaker": 2815834,  # a flatbottomed jar made of glass or plastic
    "bib": 2834397,  # top part of an apron
    "binder": 2840245,  # holds loose papers or magazines
    "bow": 2879718,  # a weapon for shooting arrows, composed of a curved piece of resilient wood with a taut …
    "brass": 2892201,  # a memorial made of brass
    "cannon": 2950826,  # heavy gun fired from a tank
    "cloak": 3045698,  # anything that covers or conceals
    "clog": 3047690,  # footwear usually with wooden soles
    "envelope": 3291819,  # a flat (usually rectangular) container for a letter, thin package, etc.
    "file": 3337140,  # office furniture consisting of a container for keeping papers in order
    "fountain": 3388043,  # a structure from which an artificially produced jet of water arises
    "grille": 3459775,  # grating that admits cooling air to car's radiator
    "half track": 3478589,  # a motor vehicle propelled by half tracks
    "hook": 3532672,  # a mechanical device that is curved or bent to suspend or hold or pull something
    "jersey": 3595614,  # a close-fitting pullover shirt
    "library": 3661043,  # a building that houses a collection of books and other materials
    "monitor": 3782006,  # electronic equipment that is used to check the quality or content of electronic …
    "mortar": 3786901,  # a bowl-shaped vessel in which substances can be ground and mixed with a pestle
    "pick": 3929660,  # a small thin device (of metal or plastic or ivory) used to pluck a stringed instrument
    "pier": 3933933,  # a support for two adjacent bridge spans
    "pinwheel": 3944341,  # a wheel that has numerous pins that are set at right angles to its rim
    "planetarium": 3956157,  # a building housing an instrument for projecting the positions of the planets onto a …
    "pot": 3991062,  # a container in which plants are cultivated
    "printer": 4004767,  # (computer science) an output device that prints the results of data processing
    "rotisserie": 4111531,  # an oven or broiler equipped with a rotating spit on which meat cooks as it turns
    "scale": 4141975,  # a measuring instrument for weighing
    "screen": 4152593,  # the display that is electronically created on the surface of the large end of a cathode- …
    "slot": 4243546,  # a slot machine that is used for gambling
    "snorkel": 4251144,  # breathing device consisting of a bent tube fitting into a swimmer's mouth and extending …
    "spatula": 4270147,  # a turner with a narrow flexible blade
    "spider web": 4275548,  # a web resembling the webs spun by spiders
    "spindle": 4277352,  # a stick or pin used to twist the yarn in spinning
    "switch": 4372370,  # control consisting of a mechanical or electrical or electronic device for making or …
    "tank": 4389033,  # an enclosed armored military vehicle
    "yawl": 4612504,  # a ship's small boat (usually rowed by 4 or 6 oars)
    "volcano": 9472597,  # a mountain formed by volcanic material
    "groom": 10148035,  # a man participant in his own marriage ceremony
    "corn": 12144580,  # the dried grains or kernels or corn used as animal feed or ground for meal
    "buckeye": 12768682,  # the inedible nutlike seed of the horse chestnut
}


class SenseError(Exception):
    """The categories are not ImageNet-1k's, or the WordNet is not 3.0."""


def resolve_synsets(categories: Sequence[str], wordnet: WordNet) -> tuple[int, ...]:
    """The offset of each category, strictly rising.

    Raises:
        SenseError: no choice of meanings is in order, or a listed sense is not one of its category's.
    """
    candidates = [_candidates(category, wordnet) for category in categories]
    # The least offset that each category can have, given the ones before it, and the greatest, given the ones after it. Offsets
    # between them are possible: the categories before can take their least, those after their greatest.
    least = _least(categories, candidates)
    greatest = [-offset for offset in _least(categories[::-1], [[-o for o in reversed(c)] for c in candidates[::-1]])][::-1]
    chosen: list[int] = []
    for category, offsets, low, high in zip(categories, candidates, least, greatest, strict=True):
        possible = [o for o in offsets if low <= o <= high and (not chosen or o > chosen[-1])]
        offset = SENSES_THAT_ORDER_LEAVES_OPEN.get(category, possible[0])
        if offset not in possible:
            raise SenseError(f'category "{category}": n{offset:08d} is not among the senses that the order allows, {possible}')
        chosen.append(offset)
    return tuple(chosen)


def _least(categories: Sequence[str], candidates: Sequence[Sequence[int]]) -> list[int]:
    least: list[int] = []
    for category, offsets in zip(categories, candidates, strict=True):
        possible = [offset for offset in offsets if not least or offset > least[-1]]
        if not possible:
            raise SenseError(
                f'category "{category}": none of its senses {list(offsets)} follows those of the categories before'
            )
        least.append(possible[0])
    return least


def _candidates(category: str, wordnet: WordNet) -> list[int]:
    """Sorted. Torchvision distinguishes two categories of one word by a second word ("crane bird"), so the beginning counts."""
    words = category.casefold().split(" ")
    for length in range(len(words), 0, -1):
        if senses := wordnet.senses.get(" ".join(words[:length])):
            return sorted(senses)
    return []


def choose_class_names(categories: Sequence[str], synsets: Sequence[int], wordnet: WordNet) -> tuple[str, ...]:
    """Torchvision's words, with a longer name where one word would mean something else: "computer mouse" for "mouse".

    A longer name is used if the word's first meaning is another one, WordNet's tagged texts never use it for this class, and
    a synonym contains the word and has this first meaning.
    """
    return tuple(_class_name(category, offset, wordnet) for category, offset in zip(categories, synsets, strict=True))


def _class_name(category: str, offset: int, wordnet: WordNet) -> str:
    synset = wordnet.synsets[offset]
    uses = {lemma.casefold(): count for lemma, count in zip(synset.lemmas, synset.tag_counts, strict=True)}
    if category.casefold() not in uses:
        # Torchvision has two words for one class: the second is enough if it is a word for the class ("tank suit").
        endings = [lemma for lemma in synset.lemmas if category.casefold().endswith(f" {lemma.casefold()}")]
        return max(endings, key=len, default=category)
    if wordnet.means_first(category, offset) or uses[category.casefold()]:
        return category
    word = re.compile(rf"\b{re.escape(category)}\b", re.IGNORECASE)
    for lemma in synset.lemmas:
        if lemma.casefold() != category.casefold() and word.search(lemma) and wordnet.means_first(lemma, offset):
            return lemma
    return category
