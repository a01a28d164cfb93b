"""Which image belongs where, and whether the examples suffice: tables, no files."""

from __future__ import annotations

import itertools

import pytest

from ocelli_api.classifier import ClassifierSpec, ExampleClass, Source
from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import EntryFault
from ocelli_training.dataset import (
    Dataset,
    DatasetError,
    ExampleSet,
    FileReading,
    SourceReading,
    build_dataset,
    check_dataset,
    example_sets,
)

NEGATIVES = None
NUMBERS = itertools.count()


def make_set(class_name: str | None, *readings: SourceReading) -> tuple[ExampleSet, tuple[SourceReading, ...]]:
    return ExampleSet(class_name=class_name, sources=tuple(reading.source for reading in readings)), readings


def make_reading(
    digests: str = "",
    *,
    count: int = 0,
    faults: int = 0,
    fault: EntryFault | ImageFault = EntryFault.NOT_AN_IMAGE,
    round_number: int = 1,
    upload: bool = False,
) -> SourceReading:
    """A source with an image for each letter, more images that no other source has, and files that cannot be used."""
    number = next(NUMBERS)
    place = {"upload": f"{number:064x}"} if upload else {"url": f"https://data.example/{number}.zip"}
    source = Source(**place, round=round_number)
    images = [*digests, *(f"own-{next(NUMBERS)}" for _ in range(count))]
    files = [FileReading(name=f"{index}.jpg", digest=digest) for index, digest in enumerate(images)]
    files += [FileReading(name=f"{index}.txt", fault=fault) for index in range(faults)]
    return SourceReading(source=source, files=tuple(files))


def build(*sets: tuple[ExampleSet, tuple[SourceReading, ...]]) -> Dataset:
    return build_dataset([item for item, _ in sets], [readings for _, readings in sets])


def check(*sets: tuple[ExampleSet, tuple[SourceReading, ...]]) -> None:
    check_dataset("team-a/dogs", build(*sets), [readings for _, readings in sets])


def refusal(*sets: tuple[ExampleSet, tuple[SourceReading, ...]]) -> str:
    with pytest.raises(DatasetError) as caught:
        check(*sets)
    return str(caught.value)


def owned(dataset: Dataset) -> list[str]:
    """The letters of the images that each set has."""
    letters = ["" for _ in dataset.reports]
    for example in dataset.examples:
        letters[example.set_index] += example.digest
    return letters


def test_an_image_in_two_classes_belongs_to_the_later_class() -> None:
    assert owned(build(make_set("a", make_reading("xy")), make_set("b", make_reading("yz")))) == ["x", "yz"]


def test_an_image_in_two_classes_belongs_to_the_later_round_first() -> None:
    assert owned(build(make_set("a", make_reading("xy", round_number=2)), make_set("b", make_reading("yz")))) == ["xy", "z"]


def test_an_image_belongs_to_a_class_rather_than_to_the_negatives() -> None:
    assert owned(build(make_set("a", make_reading("xy")), make_set(NEGATIVES, make_reading("yz")))) == ["xy", "z"]


def test_an_image_belongs_to_negatives_of_a_later_round() -> None:
    assert owned(build(make_set("a", make_reading("xy")), make_set(NEGATIVES, make_reading("yz", round_number=2)))) == [
        "x",
        "yz",
    ]


def test_the_latest_of_several_rounds_of_one_class_counts() -> None:
    sets = (
        make_set("a", make_reading("x"), make_reading("x", round_number=3)),
        make_set("b", make_reading("x", round_number=2)),
    )
    assert owned(build(*sets)) == ["x", ""]


def test_files_of_the_same_bytes_are_one_image_and_counted_as_duplicates() -> None:
    report = build(make_set("a", make_reading("xxy"), make_reading("x")), make_set("b", make_reading("z"))).reports[0]
    assert (report.files, report.usable, report.distinct, report.duplicates) == (4, 4, 2, 2)


