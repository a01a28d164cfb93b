import importlib.util
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocelli_api.prediction import LANGUAGES
from ocelli_model.imagenet.label_set import (
    FOOD_TRANSLATIONS,
    NON_FOOD,
    TRANSLATIONS_FILE,
    LabelSet,
    load_imagenet,
    load_imagenet_food,
    path_text,
)
from tools.imagenet.multilingual import (
    align_versions,
    choose_usual,
    find_emoji,
    parse_class_list,
    parse_cldr_annotations,
    parse_multiwordnet_english,
    parse_multiwordnet_lemmas,
    parse_omw_tab,
    without_face,
)
from tools.imagenet.rejected_names import REJECTED_NAMES
from tools.imagenet.senses import SenseError, resolve_synsets
from tools.imagenet.wordnet import TOPS, Synset, WordNet

WORDNET = Path("/usr/share/wordnet")

needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
needs_wordnet = pytest.mark.skipif(not (WORDNET / "data.noun").is_file(), reason="needs Debian's wordnet-base")


def paths_by_name(labels: LabelSet) -> dict[str, tuple[str, ...]]:
    """The path from the root to each name, of class or ancestor."""
    return {name: tuple(path[: depth + 1]) for path in labels.paths for depth, name in enumerate(path)}


@pytest.fixture(scope="module")
def imagenet() -> LabelSet:
    return load_imagenet()


def make_wordnet(*rows: tuple[int, str, tuple[int, ...]]) -> WordNet:
    """Rows of offset, words with commas between them, and hypernyms. A word's meanings are in the order of the rows."""
    synsets, senses = {}, {}
    for offset, words, hypernyms in rows:
        lemmas = tuple(words.split(", "))
        synsets[offset] = Synset(
            offset=offset,
            lexicographer_file=TOPS,
            lemmas=lemmas,
            tag_counts=(0,) * len(lemmas),
            hypernyms=hypernyms,
            definition=f"definition of {offset}",
        )
        for lemma in lemmas:
            senses[lemma.casefold()] = (*senses.get(lemma.casefold(), ()), offset)
    return WordNet(synsets=synsets, senses=senses)


ANIMALS = make_wordnet(
    (1, "animal", ()),
    (2, "bird", (1,)),
    (3, "owl, hooter", (2,)),
    (4, "barn owl, Tyto alba", (3,)),
    (5, "bat", (1,)),
    (6, "tool", ()),
    (7, "bat, lumber", (6,)),
    (8, "taxonomic group", ()),
    (9, "Strigidae", (8,)),
)


# The data.


def test_labels_are_1000_names(imagenet: LabelSet) -> None:
    assert len(imagenet.class_names) == 1000


def test_labels_are_unique_even_without_capitals(imagenet: LabelSet) -> None:
    assert len({name.casefold() for name in imagenet.class_names}) == 1000


def test_every_path_ends_with_its_label(imagenet: LabelSet) -> None:
    assert [path[-1] for path in imagenet.paths] == list(imagenet.class_names)


def test_every_name_is_one_place_in_the_tree(imagenet: LabelSet) -> None:
    places = {path[: depth + 1] for path in imagenet.paths for depth in range(len(path))}

    assert [name for name, count in Counter(place[-1].casefold() for place in places).items() if count > 1] == []


def test_no_class_is_above_another(imagenet: LabelSet) -> None:
    ancestors = {name for path in imagenet.paths for name in path[:-1]}

    assert ancestors & set(imagenet.class_names) == set()


def test_no_name_is_empty_or_contains_a_slash_or_an_underscore(imagenet: LabelSet) -> None:
    names = [name for path in imagenet.paths for name in path]

    assert [name for name in names if not name.strip() or name != name.strip() or {"/", "_"} & set(name)] == []


def test_no_path_has_more_than_five_names(imagenet: LabelSet) -> None:
    assert max(len(path) for path in imagenet.paths) == 5


