"""Corrections of single images: which class an image gets, and what is reported about them."""

from __future__ import annotations

from typing import Any

import pytest

from ocelli_api.classifier import Correction, Source
from ocelli_storage.archives import EntryFault
from ocelli_training.corrections import CorrectionCounts, count_corrections
from ocelli_training.dataset import (
    Dataset,
    DatasetError,
    ExampleSet,
    FileReading,
    SourceReading,
    build_dataset,
    check_dataset,
)
from ocelli_training.own_test_set import build_test_set


def make_set(
    class_name: str | None, digests: str, *, is_test: bool = False, **fields: Any
) -> tuple[ExampleSet, tuple[SourceReading, ...]]:
    """A set with one source that has an image for each letter."""
    source = Source(url=f"https://data.example/{class_name}.zip", **fields)
    files = tuple(FileReading(name=f"{digest}.jpg", digest=digest) for digest in digests)
    reading = SourceReading(source=source, files=(*files, FileReading(name="note.txt", fault=EntryFault.NOT_AN_IMAGE)))
    return ExampleSet(class_name=class_name, sources=(source,), is_test=is_test), (reading,)


def build(*sets: tuple[ExampleSet, tuple[SourceReading, ...]], **corrections: str) -> Dataset:
    return build_dataset([item for item, _ in sets], [readings for _, readings in sets], make_corrections(**corrections))


def count(*sets: tuple[ExampleSet, tuple[SourceReading, ...]], **corrections: str) -> CorrectionCounts:
    return count_corrections(make_corrections(**corrections), [item for item, _ in sets], [readings for _, readings in sets])


def make_corrections(**corrections: str) -> list[Correction]:
    return [Correction(image=image, class_name=class_name) for image, class_name in corrections.items()]


def owned(dataset: Dataset) -> dict[str | None, str]:
    letters: dict[str | None, str] = {report.example_set.class_name: "" for report in dataset.reports}
    for example in dataset.examples:
        letters[dataset.reports[example.set_index].example_set.class_name] += example.digest
    return letters


def test_a_relabelled_image_belongs_to_the_class_of_its_correction() -> None:
    assert owned(build(make_set("cat", "uvw"), make_set("dog", "xyz"), v="dog")) == {"cat": "uw", "dog": "vxyz"}


def test_a_dropped_image_belongs_to_no_class() -> None:
    assert owned(build(make_set("cat", "uvw"), make_set("dog", "xyz"), v="")) == {"cat": "uw", "dog": "xyz"}


def test_a_dropped_image_is_dropped_from_every_set() -> None:
    assert owned(build(make_set("cat", "uv"), make_set("dog", "vx"), make_set(None, "v"), v="")) == {
        "cat": "u",
        "dog": "x",
        None: "",
    }


def test_a_negative_example_can_become_an_example() -> None:
    assert owned(build(make_set("cat", "u"), make_set(None, "xy"), x="cat")) == {"cat": "ux", None: "y"}


def test_a_correction_wins_over_a_later_round() -> None:
    assert owned(build(make_set("cat", "u"), make_set("dog", "ux", round=7), u="cat")) == {"cat": "u", "dog": "x"}


def test_the_sets_count_images_that_corrections_gave_and_took() -> None:
    cat, dog = build(make_set("cat", "uvw"), make_set("dog", "xyz"), v="dog", w="").reports
    assert (cat.usable, cat.distinct, cat.files) == (1, 1, 4)
    assert (dog.usable, dog.distinct, dog.files) == (4, 4, 4)


def test_the_report_says_where_a_relabelled_and_a_dropped_image_went() -> None:
    cat, _ = build(make_set("cat", "uvw"), make_set("dog", "xyz"), v="dog", w="").reports
    assert [str(file) for file in cat.given_away] == ['v.jpg (spec.corrections moves it to class "dog")']
    assert str(cat.skipped[0]) == "w.jpg (dropped by spec.corrections)"


def test_a_relabelled_image_keeps_its_file_its_round_and_its_customer() -> None:
    dataset = build(make_set("cat", "uv", round=3, customer="c" * 32), make_set("dog", "x"), v="dog")
    example = next(example for example in dataset.examples if example.digest == "v")
    assert (example.name, example.round, example.customer) == ("v.jpg", 3, "c" * 32)


def test_a_class_whose_images_were_all_moved_is_refused_with_the_reason() -> None:
    sets = make_set("cat", "uv"), make_set("dog", "efghijklmn")
    dataset = build(*sets, u="dog", v="")
    with pytest.raises(DatasetError) as caught:
        check_dataset("team-a/dogs", dataset, [readings for _, readings in sets])
    assert 'class "cat" has 0 usable examples of 3 files' in str(caught.value)
    assert "v.jpg (dropped by spec.corrections)" in str(caught.value)


def test_a_correction_applies_to_test_images() -> None:
    learned = build(make_set("cat", "u"), make_set("dog", "x"))
    sets = make_set("cat", "mn", is_test=True), make_set("dog", "op", is_test=True)
    built = build_test_set(
        [item for item, _ in sets], [readings for _, readings in sets], learned, make_corrections(m="dog", o="")
    )
    assert built is not None
    assert [(example.digest, example.set_index) for example in built.examples] == [("n", 0), ("m", 1), ("p", 1)]


def test_a_test_image_moved_to_a_class_without_test_images_is_left_out() -> None:
    learned = build(make_set("cat", "u"), make_set("dog", "x"))
    sets = [make_set("cat", "mn", is_test=True)]
    built = build_test_set([item for item, _ in sets], [readings for _, readings in sets], learned, make_corrections(m="dog"))
    assert built is not None
    assert [example.digest for example in built.examples] == ["n"]


def test_corrections_are_counted_by_their_effect() -> None:
    counts = count(make_set("cat", "uvw"), make_set("dog", "xyz"), u="dog", v="", w="cat", q="dog")
    assert counts == CorrectionCounts(relabelled=1, dropped=1, unchanged=1, unknown=("q",))


def test_the_message_names_images_that_no_source_has() -> None:
    counts = count(make_set("cat", "u"), make_set("dog", "x"), **{"f" * 64: ""})
    assert counts.describe_unknown() == "; no source has 1 of the images that spec.corrections names (ffffffffffff…)"


def test_nothing_is_said_where_every_image_was_found() -> None:
    assert count(make_set("cat", "u"), make_set("dog", "x"), u="dog").describe_unknown() == ""
