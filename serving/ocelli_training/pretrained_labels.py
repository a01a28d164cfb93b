"""The meaning of a pretrained network's outputs: texts are parsed, checked and built into a head. Pure.

It knows the texts and their names in messages, but not their origin, and of the network only its number of outputs.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ocelli_api.classifier import Activation
from ocelli_api.documents import build_document
from ocelli_api.names import label_fault
from ocelli_api.prediction import CLASSES_BYTES_LIMIT, LANGUAGES, ClassScore
from ocelli_model.imagenet.label_set import LabelSet
from ocelli_model.output_head import OutputClass, OutputHead
from ocelli_storage.archives import shown_name

CLASSES_LIMIT = 25_000
"""Enough for ImageNet-21k with its ancestors."""

_FAULTS_SHOWN = 3


class LabelError(Exception):
    """The texts are wrong, or do not fit the network or each other. The message names the text, the fact and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text file."""

    name: str
    """What messages call it."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The name of each output."""

    source: str
    """What messages call the file or label set."""
    names: tuple[str, ...]
    """By index of the output; outputs with the same name are one class."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The places of classes in a tree."""

    source: str
    paths: tuple[tuple[str, ...], ...]
    """Names from the root to a label, including the label."""


@dataclass(frozen=True, kw_only=True)
class Translations:
    """Names of classes in other languages."""

    source: str
    names: Mapping[str, Mapping[str, str]]
    """By language, then by name."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """Everything that defines the meaning of a network's outputs."""

    labels: Labels
    hierarchy: Hierarchy | None = None
    translations: Translations | None = None
    activation: Activation = Activation.SOFTMAX
    temperature: float = 1.0
    """Used for `Softmax` only."""
    otherwise: str | None = None


def packaged_meaning(label_set: LabelSet, source: str) -> tuple[Labels, Hierarchy, Translations]:
    """A label set of this program, as if it were parsed from files."""
    return (
        Labels(source=source, names=tuple(label_set.class_names)),
        Hierarchy(source=source, paths=tuple(tuple(path) for path in label_set.paths)),
        Translations(source=source, names=label_set.translations),
    )


def parse_labels(text: Text) -> Labels:
    """Labels from a text, line i for output i. Raises LabelError."""
    lines = _lines(text)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise LabelError(f"{text.name} is empty; write one line with a name for each output")
    faults = [f"line {number} {fault}" for number, line in enumerate(lines, start=1) if (fault := label_fault(line))]
    if faults:
        raise LabelError(f"{text.name}: {_joined(faults)}")
    return Labels(source=text.name, names=tuple(lines))


def parse_hierarchy(text: Text) -> Hierarchy:
    """Paths from a text, one a line. Raises LabelError."""
    paths: list[tuple[str, ...]] = []
    faults: list[str] = []
    for number, line in enumerate(_lines(text), start=1):
        if not line:
            continue
        root, *names = (name.strip() for name in line.split("/"))
        if root or not names:
            faults.append(f"line {number} does not begin with /; write a path such as /animal/bird/owl")
            continue
        fault = next(
            (f"name {position} {fault}" for position, name in enumerate(names, start=1) if (fault := label_fault(name))), None
        )
        if fault is not None:
            faults.append(f"line {number}, {fault}")
        paths.append(tuple(names))
    if faults:
        raise LabelError(f"{text.name}: {_joined(faults)}")
    if not paths:
        raise LabelError(
            f"{text.name} has no paths; write one path per line, such as /animal/bird/owl, or remove the hierarchy"
        )
    return Hierarchy(source=text.name, paths=tuple(paths))