def test_nearly_every_class_has_an_ancestor(imagenet: LabelSet) -> None:
    assert [path[0] for path in imagenet.paths if len(path) == 1] == ["chain", "traffic light"]


def test_no_ancestor_is_a_scientific_term(imagenet: LabelSet) -> None:
    ancestors = {name for path in imagenet.paths for name in path[:-1]}

    assert (
        ancestors & {"entity", "object", "whole", "artifact", "organism", "chordate", "placental", "instrumentality"} == set()
    )


@pytest.mark.parametrize(
    "path",
    [
        "/animal/bird/owl/great grey owl",
        "/animal/bird/penguin/king penguin",
        "/animal/mammal/dog/terrier/Airedale",
        "/device/musical instrument/guitar/electric guitar",
        "/food/beverage/wine/red wine",
        "/furniture/chair/rocking chair",
        "/structure/bridge/suspension bridge",
        "/vehicle/car/sports car",
    ],
)
def test_hierarchy_uses_everyday_words(imagenet: LabelSet, path: str) -> None:
    assert path in [path_text(found) for found in imagenet.paths]


@pytest.mark.parametrize(
    ("index", "synset", "name"),
    [
        (0, "n01440764", "tench"),
        (15, "n01558993", "American robin"),
        (134, "n02012849", "crane bird"),
        (145, "n02056570", "king penguin"),
        (278, "n02119789", "kit fox"),
        (517, "n03126707", "crane"),
        (639, "n03710721", "tank suit"),
        (673, "n03793489", "computer mouse"),
        (834, "n04350905", "suit"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_output_means_the_synset_of_imagenet(imagenet: LabelSet, index: int, synset: str, name: str) -> None:
    assert (imagenet.synsets[index], imagenet.class_names[index]) == (synset, name)


def test_synsets_rise_strictly(imagenet: LabelSet) -> None:
    assert list(imagenet.synsets) == sorted(set(imagenet.synsets))
    assert len(imagenet.synsets) == 1000


def test_translations_are_of_the_ten_languages(imagenet: LabelSet) -> None:
    assert tuple(imagenet.translations) == LANGUAGES == tuple(sorted(LANGUAGES))


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_name_known_names_only(imagenet: LabelSet, language: str) -> None:
    assert imagenet.translations[language].keys() <= paths_by_name(imagenet).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_empty(imagenet: LabelSet, language: str) -> None:
    assert [name for name, text in imagenet.translations[language].items() if not text or text != text.strip()] == []


@pytest.mark.parametrize(
    ("language", "owl"),
    [
        ("ar", "بومة"),
        ("de", "Eule"),
        ("es", "búho"),
        ("fr", "chouette"),
        ("it", "gufo"),
        ("ja", "フクロウ"),
        ("ko", "부엉이"),
        ("pt-br", "coruja"),
        ("zh-cn", "猫头鹰"),
        ("zh-tw", "貓頭鷹"),
    ],
)
def test_every_language_has_a_word_for_the_owl(imagenet: LabelSet, language: str, owl: str) -> None:
    assert imagenet.translate("owl", language) == owl


@pytest.mark.parametrize(("name", "language"), [("gyromitra", "de"), ("owl", "en")])
def test_name_without_translation_is_english(imagenet: LabelSet, name: str, language: str) -> None:
    assert imagenet.translate(name, language) == name


def test_ancestor_has_its_own_path(imagenet: LabelSet) -> None:
    assert paths_by_name(imagenet)["owl"] == ("animal", "bird", "owl")


def test_rejected_names_are_of_the_hierarchy(imagenet: LabelSet) -> None:
    assert frozenset().union(*REJECTED_NAMES.values()) <= paths_by_name(imagenet).keys()


# Foods.


@pytest.fixture(scope="module")
def food() -> LabelSet:
    return load_imagenet_food()


def test_every_output_is_a_food_or_non_food(food: LabelSet) -> None:
    names = set(food.class_names)
    assert (len(food.class_names), len(names - {NON_FOOD})) == (1000, 45)
    assert names - {NON_FOOD} == {path[-1] for path in food.paths}


def test_every_food_is_once_below_food(food: LabelSet) -> None:
    places = {path[: depth + 1] for path in food.paths for depth in range(len(path))}
    assert {path[0] for path in food.paths} == {"food"}
    assert [name for name, count in Counter(place[-1].casefold() for place in places).items() if count > 1] == []


def test_foods_have_the_names_of_their_classes_and_ears_of_corn_are_corn(food: LabelSet, imagenet: LabelSet) -> None:
    pairs = zip(food.class_names, imagenet.class_names, strict=True)
    assert {(theirs, name) for name, theirs in pairs if name not in (NON_FOOD, theirs)} == {("ear", "corn")}


@pytest.mark.parametrize("name", ["guacamole", "pizza", "broccoli", "banana", "mushroom", "red wine", "espresso", "corn"])
def test_things_to_eat_or_drink_are_food(food: LabelSet, name: str) -> None:
    assert name in food.class_names


@pytest.mark.parametrize("name", ["menu", "plate", "cup", "hay", "acorn", "rose hip", "rapeseed", "agaric", "bolete", "hen"])
def test_inedible_and_risky_things_are_not_food(food: LabelSet, imagenet: LabelSet, name: str) -> None:
    assert food.class_names[imagenet.class_names.index(name)] == NON_FOOD


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_whether_there_is_food(food: LabelSet, language: str) -> None:
    assert set(FOOD_TRANSLATIONS[language]) == {"food", NON_FOOD}
    assert food.translate("banana", language) == food.translations[language]["banana"]
    assert food.translations[language].keys() <= {*paths_by_name(food), NON_FOOD}


def test_the_documentation_names_every_food(food: LabelSet) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "pretrained.md").read_text()
    (listed,) = re.findall(r"`food` knows: (.*?)\.", page, flags=re.DOTALL)
    names = {" ".join(name.split()) for name in listed.replace(" and ", ", ").split(",")}
    assert names == set(food.class_names) - {NON_FOOD}


@needs_torchvision
def test_labels_are_torchvisions_words_or_spell_them_out(imagenet: LabelSet) -> None:
    from torchvision.models import ResNet50_Weights

    categories = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    pairs = list(zip(categories, imagenet.class_names, strict=True))

    assert [(theirs, ours) for theirs, ours in pairs if theirs.casefold() not in ours.casefold() and ours not in theirs] == []


@needs_torchvision
@needs_wordnet
def test_generator_reproduces_the_data_of_the_repository(tmp_path: Path) -> None:
    from tools.imagenet import generate

    data = generate.DATA
    (tmp_path / TRANSLATIONS_FILE).write_bytes((data / TRANSLATIONS_FILE).read_bytes())

    generate.main(["--wordnet", str(WORDNET), "--output", str(tmp_path)])

    for path in tmp_path.iterdir():
        assert path.read_bytes() == (data / path.name).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 4


# The generator.


def test_order_shows_which_sense_of_a_word_is_meant() -> None:
    assert resolve_synsets(["bird", "bat", "tool"], ANIMALS) == (2, 5, 6)


def test_categories_out_of_order_are_refused() -> None:
    with pytest.raises(SenseError, match='"animal"'):
        resolve_synsets(["bird", "animal"], ANIMALS)


def test_omw_tab_gives_the_first_foreign_name() -> None:
    tab = "# Sample\tdeu\n00000003-n\tdeu:lemma\thooter\n00000003-n\tdeu:lemma\tEule\n00000003-n\tdeu:lemma\tKauz\n"

    assert parse_omw_tab(tab, ANIMALS) == {3: "Eule"}


@pytest.mark.parametrize(
    "line", ["00000003-v\tdeu:lemma\teulen", "00000003-n\tdeu:def\tein Vogel", "99999999-n\tdeu:lemma\tNichts"]
)
def test_omw_tab_of_another_kind_gives_no_names(line: str) -> None:
    assert parse_omw_tab(line, ANIMALS) == {}


def test_latin_name_is_not_a_translation() -> None:
    assert parse_omw_tab("00000003-n\tfra:lemma\tstrigidae\n", ANIMALS) == {}


def test_multiwordnet_rows_are_nouns_by_offset() -> None:
    sql = (
        'INSERT INTO x VALUES ("n#00000004","n","lechuza_com\'\'ún","N");\nINSERT INTO x VALUES ("v#00000004","v","ir","N");\n'
        'INSERT INTO x VALUES ("n#00000005","n","GAP!","N");\n'
    )

    assert parse_multiwordnet_lemmas(sql) == {4: ["lechuza com'ún"]}


def test_older_version_is_aligned_by_definition() -> None:
    older = parse_multiwordnet_english(
        "INSERT INTO x VALUES ('n#00000044',' barn_owl ',NULL,'definition of 4; with an example');\n"
        "INSERT INTO x VALUES ('n#00000045',' barn_swallow ',NULL,'definition of 4');"
    )

    assert align_versions([4, 5], older, ANIMALS) == {4: 44}


def test_usual_name_is_that_of_the_kinds() -> None:
    names = {3: ["mochuelo", "lechuza"], 4: ["lechuza común"]}

    assert choose_usual(names, [3], ANIMALS, lambda name: 0.0) == {3: "lechuza"}


def test_usual_name_is_the_frequent_one() -> None:
    frequencies: Mapping[str, float] = {"tahona": 2.1, "panadería": 3.6}

    assert choose_usual({6: list(frequencies)}, [6], ANIMALS, frequencies.__getitem__) == {6: "panadería"}


def make_annotations(**annotations: tuple[str, list[str]]) -> str:
    return json.dumps(
        {"annotations": {"annotations": {key: {"tts": [name], "default": words} for key, (name, words) in annotations.items()}}}
    )


def test_emoji_has_the_sense_of_its_keywords() -> None:
    english = parse_cldr_annotations(make_annotations(x=("bat", ["animal", "vampire"]), y=("owl", ["wise"])))

    assert find_emoji([3, 5, 7], english, ANIMALS) == {3: "y", 5: "x"}


def test_emoji_without_specific_keyword_has_no_sense() -> None:
    english = parse_cldr_annotations(make_annotations(x=("bat", ["vampire"])))

    assert find_emoji([5, 7], english, ANIMALS) == {}


@pytest.mark.parametrize(("language", "name"), [("ja", "キツネの顔"), ("ko", "여우 얼굴"), ("pt-br", "rosto de raposa")])
def test_animal_is_not_called_a_face(language: str, name: str) -> None:
    assert without_face(name, language) in {"キツネ", "여우", "raposa"}


def make_class_list(*names: str) -> str:
    return json.dumps({"imagenet1k": names})


def test_class_list_gives_names_without_explanations() -> None:
    names = parse_class_list(make_class_list("（夜行的）猫头鹰；鸮"), ["owl"], [3], ANIMALS, of_english_words=True)

    assert names == {3: "猫头鹰"}


@pytest.mark.parametrize(("of_english_words", "expected"), [(True, {}), (False, {5: "コウモリ"})])
def test_class_list_of_english_words_counts_for_words_of_one_meaning(of_english_words: bool, expected: dict[int, str]) -> None:
    assert parse_class_list(make_class_list("コウモリ"), ["bat"], [5], ANIMALS, of_english_words=of_english_words) == expected


def test_class_list_skips_names_of_two_classes() -> None:
    names = parse_class_list(make_class_list("鳥", "鳥"), ["bird", "owl"], [2, 3], ANIMALS, of_english_words=False)

    assert names == {}