def test_an_image_is_as_old_as_the_first_round_of_its_class_that_contained_it() -> None:
    sets = (
        make_set("a", make_reading("xy", round_number=3), make_reading("x", round_number=2), make_reading("y", round_number=4)),
        make_set("b", make_reading("xz")),
    )

    assert {example.digest: example.round for example in build(*sets).examples} == {"x": 2, "y": 3, "z": 1}


def test_images_of_another_set_are_named_with_that_set() -> None:
    report = build(make_set("a", make_reading("x")), make_set("b", make_reading("x"))).reports[0]
    assert [str(file) for file in report.given_away] == ['0.jpg (belongs to class "b", which has the same image)']


def test_the_order_of_sources_within_a_class_changes_nothing() -> None:
    one, other, rest = make_reading("xz"), make_reading("y"), make_set("b", make_reading("q"))
    assert owned(build(make_set("a", one, other), rest)) == owned(build(make_set("a", other, one), rest))


def test_negatives_come_after_the_classes() -> None:
    spec = ClassifierSpec(
        classes=(ExampleClass(name="a", examples=(Source(url="https://a"),)),), negative_examples=(Source(url="https://n"),)
    )
    assert [item.class_name for item in example_sets(spec)] == ["a", None]


def test_ten_usable_examples_are_enough() -> None:
    check(make_set("a", make_reading(count=10)), make_set("b", make_reading(count=4), make_reading(count=6)))


def test_too_few_examples_are_refused_with_object_fact_remedy_and_skipped_files() -> None:
    text = refusal(make_set("husky", make_reading(count=3, faults=9)), make_set("b", make_reading(count=10)))
    assert text.startswith(
        'Classifier team-a/dogs: class "husky" has 3 usable examples of 12 files; add at least 7. Skipped: '
        "0.txt (not a JPEG or PNG image), 1.txt (not a JPEG or PNG image)"
    )
    assert text.endswith("and 4 more")


def test_too_few_negatives_are_refused() -> None:
    text = refusal(make_set("a", make_reading(count=10)), make_set(NEGATIVES, make_reading(count=9)))
    assert "the negative examples have 9 usable examples of 9 files; add at least 1" in text


def test_an_image_of_another_set_does_not_count() -> None:
    text = refusal(make_set("a", make_reading("x", count=9)), make_set("b", make_reading("x", count=9)))
    assert 'class "a" has 9 usable examples of 10 files; add at least 1. Skipped: 0.jpg (belongs to class "b"' in text


def test_a_class_whose_images_are_all_in_another_is_refused() -> None:
    both = "abcdefghijkl"
    fact = (
        'class "a" has 0 usable examples of 12 files: all its images are also in class "b"; check whether both have the same '
        "zip, and give each at least 10 images of its own"
    )
    assert fact in refusal(make_set("a", make_reading(both)), make_set("b", make_reading(both)))


def test_repeats_of_an_image_count_as_usable_files() -> None:
    check(make_set("a", make_reading("xxxxxyyyyy")), make_set("b", make_reading(count=10)))


def test_ten_copies_of_one_image_are_refused() -> None:
    text = refusal(make_set("a", make_reading("x" * 10)), make_set("b", make_reading(count=10)))
    assert 'class "a" has 10 usable examples, and all are the same image; add at least 1 different one' in text


@pytest.mark.parametrize("class_name", ["a", NEGATIVES], ids=["class", "negatives"])
def test_images_of_a_set_in_several_small_zips_count_together(class_name: str | None) -> None:
    sets = [
        make_set(class_name, *(make_reading(count=9, upload=True) for _ in range(3))),
        make_set("b", make_reading(count=8, upload=True), make_reading(count=2, upload=True)),
    ]
    check(*(sets if class_name is not None else reversed(sets)))


def test_small_zips_with_too_few_images_together_are_refused_with_their_sum() -> None:
    text = refusal(
        make_set("a", make_reading(count=5, upload=True), make_reading(count=4, upload=True)),
        make_set("b", make_reading(count=10)),
    )
    assert 'class "a" has 9 usable examples of 9 files; add at least 1' in text