def parse_translations(text: Text) -> Translations:
    """Names by language from a JSON document. Raises LabelError."""
    form = 'give an object such as {"de": {"barn owl": "Schleiereule"}}'
    try:
        document = json.loads(_decoded(text))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise LabelError(f"{text.name} is not JSON at {where}; {form}") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{text.name} is not valid JSON; {form}") from error
    if not isinstance(document, dict):
        raise LabelError(f"{text.name} is not a JSON object; {form}")
    translations: dict[str, dict[str, str]] = {}
    for language, names in document.items():
        if language.casefold() not in LANGUAGES:
            raise LabelError(
                f"{text.name}: language {shown_name(language)!r} is not supported; use one of {', '.join(LANGUAGES)}"
            )
        if not isinstance(names, dict):
            raise LabelError(f"{text.name}: {language} is not an object of names; {form}")
        translations[language.casefold()] = {_normal(name): _translation(text, language, name, names[name]) for name in names}
    return Translations(source=text.name, names=translations)


def build_head(meaning: Meaning, output_count: int) -> OutputHead:
    """The head of a network with this number of outputs.

    Raises:
        LabelError: labels, hierarchy and network do not fit.
    """
    labels = meaning.labels
    if len(labels.names) != output_count:
        lines = "1 line" if len(labels.names) == 1 else f"{len(labels.names):,} lines"
        outputs = "1 output" if output_count == 1 else f"{output_count:,} outputs"
        raise LabelError(
            f"{labels.source} has {lines}, the network has {outputs}; give a line for each output, in the same order"
        )
    tree = _Tree(labels, meaning.hierarchy)
    classes = list(tree.classes())
    if meaning.otherwise is not None:
        classes.append(_otherwise(meaning.otherwise, tree))
    if len(classes) > CLASSES_LIMIT:
        raise LabelError(f"{labels.source}: there are {len(classes):,} classes; at most {CLASSES_LIMIT:,} are allowed")
    translations = {} if meaning.translations is None else meaning.translations.names
    translated = tuple(_translate(item, translations) for item in classes)
    temperature = meaning.temperature if meaning.activation is Activation.SOFTMAX else 1.0
    head = OutputHead(activation=meaning.activation, output_count=output_count, classes=translated, temperature=temperature)
    if _answer_bytes(head) > CLASSES_BYTES_LIMIT:
        raise LabelError(
            f"{labels.source}: an answer with every class would have {_answer_bytes(head) / 1024 / 1024:.1f} MB; at most "
            f"{CLASSES_BYTES_LIMIT // 1024 // 1024} MB are allowed: shorten labels or paths"
        )
    return head


def count_unused(meaning: Meaning, head: OutputHead) -> int:
    """The number of translations that belong to no class."""
    names = set(head.class_names)
    by_language = () if meaning.translations is None else meaning.translations.names.values()
    return sum(name not in names for translated in by_language for name in translated)


