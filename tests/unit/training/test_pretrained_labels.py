"""Labels, hierarchies and translations: parsing, building a head, and the messages about faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ocelli_api.classifier import Activation
from ocelli_model.imagenet.label_set import load_imagenet, path_text
from ocelli_model.output_head import OutputHead
from ocelli_training.pretrained_labels import (
    CLASSES_LIMIT,
    LabelError,
    Labels,
    Meaning,
    Text,
    build_head,
    count_unused,
    packaged_meaning,
    parse_hierarchy,
    parse_labels,
    parse_translations,
)

LABELS = "barn owl\ncar\neagle owl\nbarn owl\n"
PATHS = "/animal/bird/owl/barn owl\n/animal/bird/owl/eagle owl\n"


def text(content: str | bytes, name: str = "labels file:///labels.txt") -> Text:
    return Text(name=name, data=content if isinstance(content, bytes) else content.encode())


def make_head(
    labels: str = LABELS, hierarchy: str | None = None, translations: Any = None, *, outputs: int = 4, **fields: Any
) -> OutputHead:
    meaning = Meaning(
        labels=parse_labels(text(labels)),
        hierarchy=None if hierarchy is None else parse_hierarchy(text(hierarchy, "hierarchy h.txt")),
        translations=None
        if translations is None
        else parse_translations(text(json.dumps(translations), "translations t.json")),
        **fields,
    )
    return build_head(meaning, outputs)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(LabelError) as caught:
        make()
    return str(caught.value)


def outputs_by_name(head: OutputHead) -> dict[str, tuple[int, ...]]:
    return {item.name: item.outputs for item in head.classes}


def test_lines_name_outputs_and_equal_lines_are_one_class() -> None:
    assert outputs_by_name(make_head()) == {"barn owl": (0, 3), "car": (1,), "eagle owl": (2,)}


@pytest.mark.parametrize(
    "labels", ["a\nb", "a\r\nb\r\n", "\ufeffa\nb\n\n\n", " a \n\tb\n"], ids=["no end", "Windows", "BOM and empty end", "blanks"]
)
def test_files_of_any_editor_are_read_in_the_same_way(labels: str) -> None:
    assert parse_labels(text(labels)).names == ("a", "b")


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert parse_labels(text("Eisb\u0061\u0308r")).names == ("Eisb\u00e4r",)


def test_labels_have_the_apostrophes_and_hyphens_of_published_networks() -> None:
    names = ("carpenter's kit", "jack-o'-lantern", "black-and-tan coonhound", "AT&T [logo]")
    assert parse_labels(text("\n".join(names))).names == names


def test_ancestors_stand_for_all_outputs_below_them() -> None:
    found = outputs_by_name(make_head(hierarchy=PATHS))
    assert {name: found[name] for name in ("animal", "bird", "owl")} == dict.fromkeys(("animal", "bird", "owl"), (0, 2, 3))


def test_leaves_come_before_ancestors() -> None:
    assert make_head(hierarchy=PATHS).class_names == ("barn owl", "car", "eagle owl", "animal", "bird", "owl")


def test_only_leaves_have_a_path() -> None:
    paths = make_head(hierarchy=PATHS).wording.type_hierarchies
    assert paths == ("/animal/bird/owl/barn owl", None, "/animal/bird/owl/eagle owl", None, None, None)


def test_a_label_above_others_includes_them_and_has_no_path() -> None:
    head = make_head("owl\nbarn owl", "/bird/owl\n/bird/owl/barn owl", outputs=2)
    assert outputs_by_name(head) == {"owl": (0, 1), "barn owl": (1,), "bird": (0, 1)}
    assert head.wording.type_hierarchies == (None, "/bird/owl/barn owl", None)


def test_a_path_may_be_a_lone_label() -> None:
    assert make_head(hierarchy="/car").wording.type_hierarchies == (None, "/car", None)


def test_labels_ancestors_and_otherwise_are_translated() -> None:
    german = {"barn owl": "Schleiereule", "owl": "Eule", "nothing": "nichts"}
    head = make_head(hierarchy=PATHS, translations={"DE": german}, otherwise="nothing")
    assert head.wordings["de"].class_names == ("Schleiereule", "car", "eagle owl", "animal", "bird", "Eule", "nichts")


def test_unused_translations_are_counted() -> None:
    translations = parse_translations(text('{"de": {"barn owl": "Schleiereule", "dodo": "Dodo"}, "fr": {"dodo": "dodo"}}'))
    meaning = Meaning(labels=parse_labels(text(LABELS)), translations=translations)
    assert count_unused(meaning, build_head(meaning, 4)) == 2


def test_the_packaged_imagenet_labels_pass() -> None:
    label_set = load_imagenet()
    labels, hierarchy, translations = packaged_meaning(label_set, "ImageNet")
    head = build_head(Meaning(labels=labels, hierarchy=hierarchy, translations=translations), 1000)
    assert head.class_names[:1000] == tuple(label_set.class_names)
    assert head.wording.type_hierarchies[:1000] == tuple(path_text(path) for path in label_set.paths)
    assert set(head.wordings) == set(label_set.translations)


class TestLabelsThatAreRefused:
    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            ("", "is empty; write one line with a name for each output"),
            ("\n\n", "is empty"),
            ("a\n\nb", "line 2 is empty"),
            ("a\nb/c", "line 2 contains '/'"),
            ("a\n" + "x" * 129, "line 2 has 129 characters; at most 128"),
            ("a\nb\x07", "line 2 contains the control character U+0007"),
            (b"\xff\xfea\x00", "is not UTF-8 text (byte 0); save it as UTF-8"),
            ("<!DOCTYPE html>\n<html>", "is a web page; give the address of the file itself"),
        ],
    )
    def test_a_text_that_is_not_a_list_of_names(self, content: str | bytes, fact: str) -> None:
        message = refusal(lambda: parse_labels(text(content)))
        assert message.startswith("labels file:///labels.txt")
        assert fact in message

    def test_many_faults_are_counted(self) -> None:
        assert refusal(lambda: parse_labels(text("/\n" * 9))).endswith("; and 6 more lines")

    @pytest.mark.parametrize(
        ("outputs", "fact"), [(5, "has 4 lines, the network has 5 outputs"), (1, "has 4 lines, the network has 1 output;")]
    )
    def test_another_number_than_the_network_has_outputs(self, outputs: int, fact: str) -> None:
        assert fact in refusal(lambda: make_head(outputs=outputs))

    @pytest.mark.parametrize("other", ["Barn Owl", "\uff42arn owl"])
    def test_names_that_differ_only_in_spelling(self, other: str) -> None:
        message = refusal(lambda: make_head(f"barn owl\n{other}", outputs=2))
        assert f'"{other}" and "barn owl" differ only in spelling' in message

    def test_more_classes_than_an_answer_can_have(self) -> None:
        names = tuple(str(number) for number in range(CLASSES_LIMIT + 1))
        meaning = Meaning(labels=Labels(source="labels x", names=names))
        assert "there are 25,001 classes; at most 25,000" in refusal(lambda: build_head(meaning, len(names)))

    def test_names_too_long_for_an_answer(self) -> None:
        names = tuple(f"{number}{'長' * 100}" for number in range(10_000))
        meaning = Meaning(labels=Labels(source="labels x", names=names))
        assert "at most 3 MB are allowed" in refusal(lambda: build_head(meaning, len(names)))

    @pytest.mark.parametrize("activation", list(Activation))
    def test_an_otherwise_that_is_a_class_already(self, activation: Activation) -> None:
        message = refusal(lambda: make_head(hierarchy=PATHS, otherwise="bird", activation=activation))
        assert message == 'otherwise: "bird" is already a class of the network; choose another name, or remove it'


class TestHierarchiesThatAreRefused:
    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            ("", "has no paths"),
            ("animal/owl", "line 1 does not begin with /"),
            ("/animal//owl", "line 1, name 2 is empty"),
            ("/animal/owl/", "line 1, name 3 is empty"),
        ],
    )
    def test_a_text_that_is_not_a_list_of_paths(self, content: str, fact: str) -> None:
        assert fact in refusal(lambda: parse_hierarchy(text(content, "hierarchy h.txt")))

    def test_a_path_that_does_not_end_in_a_label(self) -> None:
        message = refusal(lambda: make_head(hierarchy="/animal/dodo"))
        assert message.startswith(
            'hierarchy h.txt: /animal/dodo ends in "dodo", which is not a label of labels file:///labels.txt'
        )

    @pytest.mark.parametrize(
        ("hierarchy", "fact"),
        [
            ("/animal/bird/barn owl\n/pet/bird/eagle owl", '"bird" is below "animal" and below "pet"'),
            ("/bird/barn owl\n/animal/bird/eagle owl", '"bird" is at the root and below "animal"'),
            ("/animal/barn owl\n/bird/barn owl", '"barn owl" is below "animal" and below "bird"'),
            ("/a/b/a/car", '"a" is at the root and below "b"'),
            ("/a/a/car", '"a" is at the root and below "a"'),
        ],
    )
    def test_a_name_in_two_places(self, hierarchy: str, fact: str) -> None:
        assert fact in refusal(lambda: make_head(hierarchy=hierarchy))

    def test_an_ancestor_that_is_a_label_in_another_spelling(self) -> None:
        assert '"Car" and "car" of labels' in refusal(lambda: make_head(hierarchy="/Car/barn owl"))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not a JSON object; give an object such as"),
        ('{"xx": {}}', "language 'xx' is not supported; use one of ar, de, es, fr, it, ja, ko, pt-br, zh-cn, zh-tw"),
        ('{"en": {}}', "language 'en' is not supported"),
        ('{"de": []}', "de is not an object of names"),
        ('{"de": {"owl": 3}}', 'de: the translation of "owl" is not a string'),
        ('{"de": {"owl": ""}}', 'de: the translation of "owl" is empty'),
        ('{"de": {"owl": "Eule/Kauz"}}', "contains '/'"),
    ],
)
def test_invalid_translations_are_refused(content: str, fact: str) -> None:
    message = refusal(lambda: parse_translations(text(content, "translations t.json")))
    assert message.startswith("translations t.json")
    assert fact in message