@pytest.mark.parametrize("round_number", [1, 2])
def test_a_small_zip_is_added_to_a_class_that_has_enough(round_number: int) -> None:
    added = make_reading(count=3, faults=9, upload=True, round_number=round_number)
    check(make_set("a", make_reading(count=20, upload=True), added), make_set("b", make_reading(count=10)))


def test_a_zip_of_ten_images_of_which_fewer_can_be_decoded_is_refused() -> None:
    bad = make_reading(count=8, faults=2, fault=ImageFault.CORRUPT, upload=True)
    text = refusal(make_set("a", make_reading(count=20, upload=True), bad), make_set("b", make_reading(count=10)))
    assert "has 8 usable examples of 10 files; add at least 2 to that zip. Skipped: 0.txt (cannot be decoded)" in text


@pytest.mark.parametrize("class_name", ["a", NEGATIVES], ids=["class", "negatives"])
def test_a_zip_without_usable_images_is_ignored_once_its_class_was_uploaded_again(class_name: str | None) -> None:
    bad, good = make_reading(faults=12, upload=True), make_reading(count=15, upload=True, round_number=2)
    sets = [make_set(class_name, bad, good), make_set("b", make_reading(count=12, upload=True))]
    check(*(sets if class_name is not None else reversed(sets)))


@pytest.mark.parametrize("order", [1, -1])
def test_zips_with_too_few_usable_images_count_together(order: int) -> None:
    zips = [
        make_reading(count=6, faults=6, upload=True),
        make_reading(faults=12, upload=True, round_number=2),
        make_reading(count=4, faults=7, upload=True, round_number=3),
    ]
    check(make_set("a", *zips[::order]), make_set("b", make_reading(count=10)))


def test_zips_with_too_few_images_together_are_refused() -> None:
    text = refusal(
        make_set(
            "a", make_reading(count=6, faults=6, upload=True), make_reading(count=3, faults=9, upload=True, round_number=2)
        ),
        make_set("b", make_reading(count=10)),
    )
    assert 'class "a" has 9 usable examples of 24 files; add at least 1' in text


def test_a_zip_of_the_latest_round_of_which_fewer_than_ten_can_be_decoded_is_refused() -> None:
    bad = make_reading(count=8, faults=2, fault=ImageFault.CORRUPT, upload=True, round_number=2)
    text = refusal(make_set("a", make_reading(count=20, upload=True), bad), make_set("b", make_reading(count=10)))
    assert "has 8 usable examples of 10 files; add at least 2 to that zip. Skipped: 0.txt" in text


def test_a_zip_of_an_earlier_round_with_too_few_usable_images_is_accepted() -> None:
    zips = [
        make_reading(count=20, upload=True),
        make_reading(count=8, faults=2, fault=ImageFault.CORRUPT, upload=True, round_number=2),
        make_reading(count=11, upload=True, round_number=3),
    ]
    check(make_set("a", *zips), make_set("b", make_reading(count=10)))


def test_an_upload_whose_images_moved_to_another_class_is_not_too_small() -> None:
    shared = "abc"
    check(
        make_set("a", make_reading(count=20), make_reading(shared, count=7, upload=True)),
        make_set("b", make_reading(shared, count=9)),
    )


def test_only_the_first_faults_are_listed() -> None:
    text = refusal(*(make_set(f"class {number}", make_reading(count=1)) for number in range(7)))
    assert 'class "class 2"' in text
    assert 'class "class 3"' not in text
    assert text.endswith("and 4 more")


def test_one_class_without_negatives_is_refused() -> None:
    assert "there is only one class; add another class" in refusal(make_set("a", make_reading(count=20)))


@pytest.mark.parametrize("fault", [*EntryFault, ImageFault.CORRUPT, ImageFault.TOO_SMALL, ImageFault.TOO_MANY_PIXELS])
def test_every_fault_of_a_file_has_a_text(fault: EntryFault | ImageFault) -> None:
    source = Source(url="https://data.example/a.zip")
    reading = SourceReading(source=source, files=(FileReading(name="a.jpg", fault=fault),))
    report = build(make_set("a", reading), make_set("b", make_reading("x"))).reports[0]
    assert report.skipped[0].reason not in ("", str(fault))
