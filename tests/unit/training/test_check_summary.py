"""What a check says in the condition: everything that is wrong, or what was found."""

from __future__ import annotations

import numpy as np

from ocelli_training.check_summary import MESSAGE_LIMIT, describe_faults, describe_findings
from ocelli_training.corrections import CorrectionCounts
from ocelli_training.data_report import DataReport
from ocelli_training.dataset import Dataset, Example, ExampleSet, SetReport, SkippedFile
from ocelli_training.label_errors import LabelErrors, Suspect
from ocelli_training.suspicion import Suspicion

TEXT = SkippedFile(source="s", name="notes.txt", reason="not a JPEG or PNG image")
NO_CORRECTIONS = CorrectionCounts()
TWICE = SkippedFile(source="s", name="1.png", reason='belongs to class "dog"', owner='class "dog"')
MOVED = SkippedFile(source="s", name="2.png", reason='spec.corrections moves it to class "dog"')
DAMAGED = SkippedFile(source="s", name="x.png", reason="cannot be decoded")


def make_report(
    *,
    groups: list[int] | None = None,
    suspicion: Suspicion | None = None,
    corrections: CorrectionCounts = NO_CORRECTIONS,
    **fields: object,
) -> DataReport:
    """Two cats, a dog and a negative example."""
    names = ["cat", "dog", None]
    sets = [ExampleSet(class_name=name, sources=()) for name in names]
    counts = [2, 1, 1]
    values = {"usable": 2, "skipped": (), "given_away": (), **fields}
    reports = tuple(
        SetReport(
            example_set=item, files=2, distinct=count, **(values if index == 0 else {**values, **_PLAIN, "usable": count})
        )  # type: ignore[arg-type]
        for index, (item, count) in enumerate(zip(sets, counts, strict=True))
    )
    examples = tuple(
        Example(digest=str(row), set_index=index, name=f"{row}.png", source="s", sides=(100 + row, 300))
        for row, index in enumerate([0, 0, 1, 2])
    )
    dataset = Dataset(class_names=("cat", "dog"), examples=examples, reports=reports)
    rows = np.array(groups or [0, 1, 2, 3], dtype=np.intp)
    return DataReport(dataset=dataset, groups=rows, suspicion=suspicion, corrections=corrections, input_side_pixels=102)


_PLAIN: dict[str, object] = {"skipped": (), "given_away": ()}


def test_nothing_wrong_is_no_fault() -> None:
    assert describe_faults("team-a/dogs", []) is None


def test_one_fault_is_said_alone() -> None:
    assert describe_faults("team-a/dogs", ['class "cat" has 3']) == 'Classifier team-a/dogs: class "cat" has 3'


def test_every_fault_is_said_with_their_number() -> None:
    faults = [f"class {number} has 3 usable examples of 4 files; add at least 7" for number in range(30)]
    text = describe_faults("team-a/dogs", faults)
    assert text is not None
    assert text.startswith("Classifier team-a/dogs: 30 faults: class 0 has")
    assert [fault for fault in faults if fault not in text] == []


def test_faults_that_do_not_fit_are_counted() -> None:
    text = describe_faults("team-a/dogs", [f"{number} " + "x" * 500 for number in range(40)])
    assert text is not None
    assert len(text) <= MESSAGE_LIMIT + 60
    assert text.endswith("| and 34 more: see the report of the check")


def test_examples_are_counted_for_each_class() -> None:
    text = describe_findings(make_report(), "tenants/x/report.html")
    assert text.startswith('every source was read: 4 different images ("cat" 2, "dog" 1, negative examples 1); ')
    assert text.endswith("; report: tenants/x/report.html")


def test_clean_data_is_described_by_its_sizes_alone() -> None:
    suspicion = Suspicion(label_errors=LabelErrors(estimated=0, suspects=()), outliers=())
    _, *found, _ = describe_findings(make_report(suspicion=suspicion), "page").split("; ")
    assert found == ["shorter sides: 100 to 103 pixels, 2 images smaller than the network's 102"]


def test_skipped_files_are_counted_by_reason() -> None:
    text = describe_findings(make_report(skipped=(TEXT, DAMAGED, TEXT)), "page")
    assert "skipped files: 3 (2 not a JPEG or PNG image, 1 cannot be decoded)" in text


def test_duplicates_are_told_apart() -> None:
    text = describe_findings(make_report(usable=5, given_away=(TWICE, MOVED), groups=[0, 0, 0, 3]), "page")
    assert "exact duplicates within a class: 3; files that another class has too: 1" in text
    assert "near duplicates: 2, 1 of them of an image in another class" in text


def test_corrections_are_counted_and_those_without_an_image_are_named() -> None:
    corrections = CorrectionCounts(relabelled=2, dropped=1, unknown=("f" * 64,))
    text = describe_findings(make_report(corrections=corrections), "page")
    assert "spec.corrections: 2 images in another class, 1 dropped" in text
    assert f"no source has 1 of the images that spec.corrections names ({'f' * 12}…)" in text


def test_suspicious_images_are_counted() -> None:
    suspect = Suspect(row=0, suggested=1, given_probability=0.1, suggested_probability=0.9)
    suspicion = Suspicion(label_errors=LabelErrors(estimated=1, suspects=(suspect, suspect)), outliers=[2])
    text = describe_findings(make_report(suspicion=suspicion), "page")
    assert "images that may have the wrong class: 2, probably about 1 have" in text
    assert "images unlike those of every class: 1" in text