@dataclass(eq=False)
class _Tree:
    """Labels with their outputs, and ancestors above them."""

    labels: Labels
    hierarchy: Hierarchy | None
    outputs: dict[str, list[int]] = field(default_factory=dict)
    """The outputs of each label, and below each ancestor."""
    parents: dict[str, str | None] = field(default_factory=dict)
    """The parent of every name that has a place; None for a root."""

    def __post_init__(self) -> None:
        for index, name in enumerate(self.labels.names):
            self.outputs.setdefault(name, []).append(index)
        label_names = set(self.outputs)
        for path in () if self.hierarchy is None else self.hierarchy.paths:
            self._place(path, label_names)
        _check_spelling(self._names_with_sources())
        self.inner = {parent for parent in self.parents.values() if parent is not None}
        for name, own in [(name, tuple(outputs)) for name, outputs in self.outputs.items() if name in self.parents]:
            for ancestor in self.ancestors(name):
                self.outputs.setdefault(ancestor, []).extend(own)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The names from the root, without the name itself."""
        chain: list[str] = []
        parent = self.parents[name]
        while parent is not None:
            chain.append(parent)
            parent = self.parents[parent]
        return tuple(reversed(chain))

    def classes(self) -> Iterator[OutputClass]:
        """Labels in the order of their first outputs, then ancestors in the order of the hierarchy."""
        for name, outputs in self.outputs.items():
            is_leaf = name in self.parents and name not in self.inner
            yield OutputClass(name=name, outputs=tuple(sorted(outputs)), ancestors=self.ancestors(name) if is_leaf else None)

    def _place(self, path: Sequence[str], label_names: set[str]) -> None:
        assert self.hierarchy is not None
        shown = "/" + "/".join(path)
        if path[-1] not in label_names:
            raise LabelError(
                f'{self.hierarchy.source}: {shown} ends in "{path[-1]}", which is not a label of {self.labels.source}; '
                "end every path in a label, with the same spelling"
            )
        for parent, name in zip((None, *path), path, strict=False):
            known = self.parents.setdefault(name, parent)
            if known != parent:
                places = " and ".join("at the root" if at is None else f'below "{at}"' for at in (known, parent))
                raise LabelError(
                    f'{self.hierarchy.source}: {shown}: "{name}" is {places}; give each name one place, or use two names'
                )

    def _names_with_sources(self) -> Iterator[tuple[str, str]]:
        for name in self.outputs:
            yield name, self.labels.source
        if self.hierarchy is not None:
            for name in self.parents:
                yield name, self.hierarchy.source


def _check_spelling(names: Iterator[tuple[str, str]]) -> None:
    """Refuse names that differ only in case: users could not distinguish the classes."""
    seen: dict[str, tuple[str, str]] = {}
    for name, source in names:
        other, its_source = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), (name, source))
        if other != name:
            whose = "" if source == its_source else f" of {its_source}"
            raise LabelError(
                f'{source}: "{name}" and "{other}"{whose} differ only in spelling; use one spelling, or different names'
            )


def _otherwise(name: str, tree: _Tree) -> OutputClass:
    name = _normal(name)
    fault = label_fault(name)
    if fault is not None:
        raise LabelError(f"otherwise {fault}")
    if name in tree.outputs:
        raise LabelError(f'otherwise: "{name}" is already a class of the network; choose another name, or remove it')
    return OutputClass(name=name, outputs=())


def _translate(item: OutputClass, translations: Mapping[str, Mapping[str, str]]) -> OutputClass:
    found = {language: names[item.name] for language, names in translations.items() if item.name in names}
    return OutputClass(name=item.name, outputs=item.outputs, ancestors=item.ancestors, translations=found)


def _answer_bytes(head: OutputHead) -> int:
    """The size of the longest prediction in any language."""

    def size(names: Sequence[str], paths: Sequence[str | None]) -> int:
        scores = (
            ClassScore(class_name=name, score=0.123456, type_hierarchy=path) for name, path in zip(names, paths, strict=True)
        )
        return len(json.dumps([build_document(score) for score in scores], ensure_ascii=False).encode())

    return max(size(words.class_names, words.type_hierarchies) for words in (head.wording, *head.wordings.values()))


def _translation(text: Text, language: str, name: str, value: object) -> str:
    translated = _normal(value) if isinstance(value, str) else None
    fault = "is not a string; give a name" if translated is None else label_fault(translated)
    if translated is None or fault is not None:
        raise LabelError(f'{text.name}: {language}: the translation of "{shown_name(name)}" {fault}')
    return translated


def _lines(text: Text) -> list[str]:
    # Not `splitlines`, which also splits at characters that editors do not show as a line break.
    return [_normal(line) for line in _decoded(text).split("\n")]


def _decoded(text: Text) -> str:
    try:
        decoded = text.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{text.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if decoded.lstrip()[:9].casefold().startswith(("<!doctype", "<html")):
        raise LabelError(f"{text.name} is a web page; give the address of the file itself")
    return decoded


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _joined(faults: Sequence[str]) -> str:
    shown = "; ".join(faults[:_FAULTS_SHOWN])
    return f"{shown}; and {len(faults) - _FAULTS_SHOWN} more lines" if len(faults) > _FAULTS_SHOWN else shown
